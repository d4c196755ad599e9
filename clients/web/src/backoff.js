// Exponential backoff and jitter.

const FIRST_BACKOFF_MS = 1000;
const MAX_DOUBLINGS = 12;
// Spreads the heartbeats of players that started at the same time. Jitter only makes a heartbeat earlier, so that it never
// lets a lease expire.
const HEARTBEAT_JITTER = 0.1;
/** If the delay of a timer is longer, browsers run the timer immediately. */
export const MAX_TIMER_DELAY_MS = 2 ** 31 - 1;

/** The full delay doubles with each failure, up to `maxMs`. Returns a random 50–100 % of it, but at least 1 s. */
export function backoffMs(failures, maxMs, random) {
  const doubledMs = FIRST_BACKOFF_MS * 2 ** Math.min(failures, MAX_DOUBLINGS);
  const fullMs = Math.max(Math.min(doubledMs, maxMs), FIRST_BACKOFF_MS);
  return Math.max(fullMs * (0.5 + 0.5 * random()), FIRST_BACKOFF_MS);
}

export function withJitter(intervalMs, random) {
  return intervalMs * (1 - HEARTBEAT_JITTER * random());
}
