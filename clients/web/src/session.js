// Session of one player: the state machine of the protocol, without a media element. A session holds a slot during
// playback. Its events show the application when to pause. One timer schedules all heartbeats and retries of a playback. No
// method of a session throws or rejects.

import { backoffMs } from "./backoff.js";
import { createClient } from "./client.js";
import { createDevices } from "./device.js";
import { createEmitter } from "./emitter.js";
import { addListeners, onPageWake } from "./lifecycle.js";
import { readOptions } from "./options.js";
import { createPlayback } from "./playback.js";
import { randomUuid } from "./uuid.js";

// A timer may pause while the device sleeps. With this maximum delay, a tick follows soon after a wake-up.
const MAX_TICK_MS = 10_000;
const MAX_STOP_ATTEMPTS = 4;
const MAX_STOP_BACKOFF_MS = 8000;

// All sessions of a page share one set of device ids.
let pageDevices;

// Pending outcomes of starts that were stopped before their response, keyed by user and device. A new start of the same
// device waits for the pending outcome. Otherwise both starts would run at the same time. The service keeps the stream that
// it commits last, and that may be the older one.
const abandonedStarts = new Map();

/** @type {typeof import("./player.d.ts").createSession} */
export function createSession(options) {
  const settings = readOptions(options);
  const { clock, timers, random, page, onUnavailable } = settings;
  const client = createClient(settings);
  const events = createEmitter();
  /** @type {import("./player.d.ts").State} */
  let state = "idle";
  let playback = null;
  let timer;
  let transitions = 0;
  let disposed = false;
  /** Called when the page unloads. Each callback sends a stop that still waits for its retry. */
  const unloadHandlers = new Set();

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

  function start() {
    if (disposed) return Promise.resolve(state);
    if (playback) return playback.result;
    const p = createPlayback(settings);
    playback = p;
    p.result = new Promise((resolve) => (p.resolve = resolve));
    p.unwatch = onPageWake(page, wake);
    if (settings.deviceId === undefined) void claimDevice(p);
    else sendStart(p, String(settings.deviceId));
    transition("starting");
    return p.result;
  }

  async function claimDevice(p) {
    const devices = settings.devices ?? (pageDevices ??= createDevices(settings));
    const claim = await devices.claim().catch(() => ({ id: randomUuid(), release() {} }));
    if (playback !== p) return claim.release();
    p.release = claim.release;
    sendStart(p, claim.id);
  }

  function sendStart(p, deviceId) {
    p.deviceId = deviceId;
    // The wait ends at the latest when the abandoned start times out.
    const abandoned = abandonedStarts.get(deviceKey(p));
    if (abandoned) return void abandoned.then(() => playback === p && sendStart(p, deviceId));
    const { deviceName, atLimit } = settings;
    // Build the body once for all retries, because the service rejects a repeated idempotency key with a different body.
    p.body = JSON.stringify({ deviceId, deviceName: text(deviceName), contentId: contentId(), atLimit: text(atLimit) });
    sendRequest(p);
    scheduleTick();
    return undefined;
  }

  const deviceKey = (p) => `${settings.streamsUrl} ${p.deviceId}`;

  function contentId() {
    try {
      return text(typeof settings.contentId === "function" ? settings.contentId() : settings.contentId);
    } catch (error) {
      events.emit("error", { code: "content-id-failed", detail: String(error) });
      return undefined;
    }
  }

  function sendRequest(p) {
    p.request?.cancel();
    const starting = p.streamId === null;
    const request = starting ? client.start(p.key, p.body) : client.heartbeat(p.streamId);
    const sequence = p.requestSent(request);
    request.settled = request.outcome.then((outcome) => handleOutcome(p, sequence, starting, outcome));
  }

  function handleOutcome(p, sequence, starting, outcome) {
    if (playback !== p) {
      // If the playback was stopped before the response to its start arrived, free the slot.
      return starting && outcome.kind === "ok" ? releaseSlot(outcome.streamId) : undefined;
    }
    if (sequence !== p.sequence) return undefined;
    p.request = null;
    if (outcome.kind === "ok") handleLease(p, starting, outcome);
    else if (outcome.kind === "denied") finish(p, "denied", "denied", denialFields(outcome));
    else if (outcome.kind === "ended") finish(p, "ended", "ended", { reason: outcome.reason, endedBy: outcome.endedBy });
    else if (outcome.kind === "lost") handleLostLease(p, outcome);
    else if (outcome.kind === "error") handleError(p, starting, outcome);
    else handleOutage(p, outcome);
    return undefined;
  }

  function handleLease(p, starting, outcome) {
    const recovery = recoveryEvents(p);
    const { lost } = p;
    p.leaseGranted(outcome);
    p.reported = null;
    const lease = { streamId: p.streamId, stream: outcome.stream };
    if (!starting) transition("live", ...recovery, ["renewed", lease]);
    else if (!lost) transition("live", ...recovery, ["started", lease]);
    else transition("live", ...recovery, ["restarted", { ...lease, previousStreamId: lost.streamId, reason: lost.reason }]);
    p.resolve(state);
  }

  function handleLostLease(p, outcome) {
    const recovery = recoveryEvents(p);
    p.leaseLost(outcome);
    if (p.dueMs <= clock.now()) sendRequest(p);
    transition("starting", ...recovery);
  }

  // A retry of the same request would fail again. After a failed start, the session sends no more requests, and the video
  // keeps playing. After a failed heartbeat, the lease is still valid, so heartbeats continue.
  function handleError(p, starting, outcome) {
    const { status, code, detail, requestId } = outcome;
    const error = { status, code, detail, requestId };
    if (starting) return finish(p, "failed", "error", error);
    const recovery = recoveryEvents(p);
    p.recovered();
    p.dueMs = clock.now() + p.intervalMs;
    const emitted = p.reported === code ? [] : [["error", error]];
    p.reported = code;
    return transition("live", ...recovery, ...emitted);
  }

  function handleOutage(p, outcome) {
    const first = p.outage === null;
    p.requestFailed(outcome);
    if (mustEnd(p)) return endAfterOutage(p);
    const fields = { status: outcome.status, code: outcome.code, detail: outcome.detail, leaseEndsInSeconds: endsInSeconds(p) };
    transition("unavailable", ...(first ? [["unavailable", fields]] : []));
    return p.resolve(state);
  }

  const recoveryEvents = (p) => (p.outage ? [["available", {}]] : []);

  function mustEnd(p) {
    return onUnavailable === "stop" && p.outage !== null && clock.now() >= p.endsMs;
  }

  function endAfterOutage(p) {
    finish(p, "ended", "ended", { reason: "unavailable", endedBy: undefined });
    // The slot may still be taken, because the server's lease ends later than the local one. The response to a renewal may
    // also have been lost.
    if (p.streamId !== null) void releaseSlot(p.streamId);
  }

  function finish(p, next, type, fields) {
    close(p);
    transition(next, [type, fields]);
    p.resolve(next);
  }

  function close(p) {
    playback = null;
    // Do not cancel a pending start, because its response may contain the id of a stream that must be stopped.
    if (p.streamId !== null) p.request?.cancel();
    else if (p.request) abandonStart(deviceKey(p), p.request.outcome);
    p.unwatch();
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
    const nextMs = p.outage && onUnavailable === "stop" ? Math.min(p.dueMs, p.endsMs) : p.dueMs;
    timer = timers.setTimeout(tick, Math.min(Math.max(nextMs - clock.now(), 0), MAX_TICK_MS));
  }

  // Compare with the clock instead of counting ticks, because browsers limit the timers of a hidden tab to one per minute.
  function tick() {
    const p = playback;
    if (!p) return;
    if (mustEnd(p)) return void endAfterOutage(p);
    if (clock.now() >= p.dueMs || (p.body && p.slept() && p.isStale())) sendRequest(p);
    scheduleTick();
  }

  function wake() {
    const p = playback;
    if (!p?.body || !p.isStale()) return;
    sendRequest(p);
    scheduleTick();
  }

  function denialFields(outcome) {
    const { limit, count, streams, slotFreesInSeconds } = outcome;
    return { limit, count, streams, slotFreesInSeconds, stopOther, retry };
  }

  function retry() {
    wake();
    return start();
  }

  async function stopOther(streamId) {
    return withRetries(() => client.evict(String(streamId)));
  }

  async function releaseSlot(streamId) {
    // Only the first attempt uses keepalive. If the page unloads between two attempts, the stop is sent at once.
    let waiting = false;
    const onUnload = () => {
      if (waiting) client.stopNow(streamId);
      waiting = false;
    };
    unloadHandlers.add(onUnload);
    const removeListener = page ? addListeners([[page.window, "pagehide", onUnload]]) : () => {};
    await withRetries((attempt) => client.stop(streamId, { keepalive: attempt === 1 }), () => (waiting = true));
    removeListener();
    unloadHandlers.delete(onUnload);
  }

  async function withRetries(send, onFailure) {
    for (let attempt = 1; ; attempt += 1) {
      const { kind } = await send(attempt).outcome;
      if (kind === "ok" || kind === "error" || attempt === MAX_STOP_ATTEMPTS) return kind === "ok";
      onFailure?.();
      const waitMs = backoffMs(attempt, MAX_STOP_BACKOFF_MS, random);
      await new Promise((resolve) => timers.setTimeout(resolve, waitMs));
    }
  }

  async function stop({ unload = false, forGood = false } = {}) {
    const p = playback;
    disposed ||= forGood;
    if (p) close(p);
    const { streamId, request } = p ?? {};
    // Send the stop before any listener runs, because the page may be closed right after this call.
    if (streamId && unload) client.stopNow(streamId);
    if (unload) for (const onUnload of unloadHandlers) onUnload();
    const done = streamId ? (unload ? undefined : releaseSlot(streamId)) : request?.settled;
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
    stopOther,
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

function text(value) {
  return value == null ? undefined : String(value);
}
