// State of one playback from start to stop: idempotency key, lease, pending request, and the time of the next request.
// This file sends no requests and emits no events.

import { backoffMs, withJitter } from "./backoff.js";
import { createLabels } from "./labels.js";

// Used until the first response to a start.
const DEFAULT_INTERVAL_MS = 30_000;
// The device slept if the wall clock advanced this much more than the monotonic clock, or if a timer runs this much too late.
const SLEEP_THRESHOLD_MS = 5000;
// When a device wakes up, the browser fires several page events. Events within this time after a request send no
// second request.
const WAKE_DEBOUNCE_MS = 1000;
// Minimum time between a request and one that reports new content or labels. Several changes in this time cause only one request.
// While they keep changing, the time doubles, up to the maximum.
const CHANGE_GAP_MS = { min: 500, max: 5000 };

/** `graceMs` is the time that the player may play without a lease. `description` reads the options of the playback. */
export function createPlayback({ clock, random, requestTimeoutMs }, graceMs, description) {
  const times = () => ({ nowMs: clock.now(), wallMs: clock.wall() });
  let sentAt = times();
  let changeSentAtMs = -Infinity;
  let changeGapMs = CHANGE_GAP_MS.min;

  return {
    /** True when the device id is known and no abandoned start of this device is pending. */
    ready: false,
    /** Body and idempotency key of the start, the same for all retries. If `key` is undefined, the next start creates both. */
    body: undefined,
    key: undefined,
    /**
     * Ids of the streams that the start replaces. If undefined, the start uses the `replaces` option of the player.
     * @type {string[] | undefined}
     */
    replaces: undefined,
    /** @type {string | null} */
    streamId: null,
    /**
     * The last lease that was lost. The `restarted` event reports it.
     * @type {{ streamId: string | null, reason: string } | null}
     */
    lost: null,
    labels: createLabels(description),
    /** Sequence number of the latest request. Responses to earlier requests are ignored. */
    sequence: 0,
    /** The pending request. */
    request: null,
    /** The outcome of the latest request if it failed, otherwise null. */
    failure: null,
    /** True between an `unavailable` event and the next `available` event. */
    outage: false,
    /** Code of the last `error` event. A repeated error with the same code emits no further event. */
    reported: null,
    failures: 0,
    restarts: 0,
    intervalMs: DEFAULT_INTERVAL_MS,
    dueMs: Infinity,
    /** When the next heartbeat is due, if no other request is sent before. */
    renewalDueMs: Infinity,
    notBeforeMs: -Infinity,
    /** Time when the lease expires. Without a lease: time when playback must end, if the policy is "stop". */
    endsMs: sentAt.nowMs + graceMs,
    /** Content id of the latest request that contained one. */
    sentContent: undefined,
    /** Content id that the service has stored. Undefined if unknown. */
    storedContent: undefined,
    /** Content id in the latest response. It may differ from `storedContent`, because the service normalizes content ids. */
    listedContent: undefined,

    /** Records the time of the next request. Call this before creating the request, so that the time is recorded even if that throws. */
    beginRequest() {
      sentAt = times();
      this.sequence += 1;
      this.request = null;
    },

    requestSent(request) {
      this.request = request;
      this.dueMs = Infinity;
      return this.sequence;
    },

    /** Ensures that the outcome of a pending request is ignored. */
    requestAbandoned() {
      this.sequence += 1;
      this.request = null;
      this.ready = false;
      this.dueMs = Infinity;
    },

    contentSent(contentId) {
      this.changeSent();
      this.sentContent = contentId;
      this.storedContent = undefined;
    },

    /** Call this when a request reports new content or labels. */
    changeSent() {
      const nowMs = clock.now();
      const isFast = nowMs - changeSentAtMs < 2 * changeGapMs;
      changeGapMs = isFast ? Math.min(2 * changeGapMs, CHANGE_GAP_MS.max) : CHANGE_GAP_MS.min;
      changeSentAtMs = nowMs;
    },

    leaseGranted({ streamId, leaseMs, intervalMs, sentAtMs, stream }) {
      if (this.streamId !== null) this.restarts = 0;
      // The service stores nothing if a heartbeat cannot extend the lease. The response then contains the old content id, and the
      // next heartbeat sends the new one again.
      const { contentId } = stream;
      const stored = this.streamId === null || contentId === this.sentContent || contentId !== this.listedContent;
      if (stored) this.storedContent = this.sentContent;
      this.listedContent = contentId;
      this.streamId = streamId;
      this.intervalMs = intervalMs;
      this.endsMs = sentAtMs + leaseMs;
      this.renewalDueMs = sentAtMs + withJitter(intervalMs, random);
      this.dueMs = this.renewalDueMs;
      this.reported = null;
      this.recovered();
    },

    recovered() {
      this.failure = null;
      this.outage = false;
      this.failures = 0;
      this.notBeforeMs = -Infinity;
    },

    /** Call this when content or labels change. The next request is then due as soon as `changeGapMs` has passed since the latest one. */
    changed() {
      this.dueMs = Math.min(this.dueMs, Math.max(clock.now(), sentAt.nowMs + changeGapMs));
    },

    /** The stream was replaced by another one of this playback, which has this content. */
    replaced(contentId) {
      this.streamId = null;
      this.sentContent = contentId;
    },

    /** The service refused a change of the labels. The lease is as before. */
    changeRefused() {
      this.recovered();
      this.dueMs = this.renewalDueMs;
    },

    requestFailed(outcome) {
      this.failures += 1;
      this.failure = outcome;
      const retryAfterMs = outcome.retryAfterMs ?? 0;
      const nowMs = clock.now();
      this.notBeforeMs = nowMs + retryAfterMs;
      // Never retry before Retry-After, and add jitter so that players do not all retry at the same time.
      this.dueMs = nowMs + Math.max(backoffMs(this.failures, this.intervalMs, random), retryAfterMs * (1 + 0.2 * random()));
    },

    /** The lease was lost without an eviction or replacement. The next start uses a new key. */
    leaseLost(outcome, graceMs) {
      const nowMs = clock.now();
      // If the playback had a lease, it gets the full time without a lease again. A start that was lost never had a lease, so its
      // time continues to run.
      if (this.streamId !== null) this.endsMs = nowMs + graceMs;
      this.lost = { streamId: this.streamId ?? this.lost?.streamId ?? null, reason: outcome.reason };
      this.streamId = null;
      this.key = undefined;
      // Start at once, but back off if the lease of the previous restart was never renewed.
      this.dueMs = this.restarts === 0 ? nowMs : nowMs + backoffMs(this.restarts, this.intervalMs, random);
      this.restarts += 1;
      this.recovered();
    },

    /** Whether the latest request was sent at or after `endsMs`. */
    sentAfterEnd() {
      return sentAt.nowMs >= this.endsMs;
    },

    /**
     * Whether the lease, or the time without a lease, ended while the device slept. The latest failure is then too old to end
     * playback, so the session must send another request first.
     */
    sleptPastEnd() {
      const nowMs = clock.now();
      // Latest time when playback ends if the device does not sleep: the latest request may time out after `endsMs`.
      const latestMs = Math.max(this.endsMs, sentAt.nowMs + requestTimeoutMs);
      return !this.sentAfterEnd() && nowMs - latestMs > SLEEP_THRESHOLD_MS && nowMs >= this.notBeforeMs;
    },

    /** Whether a wake-up should send the next request immediately. */
    isStale() {
      const now = times();
      // Use the larger difference, because either clock may stop while the device sleeps.
      const sinceMs = Math.max(now.nowMs - sentAt.nowMs, now.wallMs - sentAt.wallMs);
      if (sinceMs < WAKE_DEBOUNCE_MS || now.nowMs < this.notBeforeMs) return false;
      return this.failure !== null || this.streamId === null || sinceMs >= this.intervalMs / 2;
    },

    slept() {
      const now = times();
      return now.wallMs - sentAt.wallMs - (now.nowMs - sentAt.nowMs) > SLEEP_THRESHOLD_MS;
    },
  };
}
