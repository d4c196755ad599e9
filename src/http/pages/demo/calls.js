// The calls that the page's players send: on their way through here each becomes a line of the log, with what its answer
// means in words. A wire can be cut, as when a player crashes: from then on nothing gets through.

const LONGEST_LOG = 200;

/** What a player takes as its `fetch` and `sendBeacon`. `after()` is called when an answer is in. */
export function createWire({ device, log, after }) {
  let cut = false;

  async function wiredFetch(url, init) {
    if (cut) return new Promise(() => {});
    const line = { device, method: init.method ?? "GET", url };
    try {
      const response = await fetch(url, init);
      const body = await response.clone().json().catch(() => undefined);
      // Not for ever: the device's next start waits until this one is over.
      if (cut) throw new TypeError("cut");
      log.add({ ...line, status: response.status, ...meaning(line, response, body) });
      return response;
    } catch (error) {
      if (!cut) log.add({ ...line, status: "none", tone: "warn", words: "No answer: the player plays on and tries again" });
      throw error;
    } finally {
      after();
    }
  }

  function sendBeacon(url) {
    return cut || navigator.sendBeacon(url);
  }

  return { fetch: wiredFetch, sendBeacon, cut: () => (cut = true) };
}

/** In words, and how it is to be taken: `good`, `warn`, `bad`. */
function meaning({ method, url }, response, body) {
  const { status } = response;
  if (status === 409) return { tone: "bad", words: `Limit reached: ${body?.count} of ${body?.limit} play, so this one does not` };
  if (status === 410 && body?.restart === "auto") return { tone: "warn", words: "Its lease ran out: starts again by itself" };
  if (status === 410) return { tone: "bad", words: `Stream was ${body?.reason ?? "ended"}${by(body)}: stops, and waits for its user` };
  if (status === 404) return { tone: "warn", words: "Stream is forgotten: starts again by itself" };
  if (status === 401) return { tone: "warn", words: "Token missing or refused: plays on, asks for another" };
  if (status === 429) return { tone: "warn", words: "Asks too often: plays on, asks later" };
  if (status >= 500) return { tone: "warn", words: "Service is in trouble: plays on, tries again" };
  if (status >= 400) return { tone: "bad", words: `Refused: ${body?.detail ?? body?.title ?? status}` };
  if (url.endsWith("/heartbeat")) return { tone: "good", routine: true, words: `Renewed: ${body?.expiresInSeconds} more seconds` };
  if (url.endsWith("?evict=true")) return { tone: "good", words: "Ended for another: its player learns so at its next heartbeat" };
  if (method === "DELETE") return { tone: "good", words: "Stopped: its slot is free at once" };
  if (response.headers.get("Idempotency-Replayed")) return { tone: "good", words: "The same start again: the same slot" };
  return { tone: "good", words: started(body) };
}

function by(body) {
  return body?.endedBy?.deviceName ? ` by ${body.endedBy.deviceName}` : "";
}

function started(body) {
  const ended = body?.ended?.length ?? 0;
  return ended === 0 ? "Started: has a slot" : "Started: took the slot of an earlier stream, in one step";
}

/** The table of calls. `last` is read out, except for what comes all the time. */
export function createLog({ rows, empty, last }) {
  function add({ device, method, url, status, words, tone, routine = false }) {
    const row = document.createElement("tr");
    row.dataset.tone = tone;
    const cells = [
      ["time", new Date().toLocaleTimeString([], { hour12: false })],
      ["name", device],
      ["call", `${method} ${short(url)}`],
      ["status", status],
      ["words", words],
    ];
    for (const [kind, text] of cells) row.append(cell(kind, text));
    rows.prepend(row);
    while (rows.rows.length > LONGEST_LOG) rows.lastElementChild.remove();
    empty.hidden = true;
    if (!routine) last.textContent = `${device}: ${words}`;
  }

  return { add };
}

function cell(kind, text) {
  const element = document.createElement("td");
  element.className = kind;
  element.textContent = text;
  return element;
}

// The user is known, and of an id the first few digits are enough.
function short(url) {
  const { pathname, search } = new URL(url, location.href);
  const path = pathname.replace(/^.*\/v1\/users\/[^/]+/, "…");
  return path.replace(/([0-9a-f]{4})[0-9a-f]{4}-[0-9a-f-]{27}/, "$1…") + search;
}
