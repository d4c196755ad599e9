// Exponential backoff and jitter.

const FIRST_BACKOFF_MS = 1000;
const MAX_DOUBLINGS = 12;
// Spreads the heartbeats of players that started together. Always early, so that no lease expires because of it.
const HEARTBEAT_JITTER = 0.1;
/** Browsers fire a timer with a longer delay at once. */
export const MAX_TIMER_DELAY_MS = 2 ** 31 - 1;

/** Doubles with each failure, up to `maxMs`. The result is a random 50–100 % of that, and at least 1 s. */
export function backoffMs(failures, maxMs, random) {
  const doubledMs = FIRST_BACKOFF_MS * 2 ** Math.min(failures, MAX_DOUBLINGS);
  const fullMs = Math.max(Math.min(doubledMs, maxMs), FIRST_BACKOFF_MS);
  return Math.max(fullMs * (0.5 + 0.5 * random()), FIRST_BACKOFF_MS);
}

export function withJitter(intervalMs, random) {
  return intervalMs * (1 - HEARTBEAT_JITTER * random());
}
