// One device of the page: a player from the player package on a <video> element, its lease as a ring, and a status text.
// The player decides when to play. The card shows the player's state and forwards button clicks to the player.

import { createAnimation } from "./animation.js";
import { createNetwork } from "./network.js";
import { button, overlays } from "./overlays.js";
import { attach } from "./player.js";

// Shorter than the default of 300 s, so that visitors can wait until a paused player stops.
const STOP_AFTER_PAUSE_S = 60;
// How long the video is absent during a simulated page reload.
const RELOAD_MS = 400;

/** `account()` returns the player options of the account. `onChange()` is called when the stream count may have changed. */
export function createDeviceCard({ id, name, icon, hue, template, account, log, onChange }) {
  const card = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  const video = find("video");
  const overlay = find(".overlay");
  const animation = createAnimation(hue);
  let player;
  let network;
  let evictsOldest = false;
  let lease = null;
  let crashed = false;
  let note = "";
  let overlayMode = "";
  // Label of the stream, and of the picture that the device shows.
  let quality = "hd";

  find("h3").textContent = name;
  card.setAttribute("aria-label", name);
  find("use").setAttribute("href", `#${icon}`);
  video.muted = true;
  video.setAttribute("aria-label", `Picture of ${name}`);

  const buttons = {
    play: button("Play", `Play on ${name}`, play),
    pause: button("Pause", `Pause ${name}`, () => video.pause()),
    reload: button("Reload", `Reload ${name}`, reload),
    crash: button("Crash", `Crash ${name} without a stop`, crash),
  };
  const qualityButton = button("UHD", `UHD on ${name}`, () => setQuality(quality === "hd" ? "uhd" : "hd"));
  qualityButton.className = "quality";
  find(".screen").append(qualityButton);
  buttons.play.classList.add("primary");
  find(".buttons").append(...Object.values(buttons));

  for (const type of ["play", "pause", "emptied"]) {
    video.addEventListener(type, () => {
      if (video.paused) animation.pause();
      else animation.play();
      render();
    });
  }

  function createPlayer(options = {}) {
    crashed = false;
    note = "";
    const current = createNetwork({ device: name, log, onResponse: onChange });
    network = current;
    const { fetch, sendBeacon } = current;
    player = attach(video, {
      ...account(),
      ...options,
      fetch,
      sendBeacon,
      deviceId: id,
      deviceName: name,
      contentId: "demo",
      labels: () => ({ quality }),
      stopAfterPauseS: STOP_AFTER_PAUSE_S,
    });
    evictsOldest = options.atLimit === "evictOldest";
    // Ignores the events of earlier players.
    const on = (type, listener) => player.on(type, (event) => current === network && listener(event));
    on("started", ({ stream }) => setLease(stream, ""));
    on("renewed", ({ stream }) => setLease(stream, note));
    on("restarted", ({ stream }) => setLease(stream, "Its lease expired, so it took another slot."));
    on("relabeled", ({ stream, labels }) => setLease(stream, `Plays in ${labels.quality.toUpperCase()} now.`));
    on("labelsDenied", ({ rule, currentLabels, labels }) => {
      quality = currentLabels.quality;
      const denier = rule ? `The rule “${rule}”` : "The account's limit";
      setNote(`${denier} denied ${labels.quality.toUpperCase()}. It continues in ${quality.toUpperCase()}.`);
    });
    on("denied", (denial) => {
      // The rule may deny UHD, so the next start requests HD.
      if (denial.rule) quality = "hd";
      setOverlay("denied", () => overlays.denied(denial, { name, stopOther, evictOldest }));
      setNote(describeDenial(denial));
    });
    on("ended", (ended) => setOverlay("ended", () => overlays.ended(ended)));
    on("unavailable", (outage) => setNote(describeOutage(outage)));
    on("available", () => setNote(""));
    on("error", ({ status, detail }) => setNote(`Rejected${status ? ` (${status})` : ""}: ${detail ?? "invalid settings."} It plays without a slot and retries.`));
    on("state", ({ state }) => {
      if (["idle", "denied", "ended"].includes(state)) lease = null;
      if (["starting", "idle"].includes(state)) note = "";
      render();
    });
  }

  function setQuality(next) {
    quality = next;
    player.session.update();
    render();
  }

  function setLease(stream, text) {
    const { leaseEndsInSeconds } = player.session;
    lease = {
      endsMs: performance.now() + leaseEndsInSeconds * 1000,
      totalS: stream.expiresInSeconds,
      intervalS: stream.heartbeatIntervalSeconds,
    };
    setNote(text);
  }

  function setNote(text) {
    note = text;
    render();
  }

  /** Resolves when the start request has a response or has failed. */
  function play() {
    // `evictOldest` applies to one start only, so a later start uses a new player without it.
    if (crashed || (evictsOldest && !player.session.streamId)) {
      void player.detach();
      createPlayer();
    }
    void startVideo();
    return player.session.start();
  }

  // Sets the source only when playback starts. If a video element has a canvas stream that does not play, the page never finishes
  // loading.
  async function startVideo() {
    video.srcObject ??= animation.stream;
    await video.play().catch(() => {});
  }

  async function stopOther(streamId) {
    const denied = player;
    buttons.play.focus();
    const stopped = await denied.session.stopOther(streamId);
    if (stopped && denied === player) await denied.session.retry();
  }

  function evictOldest() {
    buttons.play.focus();
    void player.detach();
    createPlayer({ atLimit: "evictOldest" });
    void startVideo();
  }

  /** Ends the player without a stop request. */
  function cutPlayer() {
    network.cut();
    void player.detach();
    video.pause();
    video.srcObject = null;
    animation.rewind();
  }

  function crash() {
    if (!player.session.streamId) return;
    const previousLease = lease;
    crashed = true;
    note = "";
    cutPlayer();
    // No stop reached the service, so the card shows the lease until it expires.
    lease = previousLease;
    render();
    onChange();
  }

  async function reload() {
    const previousLease = lease;
    cutPlayer();
    lease = previousLease;
    createPlayer();
    const current = network;
    render();
    await new Promise((resolve) => setTimeout(resolve, RELOAD_MS));
    if (current !== network) return;
    await startVideo();
    const state = await player.session.start();
    if (current === network && state === "live" && previousLease) setNote("Restarted as the same device and took over its own slot.");
  }

  /** Called after the user changes. Frees the slot of the previous user. */
  function reset() {
    const previous = player;
    if (previous) {
      video.pause();
      void previous.detach();
    }
    lease = null;
    animation.rewind();
    createPlayer();
    render();
  }

  function currentMode() {
    if (crashed) return lease ? "crashed" : "freed";
    const { state } = player.session;
    if (state === "live") return video.paused ? "paused" : "live";
    return state;
  }

  function render() {
    const mode = currentMode();
    card.dataset.mode = mode;
    qualityButton.setAttribute("aria-pressed", String(quality === "uhd"));
    const [badge, description] = MODES[mode];
    find(".badge").textContent = badge;
    const text = note || description;
    // Screen readers announce each assignment, so assign only a new text.
    if (find(".note").textContent !== text) find(".note").textContent = text;
    if (mode !== overlayMode && !["denied", "ended"].includes(mode)) setOverlay(mode, () => overlays[mode]?.({ icon }) ?? []);
    setDisabled(buttons.pause, video.paused);
    setDisabled(buttons.play, !video.paused);
    setDisabled(buttons.crash, !player.session.streamId);
    tick();
  }

  function setOverlay(mode, content) {
    overlayMode = mode;
    overlay.replaceChildren(...content());
    overlay.hidden = overlay.childElementCount === 0;
    if (mode === "denied" || mode === "ended") render();
  }

  /** Updates the lease ring. Called periodically. */
  function tick() {
    const leftS = lease ? Math.max(0, (lease.endsMs - performance.now()) / 1000) : 0;
    if (crashed && lease && leftS === 0) {
      lease = null;
      onChange();
      render();
      return;
    }
    const fraction = lease ? Math.min(1, leftS / lease.totalS) : 0;
    find(".remaining").setAttribute("stroke-dashoffset", String(100 * (1 - fraction)));
    find(".ring text").textContent = lease ? String(Math.ceil(leftS)) : "–";
    find(".ring").setAttribute("aria-label", lease ? `Lease: ${Math.ceil(leftS)} of ${lease.totalS} seconds left` : "No lease");
    const hasGrant = lease !== null && !crashed && player.session.grant !== null;
    find(".grant").hidden = !hasGrant;
    if (hasGrant) find(".grant").textContent = `Grant: ${Math.ceil(leftS)} s`;
    const dueAngle = lease && !crashed ? 360 * (1 - lease.intervalS / lease.totalS) : null;
    find(".heartbeat-due").setAttribute("visibility", dueAngle === null ? "hidden" : "visible");
    if (dueAngle !== null) find(".heartbeat-due").setAttribute("transform", `rotate(${dueAngle} 32 32)`);
  }

  return { card, play, reset, tick };
}

/** Badge and description of each mode. */
const MODES = {
  idle: ["Off", "Holds no slot. Play requests one."],
  starting: ["Starting", "Plays while it requests a slot."],
  live: ["Playing", "Holds a slot. A heartbeat is due at the mark and refills the ring."],
  paused: ["Paused", `Keeps its slot for a pause of ${STOP_AFTER_PAUSE_S} seconds, then frees it.`],
  unavailable: ["Playing", "No response. It keeps playing and retries."],
  failed: ["Playing", "The service rejected the start. It plays without a slot and retries."],
  denied: ["Denied", "Holds no slot, so it does not play."],
  ended: ["Stopped", "Lost its slot. Only its user can restart it, so that two players do not evict each other in a loop."],
  crashed: ["Crashed", "Sent no stop, so its slot is still taken. It is free when the lease expires, without any clean-up job."],
  freed: ["Crashed", "Its lease expired, so its slot is free. No clean-up job was needed."],
};

function describeDenial({ rule, slotFreesInSeconds }) {
  const reason = rule ? ` The rule “${rule}” denied it.` : "";
  const wait = slotFreesInSeconds ? ` The next lease expires in ${slotFreesInSeconds} s, unless it is renewed.` : "";
  return `Holds no slot, so it does not play.${reason}${wait}`;
}

// The players use the default options. If requests fail until the lease expires, the players stop if the responses are 401 or 403, and
// otherwise keep playing.
function describeOutage({ status, leaseEndsInSeconds }) {
  if (status === 401 || status === 403) {
    const seconds = Math.ceil(leaseEndsInSeconds);
    return `Its token is missing or was rejected. It retries, and stops after ${seconds} s. Enter a token above.`;
  }
  return `${status ? `The service returned ${status}` : "No response"}. It keeps playing and retries.`;
}

// `disabled` would move the keyboard focus away from the button.
function setDisabled(element, disabled) {
  element.setAttribute("aria-disabled", String(disabled));
}
