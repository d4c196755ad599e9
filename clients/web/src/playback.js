// What is known of one playback, from the user's start to its end: its key, its lease, its requests, when the next one
// is due. Plain data and arithmetic; sends nothing and emits nothing.

import { backoffMs, newId, withJitter } from "./platform.js";

// Until a start says otherwise.
const DEFAULT_INTERVAL_MS = 30_000;
// A clock that ran on by so much more than the other: the device slept while one of them stood still.
const SLEPT_MS = 5000;
// An event from the page and a request that was just sent are about the same moment.
const SETTLING_MS = 1000;

export function createPlayback({ clock, random, unansweredStartMs }) {
  const times = () => ({ nowMs: clock.now(), wallMs: clock.wall() });
  let sent = times();

  return {
    /** What its starts send, the same each time; none until the device id is known. */
    body: undefined,
    key: newId(),
    /** @type {string | null} */
    streamId: null,
    /**
     * The stream that ran out last: the next start is in its place.
     * @type {{ streamId: string | null, reason: string } | null}
     */
    lost: null,
    /** Of the last request; an answer to an earlier one says nothing any more. */
    sequence: 0,
    /** The request that is under way. */
    request: null,
    /** Why nobody answers, while nobody does. */
    away: null,
    /** The code of the last heartbeat's bug, so that each is reported once. */
    reported: null,
    failures: 0,
    restarts: 0,
    intervalMs: DEFAULT_INTERVAL_MS,
    dueMs: Infinity,
    notBeforeMs: -Infinity,
    /** How long it may play without an answer. */
    untilMs: sent.nowMs + unansweredStartMs,

    sending(request) {
      sent = times();
      this.sequence += 1;
      this.request = request;
      this.dueMs = Infinity;
      return this.sequence;
    },

    acknowledged({ streamId, leaseMs, intervalMs, sentAtMs }) {
      if (this.streamId !== null) this.restarts = 0;
      this.streamId = streamId;
      this.intervalMs = intervalMs;
      this.untilMs = sentAtMs + leaseMs;
      this.dueMs = sentAtMs + withJitter(intervalMs, random);
      this.answered();
    },

    answered() {
      this.away = null;
      this.failures = 0;
      this.notBeforeMs = -Infinity;
    },

    unanswered(outcome) {
      this.failures += 1;
      this.away = outcome;
      const retryAfterMs = outcome.retryAfterMs ?? 0;
      const nowMs = clock.now();
      this.notBeforeMs = nowMs + retryAfterMs;
      // Late, not early, and not all at once, where the service said when.
      this.dueMs = nowMs + Math.max(backoffMs(this.failures, this.intervalMs, random), retryAfterMs * (1 + 0.2 * random()));
    },

    /** The lease is gone and nobody took it: another start, under another key. */
    restarting(outcome) {
      this.lost = { streamId: this.streamId ?? this.lost?.streamId ?? null, reason: outcome.reason };
      this.streamId = null;
      this.key = newId();
      const nowMs = clock.now();
      this.untilMs = nowMs + unansweredStartMs;
      // At once, unless the last one was lost before any heartbeat.
      this.dueMs = this.restarts === 0 ? nowMs : nowMs + backoffMs(this.restarts, this.intervalMs, random);
      this.restarts += 1;
      this.answered();
    },

    /** Whether the page's waking up is a reason to ask before the time. */
    inDoubt() {
      const now = times();
      // Either clock may stand still while the device sleeps.
      const sinceMs = Math.max(now.nowMs - sent.nowMs, now.wallMs - sent.wallMs);
      if (sinceMs < SETTLING_MS || now.nowMs < this.notBeforeMs) return false;
      return this.away !== null || this.streamId === null || sinceMs >= this.intervalMs / 2;
    },

    slept() {
      const now = times();
      return now.wallMs - sent.wallMs - (now.nowMs - sent.nowMs) > SLEPT_MS;
    },
  };
}
