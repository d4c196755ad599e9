// HTTP client of the service: URLs, tokens, timeouts, and requests during page unload. Every request resolves once with an
// outcome and never rejects. The client repeats a request only after a 401 or 403, with a new token.

import { classifyResponse, unavailable } from "./responses.js";

const JSON_TYPE = { "Content-Type": "application/json" };

export function createClient(settings) {
  const { streamsUrl, fetch, clock, timers, requestTimeoutMs, sendBeacon } = settings;
  const tokens = createTokenCache(settings.token, timers, requestTimeoutMs);

  const urlOf = (streamId, rest = "") => `${streamsUrl}/${encodeURIComponent(streamId)}${rest}`;

  async function sendOnce(operation, url, init, token) {
    // The lease is measured from this time. The server measures its lease from a later time, so the local lease ends first.
    const sentAtMs = clock.now();
    const response = await fetch(url, Object.assign({}, init, { headers: authorized(init.headers, token) }));
    const header = (name) => response.headers?.get?.(name);
    const body = /\bjson\b/i.test(header("content-type") ?? "") ? await response.json().catch(() => undefined) : undefined;
    return Object.assign(classifyResponse(operation, response.status, header, body), { sentAtMs });
  }

  async function sendWithToken(operation, url, init, getToken) {
    const first = await getToken();
    const outcome = await sendOnce(operation, url, init, first);
    if (outcome.kind !== "unauthorized") return tokens.accept(), outcome;
    // Repeat the request at once only after the first of several consecutive rejections. Otherwise a token function that
    // returns invalid tokens would be called twice for each retry.
    if (!tokens.reject(first, outcome)) return outcome;
    const second = await getToken();
    const repeated = await sendOnce(operation, url, init, second);
    if (repeated.kind === "unauthorized") tokens.reject(second, repeated);
    else tokens.accept();
    return repeated;
  }

  function send(operation, url, init) {
    const controller = typeof AbortController === "function" ? new AbortController() : undefined;
    let resolveOutcome;
    // Some platforms ignore the abort signal of `fetch`, so the timeout also resolves the outcome directly.
    const outcome = new Promise((resolve) => (resolveOutcome = resolve));
    const finish = (result) => {
      timers.clearTimeout(timer);
      resolveOutcome(result);
    };
    const abort = (result) => {
      finish(result);
      controller?.abort();
    };
    // The rejection (401 or 403) that caused the current call of the token function. If the function fails, this rejection is
    // the outcome. Otherwise the failure would look like a lost connection to the service.
    let rejection;
    async function getToken() {
      rejection = tokens.rejection();
      const token = await tokens.get();
      rejection = undefined;
      return token;
    }
    const timer = timers.setTimeout(() => abort(rejection ?? unavailable("timeout")), requestTimeoutMs);
    sendWithToken(operation, url, Object.assign(init, { signal: controller?.signal }), getToken).then(finish, (error) =>
      finish(rejection ?? unavailable("no-answer", { detail: String(error?.message ?? error) })),
    );
    return { outcome, cancel: () => abort({ kind: "cancelled" }) };
  }

  /**
   * Sends a stop during page unload, synchronously and without waiting for the response. Neither `sendBeacon` nor `fetch` is
   * reliable: content blockers let `sendBeacon` return true without sending anything, and some browsers do not complete a
   * `fetch` with `keepalive`. Therefore a stop without a token uses both. A repeated stop has no effect.
   */
  function stopNow(streamId) {
    const token = tokens.cached();
    // Without a token, use POST. It needs no preflight, which might not complete during the unload.
    const [url, method] = token ? [urlOf(streamId), "DELETE"] : [urlOf(streamId, "/stop"), "POST"];
    // A beacon cannot contain a token. With a token, send one only if `fetch` throws.
    let useBeacon = !token;
    try {
      Promise.resolve(fetch(url, { method, keepalive: true, headers: authorized({}, token) })).catch(() => {});
    } catch {
      useBeacon = true;
    }
    if (useBeacon) beacon(streamId);
  }

  function beacon(streamId) {
    try {
      sendBeacon?.(urlOf(streamId, "/stop"));
    } catch {
      // A content blocker may replace `sendBeacon` with a function that throws.
    }
  }

  return {
    start: (key, body) =>
      send("start", streamsUrl, { method: "POST", headers: Object.assign({ "Idempotency-Key": key }, JSON_TYPE), body }),
    /** With a `body`, the heartbeat also reports new content. */
    heartbeat: (streamId, body) =>
      send("heartbeat", urlOf(streamId, "/heartbeat"), Object.assign({ method: "POST" }, body && { headers: JSON_TYPE, body })),
    // `keepalive` is optional, because some browsers, for example on old televisions, reject it for a request that needs a preflight.
    stop: (streamId, { keepalive }) =>
      send("stop", urlOf(streamId), Object.assign({ method: "DELETE" }, keepalive && { keepalive })),
    evict: (streamId) => send("evict", urlOf(streamId, "?evict=true"), { method: "DELETE" }),
    stopNow,
  };
}

function authorized(headers, token) {
  return Object.assign({}, headers, token && { Authorization: `Bearer ${token}` });
}

// Caches the token between requests, because a stop during page unload cannot wait for a new token.
function createTokenCache(source, timers, fetchTimeoutMs) {
  let token = typeof source === "string" ? source : undefined;
  let rejected;
  let rejection;
  let pending;
  let refreshed = false;

  // Concurrent requests share one call of the token function. If this call times out, later requests start a new call.
  function fetchToken() {
    const call = (async () => (token = (await source({ rejected })) ?? undefined))();
    const done = () => {
      timers.clearTimeout(timer);
      if (pending === call) pending = undefined;
    };
    const timer = timers.setTimeout(done, fetchTimeoutMs);
    call.then(done, done);
    return call;
  }

  return {
    cached: () => token,
    async get() {
      if (token !== undefined || typeof source !== "function") return token;
      return (pending ??= fetchToken());
    },
    /** The latest response that rejected a token. Undefined after any other response. */
    rejection: () => rejection,
    /**
     * Returns whether to repeat the request at once: after the first of several consecutive rejections, or if another request has
     * fetched a newer token or is fetching one. The next call of the token function receives the rejected token.
     */
    reject(old, outcome) {
      if (typeof source !== "function") return false;
      rejected = old;
      rejection = outcome;
      if (token === old) token = undefined;
      const repeat = !refreshed || token !== undefined || pending !== undefined;
      refreshed = true;
      return repeat;
    },
    accept() {
      refreshed = false;
      rejected = undefined;
      rejection = undefined;
    },
  };
}
