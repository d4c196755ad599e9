// Maps an HTTP response of the service to an outcome. These pure functions implement the rule for players
// (docs/PROTOCOL.md).
//
// Outcomes:
// - ok: the request succeeded.
// - denied: the limit is reached. Do not play.
// - lost: the lease expired or was not found. Start again without user action.
// - ended: the stream was evicted or replaced. Stop, and let the user decide.
// - unauthorized: the token was rejected.
// - unavailable: the service sent no valid response. Keep playing and retry.
// - error: a retry cannot help. Keep playing and report it.

// Bounds for values from the server. With a wrong server setting, players must not flood the service, and must not stop
// sending for days.
const INTERVAL_S = { min: 1, max: 3600 };
const LEASE_S = { min: 1, max: 86_400 };
const RETRY_AFTER_S = { min: 0, max: 300 };
const MAX_STREAMS = 100;

// 4xx statuses that mean "retry later". Most of them come from proxies.
const RETRYABLE_STATUSES = new Set([408, 425, 429]);

export function unavailable(code, fields) {
  return { ...fields, kind: "unavailable", code };
}

/** `operation` is "start", "heartbeat", "stop" or "evict". `body` is the parsed JSON, or undefined. */
export function classifyResponse(operation, status, header, body) {
  const problem = isObject(body) ? body : {};
  const common = {
    status,
    code: typeof problem.code === "string" ? problem.code : `http-${status}`,
    detail: typeof problem.detail === "string" ? problem.detail : undefined,
    requestId: header("x-request-id") ?? undefined,
    retryAfterMs: seconds(header("retry-after"), RETRY_AFTER_S) * 1000,
  };
  if (status === 401) return { kind: "unauthorized", ...common };
  if (status >= 500 || status < 200 || (status >= 300 && status < 400) || RETRYABLE_STATUSES.has(status)) {
    return unavailable(common.code, common);
  }
  if (operation === "stop" || operation === "evict") return classifyStop(status, common);
  if (status < 300) return classifyStream(body, common);
  if (operation === "start" && status === 409) return classifyDenial(problem, common);
  if (status === 410) return classifyEnded(problem, common);
  // Every error of the service has a code. A response without a code is from a proxy or a captive portal.
  if (operation === "start" && typeof problem.code !== "string") return unavailable(common.code, common);
  if (operation === "heartbeat" && status === 404 && problem.code !== "route-not-found") {
    return { kind: "lost", reason: "forgotten", ...common };
  }
  return { kind: "error", ...common };
}

function classifyStop(status, common) {
  const notFound = status === 404 && common.code !== "route-not-found";
  if (status === 204 || status === 410 || notFound) return { kind: "ok", ...common };
  // The service returns 204. Another 2xx is from a captive portal, such as the sign-in page of a hotel network.
  return status < 300 ? unavailable("malformed-answer", common) : { kind: "error", ...common };
}

function classifyStream(body, common) {
  const hasId = isObject(body) && typeof body.streamId === "string" && body.streamId.length <= 64;
  const leaseS = hasId ? seconds(body.expiresInSeconds, LEASE_S) : NaN;
  const intervalS = hasId ? seconds(body.heartbeatIntervalSeconds, INTERVAL_S) : NaN;
  if (!(leaseS > 0 && intervalS > 0)) return unavailable("malformed-answer", common);
  return { kind: "ok", ...common, stream: body, streamId: body.streamId, leaseMs: leaseS * 1000, intervalMs: intervalS * 1000 };
}

function classifyDenial(problem, common) {
  const slotFreesInSeconds = seconds(problem.slotFreesInSeconds, LEASE_S);
  const streams = Array.isArray(problem.streams) ? problem.streams.filter(isObject).slice(0, MAX_STREAMS) : [];
  return {
    kind: "denied",
    ...common,
    limit: count(problem.limit),
    count: count(problem.count),
    streams,
    slotFreesInSeconds: slotFreesInSeconds || undefined,
  };
}

function classifyEnded(problem, common) {
  const reason = typeof problem.reason === "string" ? problem.reason : "expired";
  if (problem.restart !== "user") return { kind: "lost", reason, ...common };
  return { kind: "ended", reason, endedBy: isObject(problem.endedBy) ? problem.endedBy : undefined, ...common };
}

/** Returns 0 if the value is not a number of seconds, for example a missing field or a date in `Retry-After`. */
function seconds(value, { min, max }) {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number !== "number" || !Number.isFinite(number) || number < 0) return 0;
  return Math.min(Math.max(number, min), max);
}

function count(value) {
  return Number.isInteger(value) && value >= 0 ? value : undefined;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
