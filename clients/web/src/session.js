// One player's session: keeps a slot while something plays and says what the player has to do. The state machine of
// the protocol, without a video element. Owns the only timer of a playback; never rejects, never throws after it is made.

import { createClient } from "./client.js";
import { createDevices } from "./device.js";
import { createEmitter } from "./emitter.js";
import { listenAll, watchPage } from "./page.js";
import { backoffMs, newId, readOptions } from "./platform.js";
import { createPlayback } from "./playback.js";

// A timer that stood still with the device is found out by the next of these.
const LOOK_EVERY_MS = 10_000;
const STOP_TRIES = 4;
const LONGEST_STOP_BACKOFF_MS = 8000;

// A page's tab is one device, whatever sessions it makes.
let devicesOfThisPage;

// Starts that were stopped before their answer, by user and device. Of two that are under way the service keeps the
// one it commits last, which need not be the one that was sent last.
const unanswered = new Map();

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
  let changes = 0;
  let over = false;
  /** What is to be done for stops that are not answered yet, should the page go away. */
  const leaving = new Set();

  // The last thing a step does, since a listener may start the next step.
  function change(next, ...emitted) {
    const previous = state;
    state = next;
    const mine = ++changes;
    arm();
    if (previous !== next) events.emit("state", { state: next, previous });
    for (const [type, fields] of emitted) {
      if (changes === mine) events.emit(type, fields);
    }
  }

  function start() {
    if (over) return Promise.resolve(state);
    if (playback) return playback.first;
    const p = createPlayback(settings);
    playback = p;
    p.first = new Promise((resolve) => (p.decided = resolve));
    p.unwatch = watchPage(page, wake);
    if (settings.deviceId === undefined) void claimDevice(p);
    else begin(p, String(settings.deviceId));
    change("starting");
    return p.first;
  }

  async function claimDevice(p) {
    const devices = settings.devices ?? (devicesOfThisPage ??= createDevices(settings));
    const claim = await devices.claim().catch(() => ({ id: newId(), release() {} }));
    if (playback !== p) return claim.release();
    p.release = claim.release;
    begin(p, claim.id);
  }

  function begin(p, deviceId) {
    p.deviceId = deviceId;
    // Ends at the latest with that request's time limit.
    const before = unanswered.get(placeOf(p));
    if (before) return void before.then(() => playback === p && begin(p, deviceId));
    const { deviceName, atLimit } = settings;
    // Once for all tries: the same key with another body is refused.
    p.body = JSON.stringify({ deviceId, deviceName: text(deviceName), contentId: contentId(), atLimit: text(atLimit) });
    send(p);
    arm();
    return undefined;
  }

  const placeOf = (p) => `${settings.streamsUrl} ${p.deviceId}`;

  function contentId() {
    try {
      return text(typeof settings.contentId === "function" ? settings.contentId() : settings.contentId);
    } catch (error) {
      events.emit("error", { code: "content-id-failed", detail: String(error) });
      return undefined;
    }
  }

  function send(p) {
    p.request?.cancel();
    const starting = p.streamId === null;
    const request = starting ? client.start(p.key, p.body) : client.heartbeat(p.streamId);
    const sequence = p.sending(request);
    request.settled = request.outcome.then((outcome) => settle(p, sequence, starting, outcome));
  }

  function settle(p, sequence, starting, outcome) {
    if (playback !== p) {
      // Stopped before the start was answered: nobody plays on what it got.
      return starting && outcome.kind === "ok" ? release(outcome.streamId) : undefined;
    }
    if (sequence !== p.sequence) return undefined;
    p.request = null;
    if (outcome.kind === "ok") acknowledge(p, starting, outcome);
    else if (outcome.kind === "denied") finish(p, "denied", "denied", denial(outcome));
    else if (outcome.kind === "taken") finish(p, "ended", "ended", { reason: outcome.reason, endedBy: outcome.endedBy });
    else if (outcome.kind === "gone") restart(p, outcome);
    else if (outcome.kind === "bug") report(p, starting, outcome);
    else wait(p, outcome);
    return undefined;
  }

  function acknowledge(p, starting, outcome) {
    const back = comesBack(p);
    const { lost } = p;
    p.acknowledged(outcome);
    p.reported = null;
    const lease = { streamId: p.streamId, stream: outcome.stream };
    if (!starting) change("live", ...back, ["renewed", lease]);
    else if (!lost) change("live", ...back, ["started", lease]);
    else change("live", ...back, ["restarted", { ...lease, previousStreamId: lost.streamId, reason: lost.reason }]);
    p.decided(state);
  }

  function restart(p, outcome) {
    const back = comesBack(p);
    p.restarting(outcome);
    if (p.dueMs <= clock.now()) send(p);
    change("starting", ...back);
  }

  // Repeating does not help. A start ends here, and what plays goes on without a slot; a lease is worth another heartbeat.
  function report(p, starting, outcome) {
    const { status, code, detail, requestId } = outcome;
    const error = { status, code, detail, requestId };
    if (starting) return finish(p, "failed", "error", error);
    const back = comesBack(p);
    p.answered();
    p.dueMs = clock.now() + p.intervalMs;
    const emitted = p.reported === code ? [] : [["error", error]];
    p.reported = code;
    return change("live", ...back, ...emitted);
  }

  function wait(p, outcome) {
    const first = p.away === null;
    p.unanswered(outcome);
    if (overdue(p)) return giveUp(p);
    const fields = { status: outcome.status, code: outcome.code, detail: outcome.detail, leaseEndsInSeconds: endsInSeconds(p) };
    change("unavailable", ...(first ? [["unavailable", fields]] : []));
    return p.decided(state);
  }

  const comesBack = (p) => (p.away ? [["available", {}]] : []);

  function overdue(p) {
    return onUnavailable === "stop" && p.away !== null && clock.now() >= p.untilMs;
  }

  function giveUp(p) {
    finish(p, "ended", "ended", { reason: "unavailable", endedBy: undefined });
    // Its lease may still count: the service's clock started later, and it may have renewed it without our hearing so.
    if (p.streamId !== null) void release(p.streamId);
  }

  function finish(p, next, type, fields) {
    close(p);
    change(next, ...(type ? [[type, fields]] : []));
    p.decided(next);
  }

  function close(p) {
    playback = null;
    // A start's answer is waited for: it may name a stream that has to be stopped.
    if (p.streamId !== null) p.request?.cancel();
    else if (p.request) leave(placeOf(p), p.request.outcome);
    p.unwatch();
    p.release?.();
  }

  function leave(place, outcome) {
    unanswered.set(place, outcome);
    void outcome.then(() => unanswered.get(place) === outcome && unanswered.delete(place));
  }

  function arm() {
    timers.clearTimeout(timer);
    timer = undefined;
    const p = playback;
    if (!p) return;
    const nextMs = p.away && onUnavailable === "stop" ? Math.min(p.dueMs, p.untilMs) : p.dueMs;
    timer = timers.setTimeout(tick, Math.min(Math.max(nextMs - clock.now(), 0), LOOK_EVERY_MS));
  }

  // By the clock, not by how often it is called: a hidden tab's timers come once a minute.
  function tick() {
    const p = playback;
    if (!p) return;
    if (overdue(p)) return void giveUp(p);
    if (clock.now() >= p.dueMs || (p.body && p.slept() && p.inDoubt())) send(p);
    arm();
  }

  function wake() {
    const p = playback;
    if (!p?.body || !p.inDoubt()) return;
    send(p);
    arm();
  }

  function denial(outcome) {
    const { limit, count, streams, slotFreesInSeconds } = outcome;
    return { limit, count, streams, slotFreesInSeconds, stopOther, retry };
  }

  function retry() {
    wake();
    return start();
  }

  async function stopOther(streamId) {
    return persist(() => client.evict(String(streamId)));
  }

  async function release(streamId) {
    // The first try outlives the page, its repetitions do not.
    let loose = false;
    const leave = () => {
      if (loose) client.stopNow(streamId);
      loose = false;
    };
    leaving.add(leave);
    const unwatch = page ? listenAll([[page.window, "pagehide", leave]]) : () => {};
    await persist((tries) => client.stop(streamId, { keepalive: tries === 1 }), () => (loose = true));
    unwatch();
    leaving.delete(leave);
  }

  async function persist(call, failed) {
    for (let tries = 1; ; tries += 1) {
      const { kind } = await call(tries).outcome;
      if (kind === "ok" || kind === "bug" || tries === STOP_TRIES) return kind === "ok";
      failed?.();
      const pauseMs = backoffMs(tries, LONGEST_STOP_BACKOFF_MS, random);
      await new Promise((resolve) => timers.setTimeout(resolve, pauseMs));
    }
  }

  async function stop({ unload = false, forGood = false } = {}) {
    const p = playback;
    over ||= forGood;
    if (p) close(p);
    const { streamId, request } = p ?? {};
    // Before any listener runs: at unload there may be no time after it.
    if (streamId && unload) client.stopNow(streamId);
    if (unload) for (const leave of leaving) leave();
    const done = streamId ? (unload ? undefined : release(streamId)) : request?.settled;
    change("idle");
    p?.decided("idle");
    await done;
  }

  function endsInSeconds(p) {
    return p ? Math.max(0, (p.untilMs - clock.now()) / 1000) : 0;
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
