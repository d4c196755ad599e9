// What an answer means for a player: the published rule as one pure function from status and body to an outcome.
// Sends nothing and remembers nothing.
//
// Outcomes: ok · denied (do not play) · gone (start again by itself) · taken (stop, the user decides) · unauthorized
// · away (nobody answered who knows: play on, repeat) · bug (play on, report).

// A wrong setting of the server must make a player neither hammer it nor fall silent for days.
const INTERVAL_S = { least: 1, most: 3600 };
const LEASE_S = { least: 1, most: 86_400 };
const RETRY_AFTER_S = { least: 0, most: 300 };
const MAX_STREAMS = 100;

// A proxy's way of saying "later".
const AWAY_STATUSES = new Set([408, 425, 429]);

export function away(code, fields) {
  return { ...fields, kind: "away", code };
}

/** `call` is "start", "heartbeat", "stop" or "evict"; `body` what the JSON said, if it was JSON. */
export function readAnswer(call, status, header, body) {
  const problem = isObject(body) ? body : {};
  const about = {
    status,
    code: typeof problem.code === "string" ? problem.code : `http-${status}`,
    detail: typeof problem.detail === "string" ? problem.detail : undefined,
    requestId: header("x-request-id") ?? undefined,
    retryAfterMs: seconds(header("retry-after"), RETRY_AFTER_S) * 1000,
  };
  if (status === 401) return { kind: "unauthorized", ...about };
  if (status >= 500 || status < 200 || (status >= 300 && status < 400) || AWAY_STATUSES.has(status)) {
    return away(about.code, about);
  }
  if (call === "stop" || call === "evict") return readStop(status, about);
  if (status < 300) return readStream(body, about);
  if (call === "start" && status === 409) return readDenial(problem, about);
  if (status === 410) return readEnded(problem, about);
  // Without a code it is not the service's: an ingress that knows no such path, a network that wants a sign-in.
  if (call === "start" && typeof problem.code !== "string") return away(about.code, about);
  if (call === "heartbeat" && status === 404 && problem.code !== "route-not-found") {
    return { kind: "gone", reason: "forgotten", ...about };
  }
  return { kind: "bug", ...about };
}

function readStop(status, about) {
  const gone = status === 404 && about.code !== "route-not-found";
  if (status === 204 || status === 410 || gone) return { kind: "ok", ...about };
  // 200 with a page: the sign-in of a hotel's network, not the service.
  return status < 300 ? away("malformed-answer", about) : { kind: "bug", ...about };
}

function readStream(body, about) {
  const named = isObject(body) && typeof body.streamId === "string" && body.streamId.length <= 64;
  const leaseS = named ? seconds(body.expiresInSeconds, LEASE_S) : NaN;
  const intervalS = named ? seconds(body.heartbeatIntervalSeconds, INTERVAL_S) : NaN;
  if (!(leaseS > 0 && intervalS > 0)) return away("malformed-answer", about);
  return { kind: "ok", ...about, stream: body, streamId: body.streamId, leaseMs: leaseS * 1000, intervalMs: intervalS * 1000 };
}

function readDenial(problem, about) {
  const frees = seconds(problem.slotFreesInSeconds, LEASE_S);
  const streams = Array.isArray(problem.streams) ? problem.streams.filter(isObject).slice(0, MAX_STREAMS) : [];
  return {
    kind: "denied",
    ...about,
    limit: count(problem.limit),
    count: count(problem.count),
    streams,
    slotFreesInSeconds: frees || undefined,
  };
}

function readEnded(problem, about) {
  const reason = typeof problem.reason === "string" ? problem.reason : "expired";
  if (problem.restart !== "user") return { kind: "gone", reason, ...about };
  return { kind: "taken", reason, endedBy: isObject(problem.endedBy) ? problem.endedBy : undefined, ...about };
}

/** 0 for what is no number of seconds: a date in `Retry-After`, a missing field. */
function seconds(value, { least, most }) {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number !== "number" || !Number.isFinite(number) || number < 0) return 0;
  return Math.min(Math.max(number, least), most);
}

function count(value) {
  return Number.isInteger(value) && value >= 0 ? value : undefined;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
