// The service's calls over `fetch`: tokens, time limits, unload. Each call settles exactly once with an outcome and
// never rejects; it decides nothing about playback and repeats nothing but a request whose token had run out.

import { away, readAnswer } from "./answers.js";

export function createClient(settings) {
  const { streamsUrl, fetch, clock, timers, requestTimeoutMs, sendBeacon } = settings;
  const bearer = createBearer(settings.token, timers, requestTimeoutMs);

  const urlOf = (streamId, rest = "") => `${streamsUrl}/${encodeURIComponent(streamId)}${rest}`;

  async function once(call, url, init, token) {
    // The lease is counted from here: the server's clock starts later, so ours ends first.
    const sentAtMs = clock.now();
    const response = await fetch(url, { ...init, headers: authorized(init.headers, token) });
    const header = (name) => response.headers?.get?.(name);
    const body = /\bjson\b/i.test(header("content-type") ?? "") ? await response.json().catch(() => undefined) : undefined;
    return { ...readAnswer(call, response.status, header, body), sentAtMs };
  }

  async function attempt(call, url, init) {
    const first = await bearer.get();
    const outcome = await once(call, url, init, first);
    if (outcome.kind !== "unauthorized") return bearer.worked(), outcome;
    // At once, but only the first time: an issuer in trouble is not to be asked at every answer.
    if (!bearer.reject(first)) return outcome;
    const second = await bearer.get();
    const again = await once(call, url, init, second);
    if (again.kind === "unauthorized") bearer.reject(second);
    else bearer.worked();
    return again;
  }

  function send(call, url, init) {
    const controller = typeof AbortController === "function" ? new AbortController() : undefined;
    let settle;
    // Beside the abort, since not every platform's `fetch` listens to one.
    const outcome = new Promise((resolve) => (settle = resolve));
    const finish = (result) => {
      timers.clearTimeout(timer);
      settle(result);
    };
    const giveUp = (result) => {
      finish(result);
      controller?.abort();
    };
    const timer = timers.setTimeout(() => giveUp(away("timeout")), requestTimeoutMs);
    attempt(call, url, { ...init, signal: controller?.signal }).then(finish, (error) =>
      finish(away("no-answer", { detail: String(error?.message ?? error) })),
    );
    return { outcome, cancel: () => giveUp({ kind: "cancelled" }) };
  }

  /** While the page goes away: sent before this returns, not waited for, not repeated. */
  function stopNow(streamId) {
    const token = bearer.known();
    // A beacon needs no preflight and outlives the page everywhere, but cannot carry a token.
    if (!token && beacon(streamId)) return;
    try {
      const init = { method: "DELETE", keepalive: true, headers: authorized({}, token) };
      Promise.resolve(fetch(urlOf(streamId), init)).catch(() => {});
    } catch {
      if (token) beacon(streamId);
    }
  }

  function beacon(streamId) {
    try {
      return sendBeacon?.(urlOf(streamId, "/stop")) ?? false;
    } catch {
      return false;
    }
  }

  return {
    start: (key, body) =>
      send("start", streamsUrl, {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": key },
        body,
      }),
    heartbeat: (streamId) => send("heartbeat", urlOf(streamId, "/heartbeat"), { method: "POST" }),
    // Some browsers, old televisions' among them, refuse to keep a request alive that needs a preflight: repeat without.
    stop: (streamId, { keepalive }) => send("stop", urlOf(streamId), { method: "DELETE", ...(keepalive && { keepalive }) }),
    evict: (streamId) => send("evict", urlOf(streamId, "?evict=true"), { method: "DELETE" }),
    stopNow,
  };
}

function authorized(headers, token) {
  return token ? { ...headers, Authorization: `Bearer ${token}` } : { ...headers };
}

// The token is kept between calls: at unload there is no time to ask for one.
function createBearer(source, timers, askWithinMs) {
  let token = typeof source === "string" ? source : undefined;
  let rejected;
  let asking;
  let refreshed = false;

  // One at a time for all calls, but one that hangs must not hang those that come later.
  function ask() {
    const mine = (async () => (token = (await source({ rejected })) ?? undefined))();
    const done = () => {
      timers.clearTimeout(timer);
      if (asking === mine) asking = undefined;
    };
    const timer = timers.setTimeout(done, askWithinMs);
    mine.then(done, done);
    return mine;
  }

  return {
    known: () => token,
    async get() {
      if (token !== undefined || typeof source !== "function") return token;
      return (asking ??= ask());
    },
    /** Whether to try again at once. A function that keeps tokens itself learns that this one is of no use. */
    reject(old) {
      if (typeof source !== "function") return false;
      rejected = old;
      if (token === old) token = undefined;
      const atOnce = !refreshed || token !== undefined || asking !== undefined;
      refreshed = true;
      return atOnce;
    },
    worked() {
      refreshed = false;
      rejected = undefined;
    },
  };
}
