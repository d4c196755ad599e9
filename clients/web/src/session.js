// Session of one player: the state machine of the protocol, without a media element. A session holds a slot during
// playback. Its events show the application when to pause. One timer schedules all heartbeats and retries of a playback. No
// method of a session throws or rejects.

import { createClient } from "./client.js";
import { createDescription } from "./description.js";
import { createDevices } from "./device.js";
import { createEmitter } from "./emitter.js";
import { graceOf } from "./grace.js";
import { onPageWake } from "./lifecycle.js";
import { readOptions } from "./options.js";
import { createPlayback } from "./playback.js";
import { createStops } from "./stops.js";
import { randomUuid } from "./uuid.js";

// A timer may pause while the device sleeps. With this maximum delay, a tick follows soon after a wake-up.
const MAX_TICK_MS = 10_000;

// All sessions of a page share one set of device ids.
let pageDevices;

// Pending outcomes of starts that were abandoned before their response, keyed by user and device. A new start of the same
// device waits for the pending outcome. Otherwise both starts would run at the same time, and the service would keep the
// stream that it commits last, which may be the stream of the older start.
const abandonedStarts = new Map();

/** @type {typeof import("./player.d.ts").createSession} */
export function createSession(options) {
  const settings = readOptions(options);
  const { clock, timers, page, onUnavailable, onRefused } = settings;
  const client = createClient(settings);
  const stops = createStops(client, settings);
  const events = createEmitter();
  const description = createDescription(settings, (code, error) => events.emit("error", { code, detail: String(error) }));
  /** @type {import("./player.d.ts").State} */
  let state = "idle";
  let playback = null;
  let timer;
  let transitions = 0;
  let disposed = false;
  const grace = graceOf(settings);

  // Call this after all other changes of the state, because a listener may cause the next transition.
  function transition(next, ...emitted) {
    const previous = state;
    state = next;
    const current = ++transitions;
    scheduleTick();
    if (previous !== next) events.emit("state", { state: next, previous });
    for (const [type, fields] of emitted) {
      if (transitions === current) events.emit(type, fields);
    }
  }

  /** @param {{ replaces?: string[] }} [startOptions] */
  function start(startOptions) {
    if (disposed) return Promise.resolve(state);
    if (playback) return repeatStart(playback, startOptions);
    let p;
    try {
      p = createPlayback(settings, grace.leftMs());
    } catch (error) {
      return Promise.resolve(giveUp(undefined, error));
    }
    playback = p;
    p.replaces = startOptions?.replaces;
    p.result = new Promise((resolve) => (p.resolve = resolve));
    guard(p, () => {
      p.unwatch = onPageWake(page, wake);
      if (settings.deviceId === undefined) void claimDevice(p);
      else sendStart(p, String(settings.deviceId));
      if (playback === p && !p.failure) transition("starting");
    });
    return p.result;
  }

  /** Handles a call of `start` or `retry` during a playback. Before the first lease, `replaces` still has an effect. */
  function repeatStart(p, startOptions) {
    if (startOptions?.replaces === undefined || p.streamId !== null) return p.result;
    p.replaces = startOptions.replaces;
    p.key = undefined;
    guard(p, () => p.ready && clock.now() >= p.notBeforeMs && startAgain(p));
    return p.result;
  }

  /** Sends a start with a new body. Ignores the outcome of a pending start, because the new start replaces its stream. */
  function startAgain(p) {
    if (p.request) abandonStart(deviceKey(p), p.request.outcome);
    p.requestAbandoned();
    sendStart(p, p.deviceId);
    scheduleTick();
  }

  async function claimDevice(p) {
    let claim;
    try {
      claim = await (settings.devices ?? (pageDevices ??= createDevices(settings))).claim();
    } catch {
      claim = { id: randomUuid(), release() {} };
    }
    if (playback !== p) return claim.release();
    p.release = claim.release;
    return guard(p, () => sendStart(p, claim.id));
  }

  function sendStart(p, deviceId) {
    p.deviceId = deviceId;
    // The wait ends at the latest when the abandoned start times out.
    const abandoned = abandonedStarts.get(deviceKey(p));
    if (abandoned) return void abandoned.then(() => playback === p && guard(p, () => sendStart(p, deviceId)));
    p.ready = true;
    return sendRequest(p);
  }

  const deviceKey = (p) => `${settings.streamsUrl} ${p.deviceId}`;

  function sendRequest(p) {
    p.request?.cancel();
    p.beginRequest();
    const starting = p.streamId === null;
    const request = starting ? requestStart(p) : requestHeartbeat(p);
    const sequence = p.requestSent(request);
    request.settled = request.outcome.then((outcome) => guard(p, () => handleOutcome(p, sequence, starting, outcome)));
    scheduleTick();
  }

  function requestStart(p) {
    // All retries have the same key and body, because the service rejects a repeated key with a different body.
    if (!p.key) {
      const body = description.startBody(p.deviceId, p.replaces);
      p.sentContent = body.contentId;
      p.body = JSON.stringify(body);
      p.key = randomUuid();
    }
    return client.start(p.key, p.body);
  }

  function requestHeartbeat(p) {
    const contentId = description.contentId();
    if (contentId === undefined || contentId === p.storedContent) return client.heartbeat(p.streamId);
    p.contentSent(contentId);
    return client.heartbeat(p.streamId, JSON.stringify({ contentId }));
  }

  function handleOutcome(p, sequence, starting, outcome) {
    if (playback !== p) {
      // If the playback was stopped before the response to its start arrived, free the slot.
      return starting && outcome.kind === "ok" ? stops.release(outcome.streamId) : undefined;
    }
    if (sequence !== p.sequence) return undefined;
    p.request = null;
    const { kind, reason, endedBy } = outcome;
    if (kind === "ok") handleLease(p, starting, outcome);
    else if (kind === "denied") finish(p, "denied", "denied", denialFields(outcome), grace.reset);
    else if (kind === "ended") finish(p, "ended", "ended", { reason, endedBy }, grace.reset);
    else if (kind === "lost") handleLostLease(p, starting, outcome);
    else if (kind === "error") handleError(p, outcome);
    else handleOutage(p, outcome);
    return undefined;
  }

  function handleLease(p, starting, outcome) {
    const recovery = recoveryEvents(p);
    const { lost } = p;
    p.leaseGranted(outcome);
    grace.setLease(outcome.leaseMs);
    const lease = { streamId: p.streamId, stream: outcome.stream };
    const previous = lost && { previousStreamId: lost.streamId, reason: lost.reason };
    const type = !starting ? "renewed" : lost ? "restarted" : "started";
    transition("live", ...recovery, [type, Object.assign(lease, starting && previous)]);
    p.resolve(state);
    update();
  }

  function handleLostLease(p, starting, outcome) {
    if (starting && p.restarts > 0) {
      // The restart was also lost. Handle this as an outage, and use a new key.
      p.key = undefined;
      return handleOutage(p, outcome);
    }
    const recovery = recoveryEvents(p);
    p.leaseLost(outcome, grace.fullMs());
    if (p.dueMs <= clock.now()) sendRequest(p);
    return transition("starting", ...recovery);
  }

  // The service rejected the request, or this library threw an exception. A later attempt can succeed, for example if the
  // function of an option returns another value.
  function handleError(p, outcome) {
    const { status, code, detail, requestId } = outcome;
    const recovery = recoveryEvents(p);
    p.outage = false;
    p.requestFailed(outcome);
    // The next start uses a new key and body.
    if (p.streamId === null) p.key = undefined;
    // Send the next heartbeat at the normal interval.
    else p.dueMs = clock.now() + p.intervalMs;
    if (mustEnd(p)) return endWithoutLease(p);
    const emitted = p.reported === code ? [] : [["error", { status, code, detail, requestId }]];
    p.reported = code;
    transition(p.streamId !== null && clock.now() < p.endsMs ? "live" : "failed", ...recovery, ...emitted);
    return p.resolve(state);
  }

  function handleOutage(p, outcome) {
    const first = !p.outage;
    p.outage = true;
    p.requestFailed(outcome);
    if (mustEnd(p)) return endWithoutLease(p);
    const fields = { status: outcome.status, code: outcome.code, detail: outcome.detail, leaseEndsInSeconds: endsInSeconds(p) };
    transition("unavailable", ...(first ? [["unavailable", fields]] : []));
    return p.resolve(state);
  }

  const recoveryEvents = (p) => (p.outage ? [["available", {}]] : []);

  function isRefused({ kind }) {
    return kind === "error" || kind === "unauthorized";
  }

  function stopsWithoutLease(failure) {
    const policy = isRefused(failure) ? (onRefused ?? (failure.kind === "unauthorized" ? "stop" : "continue")) : onUnavailable;
    return policy === "stop";
  }

  /**
   * Time when a timer ends the playback. Infinity if no request has failed since the last success, or if the policy is "continue".
   * Also Infinity if the latest request was sent at or after `endsMs`, because the playback then ends only if this request fails.
   */
  function deadlineMs(p) {
    return p.failure && stopsWithoutLease(p.failure) && !p.sentAfterEnd() ? p.endsMs : Infinity;
  }

  function mustEnd(p) {
    return p.failure !== null && clock.now() >= p.endsMs && stopsWithoutLease(p.failure) && !p.sleptPastEnd();
  }

  function endWithoutLease(p) {
    const { status, code, detail } = p.failure;
    const reason = isRefused(p.failure) ? "refused" : "unavailable";
    finish(p, "ended", "ended", { reason, endedBy: undefined, status, code, detail });
    // The slot may still be taken, because the server's lease ends later than the local one. The response to a renewal may
    // also have been lost.
    if (p.streamId !== null) void stops.release(p.streamId);
  }

  /** Runs a step of a playback and reports an exception. Otherwise a player could play without a slot and without an event. */
  function guard(p, step) {
    try {
      return step();
    } catch (error) {
      if (playback !== p) return undefined;
      try {
        handleError(p, { kind: "error", code: "exception", detail: String(error) });
      } catch {
        p.resolve(giveUp(p, error));
      }
      return undefined;
    }
  }

  // Ends the playback after an exception of the clock or the timers, because a retry is not possible without them.
  function giveUp(p, error) {
    playback = null;
    p?.unwatch?.();
    p?.release?.();
    const previous = state;
    state = "failed";
    if (previous !== state) events.emit("state", { state, previous });
    events.emit("error", { code: "exception", detail: String(error) });
    return state;
  }

  function finish(p, next, type, fields, onClosed) {
    close(p);
    onClosed?.();
    transition(next, [type, fields]);
    p.resolve(next);
  }

  function close(p) {
    playback = null;
    const leftMs = p.endsMs - clock.now();
    if (p.streamId === null || leftMs <= 0) grace.setLeft(leftMs);
    // Do not cancel a pending start, because its response may contain the id of a stream that must be stopped.
    if (p.streamId !== null) p.request?.cancel();
    else if (p.request) abandonStart(deviceKey(p), p.request.outcome);
    p.unwatch?.();
    p.release?.();
  }

  function abandonStart(key, outcome) {
    abandonedStarts.set(key, outcome);
    void outcome.then(() => abandonedStarts.get(key) === outcome && abandonedStarts.delete(key));
  }

  function scheduleTick() {
    timers.clearTimeout(timer);
    timer = undefined;
    const p = playback;
    if (!p) return;
    const nextMs = Math.min(p.dueMs, deadlineMs(p));
    timer = timers.setTimeout(() => guard(p, tick), Math.min(Math.max(nextMs - clock.now(), 0), MAX_TICK_MS));
  }

  // Compare with the clock instead of counting ticks, because browsers limit the timers of a hidden tab to one per minute.
  function tick() {
    const p = playback;
    if (!p) return;
    const late = clock.now() >= deadlineMs(p);
    if (late && mustEnd(p)) return void endWithoutLease(p);
    if (late || clock.now() >= p.dueMs || (p.ready && p.slept() && p.isStale())) sendRequest(p);
    else scheduleTick();
  }

  function wake() {
    const p = playback;
    if (p?.ready && p.isStale()) guard(p, () => sendRequest(p));
  }

  function update() {
    const p = playback;
    // No extra heartbeat is needed after a failure, because the retry contains the content id.
    if (!p || p.streamId === null || p.request || p.failure) return;
    const contentId = description.contentId();
    if (contentId === undefined || contentId === p.sentContent) return;
    p.contentChanged();
    scheduleTick();
  }

  function denialFields({ limit, count, streams, slotFreesInSeconds }) {
    return { limit, count, streams, slotFreesInSeconds, stopOther: stops.evict, retry };
  }

  /** @param {{ replaces?: string[] }} [startOptions] */
  function retry(startOptions) {
    const result = start(startOptions);
    wake();
    return result;
  }

  async function stop({ unload = false, forGood = false } = {}) {
    const p = playback;
    const { streamId, request } = p ?? {};
    disposed ||= forGood;
    // Send the stop before any other step. If the browser aborts this script, a second call sends the stop again.
    if (unload) stops.unload(streamId);
    if (p) close(p);
    const done = streamId ? (unload ? undefined : stops.release(streamId)) : request?.settled;
    transition("idle");
    p?.resolve("idle");
    await done;
  }

  function endsInSeconds(p) {
    return Math.max(0, (p.endsMs - clock.now()) / 1000);
  }

  return {
    start,
    stop,
    retry,
    wake,
    update,
    stopOther: stops.evict,
    on: events.on,
    off: events.off,
    get state() {
      return state;
    },
    get streamId() {
      return playback?.streamId ?? null;
    },
    get deviceId() {
      return playback?.deviceId ?? settings.deviceId ?? null;
    },
    get leaseEndsInSeconds() {
      return playback?.streamId ? endsInSeconds(playback) : 0;
    },
  };
}
