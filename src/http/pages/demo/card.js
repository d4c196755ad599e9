// One device of the page: a real player on a real <video>, the ring of its lease, and in words what goes on. The player
// decides by itself when to play; this only shows it, and does what its buttons say.

import { createWire } from "./calls.js";
import { createPicture } from "./picture.js";
import { attach } from "./player.js";
import { button, screens } from "./screens.js";

// Shorter than a player's usual five minutes, so that one can wait for it here.
const STOP_AFTER_PAUSE_S = 60;
const OFF_AIR_MS = 400;

/** `account()` is what the player is told of the user and the service; `changed()` is called when the count may have changed. */
export function createDevice({ id, name, icon, hue, template, account, log, changed }) {
  const card = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  const video = find("video");
  const message = find(".message");
  const picture = createPicture(hue);
  let player;
  let wire;
  let lease = null;
  let crashed = false;
  let note = "";
  let shown = "";

  find("h3").textContent = name;
  card.setAttribute("aria-label", name);
  find("use").setAttribute("href", `#${icon}`);
  video.muted = true;
  video.setAttribute("aria-label", `Picture of ${name}`);

  const buttons = {
    play: button("Play", `Play on ${name}`, play),
    pause: button("Pause", `Pause ${name}`, () => video.pause()),
    reload: button("Reload", `Reload ${name}`, reload),
    crash: button("Crash", `Crash ${name}: no stop is sent`, crash),
  };
  buttons.play.classList.add("primary");
  find(".buttons").append(...Object.values(buttons));

  for (const type of ["play", "pause", "emptied"]) {
    video.addEventListener(type, () => {
      if (video.paused) picture.pause();
      else picture.play();
      show();
    });
  }

  function boot(extra = {}) {
    crashed = false;
    note = "";
    const mine = createWire({ device: name, log, after: changed });
    wire = mine;
    const { fetch, sendBeacon } = mine;
    player = attach(video, {
      ...account(),
      ...extra,
      fetch,
      sendBeacon,
      deviceId: id,
      deviceName: name,
      contentId: "demo",
      stopAfterPauseS: STOP_AFTER_PAUSE_S,
    });
    player.evicts = extra.atLimit === "evictOldest";
    // A player that was left behind is not heard any more.
    const on = (type, listener) => player.on(type, (event) => mine === wire && listener(event));
    on("started", ({ stream }) => leased(stream, ""));
    on("renewed", ({ stream }) => leased(stream, note));
    on("restarted", ({ stream }) => leased(stream, "Its lease had run out, so it took another slot by itself."));
    on("denied", (denial) => {
      screen("denied", () => screens.denied(denial, { name, stop: stopOther, evict }));
      say(`Holds no slot, so it does not play. The first lease runs out in ${denial.slotFreesInSeconds} s, unless it is renewed.`);
    });
    on("ended", (ended) => screen("ended", () => screens.ended(ended)));
    on("unavailable", ({ status }) => say(away(status)));
    on("available", () => say(""));
    on("error", ({ status, detail }) => say(`The service refuses it${status ? ` (${status})` : ""}: ${detail ?? "a wrong setting"} It plays on without a slot.`));
    on("state", ({ state }) => {
      if (["idle", "denied", "ended"].includes(state)) lease = null;
      if (["starting", "idle"].includes(state)) note = "";
      show();
    });
  }

  function leased(stream, words) {
    const { leaseEndsInSeconds } = player.session;
    lease = {
      untilMs: performance.now() + leaseEndsInSeconds * 1000,
      totalS: stream.expiresInSeconds,
      intervalS: stream.heartbeatIntervalSeconds,
    };
    say(words);
  }

  function say(words) {
    note = words;
    show();
  }

  /** Resolves when the service has answered, or has not. */
  function play() {
    // Evicting was one start's choice, not the device's for good.
    if (crashed || (player.evicts && !player.session.streamId)) {
      void player.detach();
      boot();
    }
    void roll();
    return player.session.start();
  }

  // Not before somebody plays: the page would count as loading until its videos have their first frame.
  async function roll() {
    video.srcObject ??= picture.stream;
    await video.play().catch(() => {});
  }

  async function stopOther(streamId) {
    const denied = player;
    buttons.play.focus();
    const stopped = await denied.session.stopOther(streamId);
    if (stopped && denied === player) await denied.session.retry();
  }

  function evict() {
    buttons.play.focus();
    void player.detach();
    boot({ atLimit: "evictOldest" });
    void roll();
  }

  function vanish() {
    wire.cut();
    void player.detach();
    video.pause();
    video.srcObject = null;
    picture.rewind();
  }

  function crash() {
    if (!player.session.streamId) return;
    const before = lease;
    crashed = true;
    note = "";
    vanish();
    // Its slot stays taken, whatever the player that was cut off believes.
    lease = before;
    show();
    changed();
  }

  async function reload() {
    const before = lease;
    vanish();
    lease = before;
    boot();
    const mine = wire;
    show();
    // As long as a page is dark, so that one sees it.
    await new Promise((resolve) => setTimeout(resolve, OFF_AIR_MS));
    if (mine !== wire) return;
    await roll();
    const state = await player.session.start();
    if (mine === wire && state === "live" && before) say("Started again as the same device, and took over its own slot.");
  }

  /** The user has changed: the old one's slot is given back. */
  function reset() {
    const old = player;
    if (old) {
      video.pause();
      void old.detach();
    }
    lease = null;
    picture.rewind();
    boot();
    show();
  }

  function mode() {
    if (crashed) return lease ? "crashed" : "freed";
    const { state } = player.session;
    if (state === "live") return video.paused ? "paused" : "live";
    return state;
  }

  function show() {
    const now = mode();
    card.dataset.mode = now;
    const [badge, words] = WORDS[now];
    find(".badge").textContent = badge;
    const says = note || words;
    // Set anew only when it is new, or it would be read out again.
    if (find(".says").textContent !== says) find(".says").textContent = says;
    if (now !== shown && !["denied", "ended"].includes(now)) screen(now, () => screens[now]?.({ icon }) ?? []);
    unavailable(buttons.pause, video.paused);
    unavailable(buttons.play, !video.paused);
    unavailable(buttons.crash, !player.session.streamId);
    tick();
  }

  function screen(next, content) {
    shown = next;
    message.replaceChildren(...content());
    message.hidden = message.childElementCount === 0;
    if (next === "denied" || next === "ended") show();
  }

  /** Time has passed. */
  function tick() {
    const leftS = lease ? Math.max(0, (lease.untilMs - performance.now()) / 1000) : 0;
    if (crashed && lease && leftS === 0) {
      lease = null;
      changed();
      show();
      return;
    }
    const part = lease ? Math.min(1, leftS / lease.totalS) : 0;
    find(".left").setAttribute("stroke-dashoffset", String(100 * (1 - part)));
    find(".ring text").textContent = lease ? String(Math.ceil(leftS)) : "–";
    find(".ring").setAttribute("aria-label", lease ? `Lease: ${Math.ceil(leftS)} of ${lease.totalS} seconds left` : "No lease");
    const due = lease && !crashed ? 360 * (1 - lease.intervalS / lease.totalS) : null;
    find(".due").setAttribute("visibility", due === null ? "hidden" : "visible");
    if (due !== null) find(".due").setAttribute("transform", `rotate(${due} 32 32)`);
  }

  return { card, play, reset, tick };
}

const WORDS = {
  idle: ["Off", "Holds no slot. Play asks for one."],
  starting: ["Starting", "Asks for a slot, and plays meanwhile."],
  live: ["Playing", "Holds a slot. A heartbeat is due where the mark is, and fills the ring again."],
  paused: ["Paused", `Keeps its slot for ${STOP_AFTER_PAUSE_S} seconds of pause, then gives it back.`],
  unavailable: ["Playing", "Nobody answers. It plays on, and asks again."],
  failed: ["Playing", "The service refused the start. It plays on without a slot."],
  denied: ["Denied", "Holds no slot, so it does not play."],
  ended: ["Stopped", "Lost its slot. Only its user starts it again: two players would push each other out for ever."],
  crashed: ["Crashed", "Sent no stop, so its slot is still counted. It is free when the ring is empty: no job has to clean up."],
  freed: ["Crashed", "Its lease has run out, and its slot is free. Nobody had to clean up."],
};

function away(status) {
  if (status === 401) return "Its token is missing or was refused. It plays on, and asks for another: put one in above.";
  return `${status ? `The service answers ${status}` : "Nobody answers"}. It plays on, and asks again.`;
}

// Not `disabled`, which would take the focus away from whoever uses the keyboard.
function unavailable(element, is) {
  element.setAttribute("aria-disabled", String(is));
}
