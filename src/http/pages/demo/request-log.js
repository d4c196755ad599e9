// The request log: one table row for each request of the page's players, with the meaning of the response.

const MAX_ROWS = 200;

/** The meaning of a response as text, and its tone: `good`, `warn` or `bad`. */
export function describeResponse({ method, url }, response, body) {
  const { status } = response;
  if (status === 409) {
    return { tone: "bad", meaning: describeDenial(body) };
  }
  if (status === 410 && body?.restart === "auto") return { tone: "warn", meaning: "Lease expired: restarts automatically" };
  if (status === 410) return { tone: "bad", meaning: `Stream was ${body?.reason ?? "ended"}${by(body)}: stops and waits for its user` };
  if (status === 404) return { tone: "warn", meaning: "Stream not found: restarts automatically" };
  if (status === 401 || status === 403) return { tone: "warn", meaning: "Token missing or rejected: retries, and stops when the lease expires" };
  if (status === 429) return { tone: "warn", meaning: "Rate limit exceeded: keeps playing and retries later" };
  if (status >= 500) return { tone: "warn", meaning: "Service error: keeps playing and retries" };
  if (status >= 400) return { tone: "bad", meaning: `Rejected: ${body?.detail ?? body?.title ?? status}` };
  if (url.endsWith("/heartbeat")) return { tone: "good", routine: true, meaning: `Renewed for ${body?.expiresInSeconds} s` };
  if (url.endsWith("?evict=true")) return { tone: "good", meaning: "Evicted: its player stops at its next heartbeat" };
  if (method === "DELETE") return { tone: "good", meaning: "Stopped: its slot is free" };
  if (response.headers.get("Idempotency-Replayed")) return { tone: "good", meaning: "Repeated start: same stream" };
  return { tone: "good", meaning: describeStart(body) };
}

function by(body) {
  return body?.endedBy?.deviceName ? ` by ${body.endedBy.deviceName}` : "";
}

// A rule that forbids a stream, and a limit of 0, count no streams.
function describeDenial(body) {
  const { rule, limit, count } = body ?? {};
  const by = rule ? ` by “${rule}”` : "";
  if (limit === 0) return rule ? `Denied${by}: this stream is not allowed` : "Denied: the account is blocked";
  if (count === undefined) return `Denied${by}`;
  return `Denied${by}: ${count} of ${limit} streams are live`;
}

function describeStart(body) {
  if (body?.overLimit) return "Started above a limit in observe mode";
  const ended = body?.ended?.length ?? 0;
  return ended === 0 ? "Started: holds a slot" : "Started: took the slot of an earlier stream";
}

/** `latest` is a live region: screen readers announce each request except routine ones, which are successful heartbeats. */
export function createRequestLog({ rows, empty, latest }) {
  function add({ device, method, url, status, meaning, tone, routine = false }) {
    const row = document.createElement("tr");
    row.dataset.tone = tone;
    const cells = [
      ["time", new Date().toLocaleTimeString([], { hour12: false })],
      ["name", device],
      ["request", `${method} ${shorten(url)}`],
      ["status", status],
      ["meaning", meaning],
    ];
    for (const [className, text] of cells) row.append(createCell(className, text));
    rows.prepend(row);
    while (rows.rows.length > MAX_ROWS) rows.lastElementChild.remove();
    empty.hidden = true;
    if (!routine) latest.textContent = `${device}: ${meaning}`;
  }

  return { add };
}

function createCell(className, text) {
  const cell = document.createElement("td");
  cell.className = className;
  cell.textContent = text;
  return cell;
}

// Shortens a URL: omits the user, and keeps only the first four digits of a stream id.
function shorten(url) {
  const { pathname, search } = new URL(url, location.href);
  const path = pathname.replace(/^.*\/v1\/users\/[^/]+/, "…");
  return path.replace(/([0-9a-f]{4})[0-9a-f]{4}-[0-9a-f-]{27}/, "$1…") + search;
}
