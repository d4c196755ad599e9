// Connects a session to a media element. Media events start and stop the session. A denial or an ended stream pauses the
// element. This file uses only standard events, `play()` and `pause()`, so it works with any streaming library.

import { MAX_TIMER_DELAY_MS } from "./backoff.js";
import { addListeners, pageHideListeners } from "./lifecycle.js";
import { readOptions } from "./options.js";
import { watchPresence } from "./presence.js";
import { createSession } from "./session.js";

const DEFAULT_STOP_AFTER_PAUSE_S = 300;
// For up to this long after `pause()`, WebKit may fire `play` and continue playback, although the user did nothing.
const LATE_PLAY_MS = 200;

/** @type {typeof import("./player.d.ts").attach} */
export function attach(video, options) {
  const { clock, timers, page } = readOptions(options);
  const session = createSession(Object.assign({}, options, { timers: sessionTimers() }));
  const stopAfterPauseMs = (options.stopAfterPauseS ?? DEFAULT_STOP_AFTER_PAUSE_S) * 1000;
  let pauseTimer;
  let pauseEndsMs = Infinity;
  // True while the element is paused because of a denial or an ended stream.
  let blocked = false;
  let blockedAtMs = -Infinity;
  let resuming = false;
  // True after `pagehide` stopped the session.
  let stoppedByUnload = false;

  const isPlaying = () => !video.paused && !video.ended;
  /** Whether the session holds a slot, or sends requests to get one. */
  const isActive = () => ["starting", "live", "unavailable", "failed"].includes(session.state);

  function onPlay() {
    try {
      if (!resuming && clock.now() - blockedAtMs < LATE_PLAY_MS) return video.pause();
      clearPause();
    } catch {
      // The clock or the timers threw an exception. The session reports it when it starts.
    }
    blocked = false;
    stoppedByUnload = false;
    presence.observe();
    return void session.start();
  }

  // Browsers also fire `playing` after a seek, a stall or a quality change. With autoplay, they may fire it without `play`.
  function onPlaying() {
    if (session.state === "idle") return onPlay();
    clearPause();
    return presence.observe();
  }

  function onPause() {
    // The browser also pauses an element that leaves the document.
    presence.check();
    if (pauseEndsMs < Infinity || !isActive()) return;
    pauseEndsMs = clock.now() + stopAfterPauseMs;
    checkPause();
  }

  function checkPause() {
    timers.clearTimeout(pauseTimer);
    if (pauseEndsMs === Infinity) return;
    const leftMs = pauseEndsMs - clock.now();
    if (leftMs > 0) pauseTimer = timers.setTimeout(checkPause, Math.min(leftMs, MAX_TIMER_DELAY_MS));
    else onEnded();
  }

  /**
   * Returns timers that call `checkPause` first. After the device slept, a timer of the session may run before the pause timer.
   * Without this check, the session would take a slot again although the allowed pause has ended.
   */
  function sessionTimers() {
    const checkPauseBefore = (call) => () => {
      try {
        checkPause();
      } finally {
        call();
      }
    };
    return {
      setTimeout: (call, delayMs) => timers.setTimeout(checkPauseBefore(call), delayMs),
      clearTimeout: (timer) => timers.clearTimeout(timer),
    };
  }

  function clearPause() {
    pauseEndsMs = Infinity;
    timers.clearTimeout(pauseTimer);
  }

  function onEnded() {
    clearPause();
    void session.stop();
  }

  function onLeave() {
    // Otherwise the element could continue to play without a slot.
    if (isPlaying()) video.pause();
    if (isActive()) onEnded();
  }

  function onTimeUpdate() {
    presence.check();
    onPageReturn();
    session.update();
  }

  function onPageHide() {
    stoppedByUnload = true;
    void session.stop({ unload: true });
  }

  // Starts again if the element plays after `pagehide`. The page was then restored from the back/forward cache, or it was never
  // unloaded, because a download link also fires `pagehide`.
  function onPageReturn() {
    if (stoppedByUnload && isPlaying()) onPlay();
  }

  function block() {
    blocked = true;
    video.pause();
    blockedAtMs = clock.now();
    clearPause();
  }

  // Ends a pause that `block` caused. Not only `live`, but also `unavailable` and `failed` allow playback.
  async function resume() {
    if (!blocked) return;
    blocked = false;
    resuming = true;
    try {
      await video.play();
    } catch {
      // The browser requires a user gesture. The element stays paused until the user plays.
    }
    resuming = false;
    // If the element did not start to play, it fires no `pause` event. Treat it as paused, so that the slot is freed later.
    if (!isPlaying()) onPause();
  }

  const presence = watchPresence(video, onLeave);
  const removeSessionListeners = [
    session.on("denied", block),
    session.on("ended", block),
    session.on("state", ({ state }) => ["live", "unavailable", "failed"].includes(state) && resume()),
    // The application may start the session before playback, to get a grant. If no playback follows, free the slot as after a pause.
    session.on("state", ({ state }) => state === "starting" && !isPlaying() && onPause()),
  ];

  const removeVideoListeners = addListeners([
    [video, "play", onPlay],
    [video, "playing", onPlaying],
    [video, "timeupdate", onTimeUpdate],
    // The content may change before the next `timeupdate`.
    [video, "loadstart", session.update],
    [video, "loadedmetadata", session.update],
    [video, "pause", onPause],
    [video, "ended", onEnded],
    // Fired when the source fails or is replaced. If playback continues, `playing` follows.
    [video, "emptied", onPause],
    [video, "error", onPause],
  ]);
  const removePageListeners = page
    ? addListeners([
        ...pageHideListeners(page, onPageHide),
        [page.window, "pageshow", onPageReturn],
        // Must run before the session's own listeners. If the allowed pause ended while the device slept, these listeners stop
        // the stream before the session renews it.
        [page.window, "online", checkPause],
        [page.window, "pageshow", checkPause],
        [page.document, "resume", checkPause],
        [page.document, "visibilitychange", checkPause],
      ])
    : () => {};

  if (isPlaying()) onPlay();

  function detach() {
    removeVideoListeners();
    presence.disconnect();
    removePageListeners();
    clearPause();
    blocked = false;
    for (const remove of removeSessionListeners) remove();
    // `forGood` prevents later starts. Otherwise the application could call `retry` of an earlier denial, and nothing would
    // free the new slot.
    return session.stop({ forGood: true });
  }

  return { session, on: session.on, off: session.off, detach };
}
