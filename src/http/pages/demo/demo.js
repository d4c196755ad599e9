// The page: one account, its slots, and four devices that want them. Uses the service as any page would, with the
// player package and the public calls.

import { createLog } from "./calls.js";
import { createDevice } from "./card.js";
import { button } from "./screens.js";

const POLL_MS = 2000;
const AFTER_A_CALL_MS = 120;
const TICK_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 250;
const LONGEST_START_MS = 1500;
const DEVICES = [
  { id: "tv", name: "Living-room TV", icon: "tv", hue: 190 },
  { id: "tablet", name: "Kitchen tablet", icon: "tablet", hue: 285 },
  { id: "phone", name: "Phone", icon: "phone", hue: 20 },
  { id: "laptop", name: "Laptop", icon: "laptop", hue: 130 },
];

const at = (id) => document.getElementById(id);
const baseUrl = new URLSearchParams(location.search).get("api") ?? location.origin;
const tab = tabId();
const log = createLog({ rows: at("log"), empty: at("no-calls"), last: at("last-call") });
let userName = userOfAddress();
let token;
let asking;
let soon;
let drawn = "";

const devices = DEVICES.map((device) =>
  createDevice({
    ...device,
    id: `${tab}-${device.id}`,
    template: at("device"),
    account: () => ({ baseUrl, userName, token: () => token }),
    log,
    changed,
  }),
);

// Kept over a reload, so that the devices are the same ones; another window has devices of its own.
function tabId() {
  const fresh = Array.from(crypto.getRandomValues(new Uint8Array(4)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const kept = sessionStorage.getItem("stream-manager.demo") ?? fresh;
    sessionStorage.setItem("stream-manager.demo", kept);
    return kept;
  } catch {
    return fresh;
  }
}

function friendlyName() {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const first = pick(["brave", "calm", "clever", "gentle", "happy", "lucky", "merry", "quiet", "sunny", "witty"]);
  const second = pick(["badger", "beaver", "dolphin", "falcon", "heron", "lynx", "otter", "panda", "robin", "turtle"]);
  return `${first}-${second}-${10 + Math.floor(Math.random() * 90)}`;
}

// In the address, so that a second window has the same user.
function userOfAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim().normalize() || friendlyName();
  } catch {
    return friendlyName();
  }
}

function setUser(name) {
  userName = name;
  at("user").value = name;
  const here = new URL(location.href);
  here.hash = encodeURIComponent(name);
  history.replaceState(null, "", here);
  at("second").href = here.href;
  for (const device of devices) device.reset();
  void refresh();
}

function call(path, init = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(`${baseUrl.replace(/\/+$/, "")}/v1/users/${encodeURIComponent(userName)}${path}`, { ...init, headers });
}

// The count may have changed: asked once for what changes together.
function changed() {
  clearTimeout(soon);
  soon = setTimeout(refresh, AFTER_A_CALL_MS);
}

async function refresh() {
  const mine = {};
  asking = mine;
  let answer;
  try {
    const response = await call("/streams");
    if (response.ok) answer = await response.json();
    else if (asking === mine) unknown(response.status === 401 ? "A token is needed" : `The service answers ${response.status}`);
  } catch {
    if (asking === mine) unknown("Nobody answers");
  }
  if (answer && asking === mine) usage(answer);
}

function unknown(why) {
  at("count").textContent = "–";
  at("of").textContent = why;
  at("live").textContent = why;
  at("usage-status").textContent = why;
  at("slots").classList.add("stale");
  drawn = "";
}

function usage({ count, limit, streams }) {
  at("count").textContent = `${count} of ${limit}`;
  at("of").textContent = limit === 1 ? "stream live" : "streams live";
  at("live").textContent = `${count} of ${limit} live`;
  at("slots").classList.remove("stale");
  const now = JSON.stringify([limit, streams.map(({ streamId }) => streamId)]);
  // Drawn anew only when it is new: a button must not vanish under a finger.
  if (now === drawn) return;
  drawn = now;
  at("usage-status").textContent = `${count} of ${limit} streams live`;
  const focused = at("slots").contains(document.activeElement);
  const free = Array.from({ length: Math.max(0, limit - count) }, () => slot("free"));
  at("slots").replaceChildren(...streams.map((stream) => slot("taken", stream)), ...free);
  if (focused) (at("slots").querySelector("button") ?? at("play-all")).focus();
}

function slot(kind, stream) {
  const item = document.createElement("li");
  item.className = kind;
  const name = document.createElement("span");
  item.append(name);
  if (!stream) {
    name.textContent = "Free slot";
    return item;
  }
  const here = stream.deviceId?.startsWith(`${tab}-`);
  const who = `${stream.deviceName ?? "A device"}${here ? "" : ", elsewhere"}`;
  name.textContent = who;
  item.append(button("Stop", `Stop the stream on ${who}`, () => stop(stream.streamId, who)));
  return item;
}

async function stop(streamId, who) {
  const path = `/streams/${streamId}?evict=true`;
  const line = { device: "This page", method: "DELETE", url: new URL(`${baseUrl}/v1/users/u${path}`, location.href).href };
  try {
    const { ok, status } = await call(path, { method: "DELETE" });
    const words = ok ? `Ended ${who}: its player learns so at its next heartbeat` : "Refused: the stream goes on";
    log.add({ ...line, status, tone: ok ? "good" : "bad", words });
  } catch {
    log.add({ ...line, status: "none", tone: "warn", words: "No answer: the stream goes on" });
  }
  changed();
}

function changeUser() {
  const name = at("user").value.trim().normalize();
  if (name && name !== userName) setUser(name);
  else at("user").value = userName;
}

at("devices").append(...devices.map(({ card }) => card));
setUser(userName);

at("account").addEventListener("submit", (event) => {
  event.preventDefault();
  changeUser();
});
at("user").addEventListener("change", changeUser);
at("token").addEventListener("change", () => {
  token = at("token").value.trim() || undefined;
  void refresh();
});
addEventListener("hashchange", () => {
  const name = userOfAddress();
  if (name !== userName) setUser(name);
});
at("play-all").addEventListener("click", async () => {
  for (const device of devices) {
    // One after the other, so that it is always the last that finds no slot.
    await Promise.race([device.play(), new Promise((resolve) => setTimeout(resolve, LONGEST_START_MS))]);
  }
});
document.addEventListener("visibilitychange", () => !document.hidden && void refresh());
setInterval(() => !document.hidden && void refresh(), POLL_MS);
setInterval(() => !document.hidden && devices.forEach((device) => device.tick()), TICK_MS);
