// Maps an HTTP response of the service to an outcome. These pure functions implement the rule for players
// (docs/PROTOCOL.md).
//
// Outcomes:
// - ok: the request succeeded.
// - denied: the limit is reached. Do not play.
// - lost: the stream's lease expired, or the stream was not found. Start again without user action.
// - ended: the stream was evicted or replaced. Stop, and let the user decide.
// - unauthorized: the token was rejected (401, 403). Retry with a new token.
// - unavailable: no valid response, or a temporary error, for example 429 or 503. Retry.
// - error: the request was rejected for another reason. Report it, and retry.
//
// After the last three outcomes, the player keeps playing until its lease expires. It then follows `onRefused` or `onUnavailable`.

import { readGrant } from "./grant.js";

// Bounds for values from the server. Even with a wrong server setting, players must neither flood the service nor send nothing
// for days.
const INTERVAL_S = { min: 1, max: 3600 };
const LEASE_S = { min: 1, max: 86_400 };
const RETRY_AFTER_S = { min: 0, max: 300 };
const MAX_STREAMS = 100;
const MALFORMED = { code: "malformed-answer" };

// 4xx statuses that mean "retry later". Most of them come from proxies.
const RETRYABLE_STATUSES = new Set([408, 425, 429]);

export function unavailable(code, fields) {
  return Object.assign({}, fields, { kind: "unavailable", code });
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
  const outcome = (kind, fields) => Object.assign({}, common, fields, { kind });
  const isStop = operation === "stop" || operation === "evict";
  if (status === 401 || (status === 403 && !isStop)) return outcome("unauthorized");
  if (status >= 500 || status < 200 || (status >= 300 && status < 400) || RETRYABLE_STATUSES.has(status)) {
    return outcome("unavailable");
  }
  if (isStop) return classifyStop(status, outcome);
  if (status < 300) return classifyStream(body, outcome);
  if (operation === "start" && status === 409) return outcome("denied", denialFields(problem));
  if (status === 410) return classifyEnded(problem, outcome);
  // A 404 without a code also counts as a lost stream, because a gateway may replace the body. The player then starts again. If the
  // 404 is not from the service, this start fails too.
  if (operation === "heartbeat" && status === 404 && problem.code !== "route-not-found") {
    return outcome("lost", { reason: "forgotten" });
  }
  // Every error of the service has a code. A response without a code is from a proxy or a captive portal.
  if (typeof problem.code !== "string") return outcome("unavailable");
  return outcome("error");
}

function classifyStop(status, outcome) {
  const { code } = outcome();
  const notFound = status === 404 && code !== "route-not-found";
  if (status === 204 || status === 410 || notFound) return outcome("ok");
  // The service returns 204. Another 2xx is from a captive portal, such as the sign-in page of a hotel network.
  return status < 300 ? outcome("unavailable", MALFORMED) : outcome("error");
}

function classifyStream(body, outcome) {
  const hasId = isObject(body) && typeof body.streamId === "string" && body.streamId.length <= 64;
  const leaseS = hasId ? seconds(body.expiresInSeconds, LEASE_S) : NaN;
  const intervalS = hasId ? seconds(body.heartbeatIntervalSeconds, INTERVAL_S) : NaN;
  if (!(leaseS > 0 && intervalS > 0)) return outcome("unavailable", MALFORMED);
  const grant = readGrant(body.grant);
  return outcome("ok", { stream: body, streamId: body.streamId, grant, leaseMs: leaseS * 1000, intervalMs: intervalS * 1000 });
}

function denialFields(problem) {
  const streams = Array.isArray(problem.streams) ? problem.streams.filter(isObject).slice(0, MAX_STREAMS) : [];
  return {
    limit: count(problem.limit),
    count: count(problem.count),
    streams,
    rule: typeof problem.rule === "string" ? problem.rule : undefined,
    slotFreesInSeconds: seconds(problem.slotFreesInSeconds, LEASE_S) || undefined,
  };
}

function classifyEnded(problem, outcome) {
  const reason = typeof problem.reason === "string" ? problem.reason : "expired";
  if (problem.restart !== "user") return outcome("lost", { reason });
  return outcome("ended", { reason, endedBy: isObject(problem.endedBy) ? problem.endedBy : undefined });
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
