// Binds a session to a media element: play and stop events start and stop the session, and a denial or an ended stream
// pauses the element. It only listens, pauses and resumes, so it works with any streaming library.

import { MAX_TIMER_DELAY_MS } from "./backoff.js";
import { addListeners } from "./lifecycle.js";
import { readOptions } from "./options.js";
import { createSession } from "./session.js";

const DEFAULT_STOP_AFTER_PAUSE_S = 300;

/** @type {typeof import("./player.d.ts").attach} */
export function attach(video, options) {
  const session = createSession(options);
  const { clock, timers, page } = readOptions(options);
  const stopAfterPauseMs = (options.stopAfterPauseS ?? DEFAULT_STOP_AFTER_PAUSE_S) * 1000;
  let pauseTimer;
  let pauseEndsMs = Infinity;
  // True while the element is paused because of a denial or an ended stream.
  let blocked = false;
  let resuming = false;
  // The session was stopped because the page was hidden or unloaded.
  let stoppedByUnload = false;

  const isPlaying = () => !video.paused && !video.ended;
  const holdsSlot = () => ["starting", "live", "unavailable"].includes(session.state);

  function onPlay() {
    clearPause();
    blocked = false;
    stoppedByUnload = false;
    // A resume after a failed start is not a user action and must not start the session again.
    if (!resuming || session.state !== "failed") void session.start();
  }

  // `playing` also follows a seek, a stall and a quality change. With autoplay it may come without `play`.
  function onPlaying() {
    clearPause();
    if (session.state === "idle") onPlay();
  }

  function onPause() {
    if (pauseEndsMs < Infinity || !holdsSlot()) return;
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

  function clearPause() {
    pauseEndsMs = Infinity;
    timers.clearTimeout(pauseTimer);
  }

  function onEnded() {
    clearPause();
    void session.stop();
  }

  function onPageHide() {
    stoppedByUnload = true;
    void session.stop({ unload: true });
  }

  // The page is back from the back/forward cache, or was never unloaded: a download link also fires `pagehide`.
  function onPageReturn() {
    if (stoppedByUnload && isPlaying()) onPlay();
  }

  function block() {
    blocked = true;
    clearPause();
    video.pause();
  }

  // Resumes in every state that allows playback, even if the service is unavailable.
  async function resume() {
    if (!blocked) return;
    blocked = false;
    resuming = true;
    try {
      await video.play();
    } catch {
      // The browser requires a user gesture. The user's own play then starts the session.
    }
    resuming = false;
    // If the element does not play, no `pause` event follows. Count this as a pause, so that the slot is freed later.
    if (!isPlaying()) onPause();
  }

  const removeSessionListeners = [
    session.on("denied", block),
    session.on("ended", block),
    session.on("state", ({ state }) => ["live", "unavailable", "failed"].includes(state) && resume()),
  ];

  const removeVideoListeners = addListeners([
    [video, "play", onPlay],
    [video, "playing", onPlaying],
    [video, "timeupdate", onPageReturn],
    [video, "pause", onPause],
    [video, "ended", onEnded],
    // The source failed or was replaced. If playback continues, `playing` follows.
    [video, "emptied", onPause],
    [video, "error", onPause],
  ]);
  const removePageListeners = page
    ? addListeners([
        [page.window, "pagehide", onPageHide],
        [page.window, "pageshow", onPageReturn],
        // Must run before the session's own listener: if the pause limit passed while the device slept, the stream is
        // stopped, not renewed.
        [page.document, "visibilitychange", checkPause],
      ])
    : () => {};

  if (isPlaying()) onPlay();

  function detach() {
    removeVideoListeners();
    removePageListeners();
    clearPause();
    blocked = false;
    for (const remove of removeSessionListeners) remove();
    // The application may call the `retry` of an earlier denial later. That slot would never be freed.
    return session.stop({ forGood: true });
  }

  return { session, on: session.on, off: session.off, detach };
}
