// What the player takes from where it runs (clock, timers, randomness, fetch), checked and with defaults, and the
// arithmetic of waiting. Nothing else reads the platform, so tests and unusual devices can put their own in place.

const DEFAULT_REQUEST_TIMEOUT_S = 10;
const DEFAULT_UNANSWERED_START_S = 90;
const FIRST_BACKOFF_MS = 1000;
const MAX_DOUBLINGS = 12;
// Heartbeats of players that started together drift apart; always early, never late.
const HEARTBEAT_JITTER = 0.1;
/** Browsers fire a longer timer at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Throws at once on what no server could repair. */
export function readOptions(options) {
  const { baseUrl, userName, token, onUnavailable = "continue" } = options ?? {};
  if (typeof baseUrl !== "string") throw new TypeError("baseUrl: must be a string");
  if (typeof userName !== "string" || userName === "") throw new TypeError("userName: must be a string that is not empty");
  // `fetch` takes these for steps in the path, however they are escaped.
  if (userName === "." || userName === "..") throw new TypeError(`userName: "${userName}" cannot be sent in a URL`);
  if (onUnavailable !== "continue" && onUnavailable !== "stop") {
    throw new TypeError('onUnavailable: must be "continue" or "stop"');
  }
  if (token != null && typeof token !== "string" && typeof token !== "function") {
    throw new TypeError("token: must be a string or a function");
  }
  const fetch = options.fetch ?? globalThis.fetch?.bind(globalThis);
  if (typeof fetch !== "function") throw new TypeError("fetch: this platform has none, give one");
  return {
    ...options,
    streamsUrl: `${baseUrl.replace(/\/+$/, "")}/v1/users/${encodeURIComponent(userName)}/streams`,
    onUnavailable,
    fetch,
    clock: { ...DEFAULT_CLOCK, ...options.clock },
    timers: options.timers ?? DEFAULT_TIMERS,
    random: options.random ?? Math.random,
    sendBeacon: options.sendBeacon ?? globalThis.navigator?.sendBeacon?.bind(globalThis.navigator),
    page: options.page === undefined ? defaultPage() : options.page,
    requestTimeoutMs: positive(options.requestTimeoutS, DEFAULT_REQUEST_TIMEOUT_S) * 1000,
    unansweredStartMs: positive(options.unansweredStartS, DEFAULT_UNANSWERED_START_S) * 1000,
  };
}

/** From one second up to `longestMs`: each failure doubles it, and the upper half is left to chance. */
export function backoffMs(failures, longestMs, random) {
  const doubledMs = FIRST_BACKOFF_MS * 2 ** Math.min(failures, MAX_DOUBLINGS);
  const fullMs = Math.max(Math.min(doubledMs, longestMs), FIRST_BACKOFF_MS);
  return Math.max(fullMs * (0.5 + 0.5 * random()), FIRST_BACKOFF_MS);
}

export function withJitter(intervalMs, random) {
  return intervalMs * (1 - HEARTBEAT_JITTER * random());
}

/** Version 4. `crypto.randomUUID` is missing on pages without TLS. */
export function newId() {
  const { crypto } = globalThis;
  if (crypto?.randomUUID) return crypto.randomUUID();
  const bytes = new Uint8Array(16);
  if (crypto?.getRandomValues) crypto.getRandomValues(bytes);
  else bytes.forEach((_, index) => (bytes[index] = Math.random() * 256));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

const DEFAULT_CLOCK = {
  now: () => (globalThis.performance ? globalThis.performance.now() : Date.now()),
  wall: () => Date.now(),
};

const DEFAULT_TIMERS = {
  setTimeout: (call, delayMs) => globalThis.setTimeout(call, delayMs),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
};

function defaultPage() {
  const { window, document } = globalThis;
  return typeof window?.addEventListener === "function" && document ? { window, document } : null;
}

function positive(value, otherwise) {
  return Number.isFinite(value) && value > 0 ? value : otherwise;
}
