// Session of one player: the state machine of the protocol, without a media element. A session holds a slot during playback. Its events
// show the application when to pause. One timer schedules all heartbeats and retries of a playback. No method throws or rejects.

import { abandonedStart, abandonStart } from "./abandoned.js";
import { createClient } from "./client.js";
import { createDescription } from "./description.js";
import { claimDevice } from "./device.js";
import { createEmitter } from "./emitter.js";
import { graceOf } from "./grace.js";
import { createGrantHolder } from "./grant.js";
import { onPageWake } from "./lifecycle.js";
import { readOptions } from "./options.js";
import { createPlayback } from "./playback.js";
import { createPolicy } from "./policy.js";
import { createStops } from "./stops.js";
import { randomUuid } from "./uuid.js";

// A timer may pause while the device sleeps. With this maximum delay, a tick follows soon after a wake-up.
const MAX_TICK_MS = 10_000;

/** @type {typeof import("./player.d.ts").createSession} */
export function createSession(options) {
  const settings = readOptions(options);
  const { clock, timers, page } = settings;
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
  const { deadlineMs, mustEnd, endFields } = createPolicy(settings);
  const grants = createGrantHolder(settings, { wantedContent: description.contentId, renew });

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
      p = createPlayback(settings, grace.leftMs(), description);
    } catch (error) {
      return Promise.resolve(giveUp(undefined, error));
    }
    playback = p;
    p.replaces = startOptions?.replaces;
    p.result = new Promise((resolve) => (p.resolve = resolve));
    guard(p, () => {
      p.unwatch = onPageWake(page, wake);
      grants.started();
      if (settings.deviceId === undefined) void startWithClaim(p);
      else sendStart(p, String(settings.deviceId));
      if (playback === p && !p.failure) transition("starting");
    });
    return p.result;
  }

  // During a playback, `replaces` has an effect only before the first lease.
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

  async function startWithClaim(p) {
    const claim = await claimDevice(settings);
    if (playback !== p) return claim.release();
    p.release = claim.release;
    return guard(p, () => sendStart(p, claim.id));
  }

  function sendStart(p, deviceId) {
    p.deviceId = deviceId;
    const abandoned = abandonedStart(deviceKey(p));
    if (abandoned) return void abandoned.then(() => playback === p && guard(p, () => sendStart(p, deviceId)));
    p.ready = true;
    return sendRequest(p);
  }

  const deviceKey = (p) => `${settings.streamsUrl} ${p.deviceId}`;

  function sendRequest(p) {
    p.request?.cancel();
    p.beginRequest();
    const change = p.streamId === null ? undefined : requestChange(p);
    const request = p.streamId === null ? requestStart(p) : change ?? requestHeartbeat(p);
    const type = p.streamId === null ? "start" : change ? "change" : "heartbeat";
    const sequence = p.requestSent(request);
    request.settled = request.outcome.then((outcome) => guard(p, () => handleOutcome(p, sequence, type, outcome)));
    scheduleTick();
  }

  function requestStart(p) {
    // All retries have the same key and body, because the service rejects a repeated key with a different body.
    if (!p.key) {
      const body = description.startBody(p.deviceId, p.replaces, p.labels.wanted());
      p.labels.started(body.labels);
      p.sentContent = body.contentId;
      p.body = JSON.stringify(body);
      p.key = randomUuid();
    }
    return client.start(p.key, p.body);
  }

  /** Returns undefined if no change of the labels is due. Repeats a change whose outcome is unknown, because it may have succeeded. */
  function requestChange(p) {
    if (p.labels.beginChange(p)) p.changeSent();
    const change = p.labels.changeToSend(clock.now() >= p.renewalDueMs);
    return change ? client.start(change.key, change.body) : undefined;
  }

  function requestHeartbeat(p) {
    const contentId = description.contentId();
    if (contentId === undefined || contentId === p.storedContent) return client.heartbeat(p.streamId);
    p.contentSent(contentId);
    return client.heartbeat(p.streamId, JSON.stringify({ contentId }));
  }

  /** `type` is the type of the request: "start", "change" (a start with other labels) or "heartbeat". */
  function handleOutcome(p, sequence, type, outcome) {
    if (playback !== p) {
      // If the playback was stopped before the response to its start arrived, free the slot.
      return type !== "heartbeat" && outcome.kind === "ok" ? stops.release(outcome.streamId) : undefined;
    }
    if (sequence !== p.sequence) return undefined;
    p.request = null;
    const { kind } = outcome;
    if (type === "change" && ["ok", "denied", "error"].includes(kind)) handleChange(p, outcome);
    else if (kind === "ok") handleLease(p, type === "start", outcome);
    else if (kind === "denied") finish(p, "denied", "denied", denialFields(outcome), grace.reset);
    else if (kind === "ended") handleEnd(p, type, outcome);
    else if (kind === "lost") handleLostLease(p, type === "start", outcome);
    else if (kind === "error") handleError(p, outcome);
    else handleOutage(p, outcome);
  }

  function handleEnd(p, type, outcome) {
    const { reason, endedBy } = outcome;
    // A change of the labels whose response was lost may have replaced the stream. Its repetition shows whether it did.
    if (type === "heartbeat" && reason === "replaced" && p.labels.mayHaveReplaced(outcome)) sendRequest(p);
    else finish(p, "ended", "ended", { reason, endedBy }, grace.reset);
  }

  function handleLease(p, starting, outcome) {
    const recovery = recoveryEvents(p);
    const { lost } = p;
    p.leaseGranted(outcome);
    const lease = { streamId: p.streamId, stream: outcome.stream };
    const previous = lost && { previousStreamId: lost.streamId, reason: lost.reason };
    const type = !starting ? "renewed" : lost ? "restarted" : "started";
    becomeLive(p, ...leaseEvents(p, outcome), ...recovery, [type, Object.assign(lease, starting && previous)]);
  }

  /** Handles the response to a change of the labels. If it is refused, the stream continues with its former labels. */
  function handleChange(p, outcome) {
    const { replacement } = p.labels.change();
    if (replacement && outcome.status === 201) {
      // The change has succeeded only now, so another stream replaced the former one.
      void stops.release(outcome.streamId);
      return handleEnd(p, "change", replacement);
    }
    const recovery = recoveryEvents(p);
    const event = p.labels.settle(p, outcome, denialFields(outcome), () => playback === p && update());
    return becomeLive(p, ...(outcome.kind === "ok" ? leaseEvents(p, outcome) : []), ...recovery, event);
  }

  function becomeLive(p, ...emitted) {
    transition("live", ...emitted);
    grants.deliver();
    p.resolve(state);
    update();
  }

  function leaseEvents(p, { grant, leaseMs }) {
    grace.setLease(leaseMs);
    const isNew = grants.renewed({ grant, contentId: p.storedContent, endsMs: p.endsMs });
    return isNew ? [["grant", { grant, streamId: p.streamId, expiresInSeconds: endsInSeconds(p) }]] : [];
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

  function endWithoutLease(p) {
    finish(p, "ended", "ended", endFields(p.failure));
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
    grants.ended();
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
    grants.ended();
    // Do not cancel a pending start or change of the labels, because its response may contain the id of a stream that must be stopped.
    if (p.streamId !== null && !p.labels.change()) p.request?.cancel();
    else if (p.request) abandonStart(deviceKey(p), p.request.outcome);
    p.unwatch?.();
    p.release?.();
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
    if ((contentId === undefined || contentId === p.sentContent) && !p.labels.isChangeDue()) return;
    p.changed();
    scheduleTick();
  }

  // After a failure, the retries have their own schedule.
  function renew() {
    if (playback && !playback.request && !playback.failure) wake();
    update();
  }

  function denialFields({ limit, count, streams, rule, slotFreesInSeconds }) {
    return { limit, count, streams, rule, slotFreesInSeconds, stopOther: stops.evict, retry };
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
    // A pending change of the labels may have replaced the stream. The new stream is then stopped after the response.
    const isChanging = p?.labels.change() != null;
    disposed ||= forGood;
    // Send the stop before any other step. If the browser aborts this script, a second call sends the stop again.
    if (unload) stops.unload(streamId);
    if (p) close(p);
    const settled = !streamId || (isChanging && !unload) ? request?.settled : undefined;
    const released = streamId && !unload ? stops.release(streamId) : undefined;
    if (disposed) grants.dispose();
    transition("idle");
    p?.resolve("idle");
    await Promise.all([released, settled]);
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
    freshGrant: grants.fresh,
    get grant() {
      return grants.newest();
    },
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
