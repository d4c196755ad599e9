// State of one playback from start to stop: idempotency key, lease, pending request, and the time of the next request.
// This file sends no requests and emits no events.

import { backoffMs, withJitter } from "./backoff.js";
import { randomUuid } from "./uuid.js";

// Used until the first response to a start.
const DEFAULT_INTERVAL_MS = 30_000;
// The device slept if the wall clock advanced this much more than the monotonic clock.
const SLEEP_THRESHOLD_MS = 5000;
// When a device wakes up, the browser fires several page events. Events within this time after a request send no
// second request.
const WAKE_DEBOUNCE_MS = 1000;

export function createPlayback({ clock, random, unansweredStartMs }) {
  const times = () => ({ nowMs: clock.now(), wallMs: clock.wall() });
  let sentAt = times();

  return {
    /** Body of the start request. It is the same for every retry, and undefined until the device id is known. */
    body: undefined,
    /** The idempotency key of the start. */
    key: randomUuid(),
    /** @type {string | null} */
    streamId: null,
    /**
     * The last lease that was lost. The `restarted` event reports it.
     * @type {{ streamId: string | null, reason: string } | null}
     */
    lost: null,
    /** Sequence number of the latest request. Responses to earlier requests are ignored. */
    sequence: 0,
    /** The pending request. */
    request: null,
    /** The outcome of the latest failed request, or null while the service is available. */
    outage: null,
    /** Code of the last heartbeat error. A repeated error with the same code is not reported again. */
    reported: null,
    failures: 0,
    restarts: 0,
    intervalMs: DEFAULT_INTERVAL_MS,
    dueMs: Infinity,
    notBeforeMs: -Infinity,
    /** When the lease expires. Before the first lease: when playback without a response to the start must end. */
    endsMs: sentAt.nowMs + unansweredStartMs,

    requestSent(request) {
      sentAt = times();
      this.sequence += 1;
      this.request = request;
      this.dueMs = Infinity;
      return this.sequence;
    },

    leaseGranted({ streamId, leaseMs, intervalMs, sentAtMs }) {
      if (this.streamId !== null) this.restarts = 0;
      this.streamId = streamId;
      this.intervalMs = intervalMs;
      this.endsMs = sentAtMs + leaseMs;
      this.dueMs = sentAtMs + withJitter(intervalMs, random);
      this.recovered();
    },

    recovered() {
      this.outage = null;
      this.failures = 0;
      this.notBeforeMs = -Infinity;
    },

    requestFailed(outcome) {
      this.failures += 1;
      this.outage = outcome;
      const retryAfterMs = outcome.retryAfterMs ?? 0;
      const nowMs = clock.now();
      this.notBeforeMs = nowMs + retryAfterMs;
      // Never retry before Retry-After, and add jitter so that players do not all retry at the same time.
      this.dueMs = nowMs + Math.max(backoffMs(this.failures, this.intervalMs, random), retryAfterMs * (1 + 0.2 * random()));
    },

    /** The lease was lost without an eviction or replacement. The next start uses a new key. */
    leaseLost(outcome) {
      this.lost = { streamId: this.streamId ?? this.lost?.streamId ?? null, reason: outcome.reason };
      this.streamId = null;
      this.key = randomUuid();
      const nowMs = clock.now();
      this.endsMs = nowMs + unansweredStartMs;
      // Start at once, but back off if the lease of the previous restart was never renewed.
      this.dueMs = this.restarts === 0 ? nowMs : nowMs + backoffMs(this.restarts, this.intervalMs, random);
      this.restarts += 1;
      this.recovered();
    },

    /** Whether a wake-up should send the next request immediately. */
    isStale() {
      const now = times();
      // Use the larger difference, because either clock may stop while the device sleeps.
      const sinceMs = Math.max(now.nowMs - sentAt.nowMs, now.wallMs - sentAt.wallMs);
      if (sinceMs < WAKE_DEBOUNCE_MS || now.nowMs < this.notBeforeMs) return false;
      return this.outage !== null || this.streamId === null || sinceMs >= this.intervalMs / 2;
    },

    slept() {
      const now = times();
      return now.wallMs - sentAt.wallMs - (now.nowMs - sentAt.nowMs) > SLEEP_THRESHOLD_MS;
    },
  };
}
