// Binds a session to a media element: what the user does with the player becomes start and stop, and what the service
// says becomes pause. Works with whatever feeds the element, since it only listens to it and pauses or resumes it.

import { listenAll } from "./page.js";
import { LONGEST_TIMER_MS, readOptions } from "./platform.js";
import { createSession } from "./session.js";

const DEFAULT_STOP_AFTER_PAUSE_S = 300;

/** @type {typeof import("./player.d.ts").attach} */
export function attach(video, options) {
  const session = createSession(options);
  const { clock, timers, page } = readOptions(options);
  const stopAfterPauseMs = (options.stopAfterPauseS ?? DEFAULT_STOP_AFTER_PAUSE_S) * 1000;
  let pauseTimer;
  let pauseEndsMs = Infinity;
  // Paused by the service's word: resumed when it lets the player play again.
  let held = false;
  let resuming = false;
  // Stopped because the page went away.
  let left = false;

  const plays = () => !video.paused && !video.ended;
  const holdsSlot = () => ["starting", "live", "unavailable"].includes(session.state);

  function playing() {
    cancelPause();
    held = false;
    left = false;
    // Its own play after a start that failed is not the user's wish for another.
    if (!resuming || session.state !== "failed") void session.start();
  }

  // `playing` also follows seeking, stalling and a change of quality; and comes alone where play was automatic.
  function goesOn() {
    cancelPause();
    if (session.state === "idle") playing();
  }

  function pauses() {
    if (pauseEndsMs < Infinity || !holdsSlot()) return;
    pauseEndsMs = clock.now() + stopAfterPauseMs;
    checkPause();
  }

  function checkPause() {
    timers.clearTimeout(pauseTimer);
    if (pauseEndsMs === Infinity) return;
    const leftMs = pauseEndsMs - clock.now();
    if (leftMs > 0) pauseTimer = timers.setTimeout(checkPause, Math.min(leftMs, LONGEST_TIMER_MS));
    else stops();
  }

  function cancelPause() {
    pauseEndsMs = Infinity;
    timers.clearTimeout(pauseTimer);
  }

  function stops() {
    cancelPause();
    void session.stop();
  }

  function leaves() {
    left = true;
    void session.stop({ unload: true });
  }

  // Back from the back/forward cache, or the page was never unloaded at all, as after a link that was a download.
  function returns() {
    if (left && plays()) playing();
  }

  function hold() {
    held = true;
    cancelPause();
    video.pause();
  }

  // "Play unless denied" also holds where nobody answers.
  async function resume() {
    if (!held) return;
    held = false;
    resuming = true;
    try {
      await video.play();
    } catch {
      // The browser wants a click first: then the user's own play starts it.
    }
    resuming = false;
    // No `pause` will come from an element that never played: its slot is not for ever either.
    if (!plays()) pauses();
  }

  const listening = [
    session.on("denied", hold),
    session.on("ended", hold),
    session.on("state", ({ state }) => ["live", "unavailable", "failed"].includes(state) && resume()),
  ];

  const detachVideo = listenAll([
    [video, "play", playing],
    [video, "playing", goesOn],
    [video, "timeupdate", returns],
    [video, "pause", pauses],
    [video, "ended", stops],
    // Another source is loaded, or this one failed: whoever goes on from there says `playing` again.
    [video, "emptied", pauses],
    [video, "error", pauses],
  ]);
  const detachPage = page
    ? listenAll([
        [page.window, "pagehide", leaves],
        [page.window, "pageshow", returns],
        // Before the session hears of it: a pause that was slept through needs no slot again.
        [page.document, "visibilitychange", checkPause],
      ])
    : () => {};

  if (plays()) playing();

  function detach() {
    detachVideo();
    detachPage();
    cancelPause();
    held = false;
    for (const off of listening) off();
    // A denial's `retry` outlives the player, and nobody would free what it gets.
    return session.stop({ forGood: true });
  }

  return { session, on: session.on, off: session.off, detach };
}
