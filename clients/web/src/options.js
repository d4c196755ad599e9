// Validates the options and adds defaults. Clock, timers, random numbers, fetch and page are options too, so that tests and
// unusual devices can replace them.

const DEFAULT_REQUEST_TIMEOUT_S = 10;
const DEFAULT_UNANSWERED_START_S = 90;

/** Throws a TypeError for an invalid option. An invalid timeout is replaced by its default instead. */
export function readOptions(options) {
  const { baseUrl, userName, token, onUnavailable = "continue" } = options ?? {};
  if (typeof baseUrl !== "string") throw new TypeError("baseUrl: must be a string");
  if (typeof userName !== "string" || userName === "") throw new TypeError("userName: must be a non-empty string");
  // URL parsers remove dot segments, even percent-encoded ones.
  if (userName === "." || userName === "..") throw new TypeError(`userName: "${userName}" cannot be sent in a URL`);
  if (onUnavailable !== "continue" && onUnavailable !== "stop") {
    throw new TypeError('onUnavailable: must be "continue" or "stop"');
  }
  if (token != null && typeof token !== "string" && typeof token !== "function") {
    throw new TypeError("token: must be a string or a function");
  }
  const fetch = options.fetch ?? globalThis.fetch?.bind(globalThis);
  if (typeof fetch !== "function") throw new TypeError("fetch: missing on this platform; pass one");
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
    requestTimeoutMs: positiveOr(options.requestTimeoutS, DEFAULT_REQUEST_TIMEOUT_S) * 1000,
    unansweredStartMs: positiveOr(options.unansweredStartS, DEFAULT_UNANSWERED_START_S) * 1000,
  };
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

function positiveOr(value, fallback) {
  return Number.isFinite(value) && value > 0 ? value : fallback;
}
