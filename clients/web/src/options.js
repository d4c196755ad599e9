// Validates the options and adds defaults. Clock, timers, random numbers, fetch and page are options too, so that tests and
// unusual devices can replace them.

import { platform } from "./platform.js";

const DEFAULT_REQUEST_TIMEOUT_S = 10;
const POLICIES = ["continue", "stop"];

/** Throws a TypeError for an invalid option, except that an invalid duration in seconds is replaced by the option's default. */
export function readOptions(options) {
  const { baseUrl, userName, token, onUnavailable = "continue", onRefused } = options ?? {};
  if (typeof baseUrl !== "string") throw new TypeError("baseUrl: must be a string");
  if (typeof userName !== "string" || userName === "") throw new TypeError("userName: must be a non-empty string");
  // URL parsers remove dot segments, even percent-encoded ones.
  if (userName === "." || userName === "..") throw new TypeError(`userName: "${userName}" cannot be sent in a URL`);
  checkPolicy("onUnavailable", onUnavailable);
  if (onRefused != null) checkPolicy("onRefused", onRefused);
  if (token != null && typeof token !== "string" && typeof token !== "function") {
    throw new TypeError("token: must be a string or a function");
  }
  const fetch = options.fetch ?? platform.fetch?.bind(platform);
  if (typeof fetch !== "function") throw new TypeError("fetch: missing on this platform; pass one");
  return Object.assign({}, options, {
    streamsUrl: `${baseUrl.replace(/\/+$/, "")}/v1/users/${encodeURIComponent(userName)}/streams`,
    onUnavailable,
    onRefused,
    fetch,
    clock: Object.assign({}, DEFAULT_CLOCK, options.clock),
    timers: options.timers ?? DEFAULT_TIMERS,
    random: options.random ?? Math.random,
    sendBeacon: options.sendBeacon ?? platform.navigator?.sendBeacon?.bind(platform.navigator),
    page: options.page === undefined ? defaultPage() : options.page,
    requestTimeoutMs: (positive(options.requestTimeoutS) ?? DEFAULT_REQUEST_TIMEOUT_S) * 1000,
    // If undefined, the time without a lease is one lease duration.
    unansweredStartMs: positive(options.unansweredStartS) && options.unansweredStartS * 1000,
  });
}

function checkPolicy(name, value) {
  if (!POLICIES.includes(value)) throw new TypeError(`${name}: must be "continue" or "stop"`);
}

const DEFAULT_CLOCK = {
  now: () => (platform.performance ? platform.performance.now() : Date.now()),
  wall: () => Date.now(),
};

const DEFAULT_TIMERS = {
  setTimeout: (call, delayMs) => platform.setTimeout(call, delayMs),
  clearTimeout: (timer) => platform.clearTimeout(timer),
};

function defaultPage() {
  const { window, document } = platform;
  return typeof window?.addEventListener === "function" && document ? { window, document } : null;
}

function positive(value) {
  return Number.isFinite(value) && value > 0 ? value : undefined;
}
