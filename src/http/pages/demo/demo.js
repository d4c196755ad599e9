// The demo page: one account, its slots, and four devices that share them. Uses only the player package and the public API.

import { createDeviceCard } from "./device-card.js";
import { button } from "./overlays.js";
import { createRequestLog } from "./request-log.js";

const POLL_MS = 2000;
// Delay before a refresh, so that changes at about the same time cause only one refresh.
const REFRESH_DELAY_MS = 120;
const TICK_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 250;
const MAX_START_WAIT_MS = 1500;
const DEVICES = [
  { id: "tv", name: "Living-room TV", icon: "tv", hue: 190 },
  { id: "tablet", name: "Kitchen tablet", icon: "tablet", hue: 285 },
  { id: "phone", name: "Phone", icon: "phone", hue: 20 },
  { id: "laptop", name: "Laptop", icon: "laptop", hue: 130 },
];

const byId = (id) => document.getElementById(id);
const baseUrl = new URLSearchParams(location.search).get("api") ?? location.origin;
const tabId = loadTabId();
const log = createRequestLog({ rows: byId("log"), empty: byId("log-empty"), latest: byId("log-latest") });
let userName = userFromHash();
let token;
let latestRefresh;
let refreshTimer;
let renderedSlots = "";

const devices = DEVICES.map((device) =>
  createDeviceCard({
    ...device,
    id: `${tabId}-${device.id}`,
    template: byId("device"),
    account: () => ({ baseUrl, userName, token: () => token }),
    log,
    onChange: scheduleRefresh,
  }),
);

// The id survives reloads, so that the devices keep their ids. Each window has its own id, and so its own devices.
function loadTabId() {
  const fresh = Array.from(crypto.getRandomValues(new Uint8Array(4)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const stored = sessionStorage.getItem("stream-manager.demo") ?? fresh;
    sessionStorage.setItem("stream-manager.demo", stored);
    return stored;
  } catch {
    return fresh;
  }
}

function randomUserName() {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const first = pick(["brave", "calm", "clever", "gentle", "happy", "lucky", "merry", "quiet", "sunny", "witty"]);
  const second = pick(["badger", "beaver", "dolphin", "falcon", "heron", "lynx", "otter", "panda", "robin", "turtle"]);
  return `${first}-${second}-${10 + Math.floor(Math.random() * 90)}`;
}

// The URL hash contains the user, so that a second window shows the same account.
function userFromHash() {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim().normalize() || randomUserName();
  } catch {
    return randomUserName();
  }
}

function setUser(name) {
  userName = name;
  byId("user").value = name;
  const url = new URL(location.href);
  url.hash = encodeURIComponent(name);
  history.replaceState(null, "", url);
  byId("second-window").href = url.href;
  for (const device of devices) device.reset();
  void refresh();
}

function callApi(path, init = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(`${baseUrl.replace(/\/+$/, "")}/v1/users/${encodeURIComponent(userName)}${path}`, { ...init, headers });
}

function scheduleRefresh() {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(refresh, REFRESH_DELAY_MS);
}

async function refresh() {
  const current = {};
  latestRefresh = current;
  let usage;
  try {
    const response = await callApi("/streams");
    if (response.ok) usage = await response.json();
    else if (latestRefresh === current) {
      showUnknownUsage(response.status === 401 ? "A token is needed" : `The service returned ${response.status}`);
    }
  } catch {
    if (latestRefresh === current) showUnknownUsage("No response");
  }
  if (usage && latestRefresh === current) showUsage(usage);
}

function showUnknownUsage(reason) {
  byId("count").textContent = "–";
  byId("count-label").textContent = reason;
  byId("device-count").textContent = reason;
  byId("usage-status").textContent = reason;
  byId("slots").classList.add("stale");
  byId("rules").textContent = "";
  renderedSlots = "";
}

function showUsage({ count, limit, streams, rules = [] }) {
  byId("count").textContent = `${count} of ${limit}`;
  byId("count-label").textContent = limit === 1 ? "stream live" : "streams live";
  byId("device-count").textContent = `${count} of ${limit} live`;
  byId("slots").classList.remove("stale");
  byId("rules").textContent = rules.map(describeRule).join(" · ");
  const slots = JSON.stringify([limit, streams.map(({ streamId }) => streamId)]);
  // Do not replace unchanged slots, because a button could disappear during a click.
  if (slots === renderedSlots) return;
  renderedSlots = slots;
  byId("usage-status").textContent = `${count} of ${limit} streams live`;
  const hadFocus = byId("slots").contains(document.activeElement);
  const free = Array.from({ length: Math.max(0, limit - count) }, () => createSlot("free"));
  byId("slots").replaceChildren(...streams.map((stream) => createSlot("taken", stream)), ...free);
  if (hadFocus) (byId("slots").querySelector("button") ?? byId("play-all")).focus();
}

// A rule that counts per label has one entry for each value of the label.
function describeRule({ name, count, limit, per }) {
  return `${name}${per ? ` (${per})` : ""}: ${count} of ${limit}`;
}

function createSlot(className, stream) {
  const item = document.createElement("li");
  item.className = className;
  const label = document.createElement("span");
  item.append(label);
  if (!stream) {
    label.textContent = "Free slot";
    return item;
  }
  const inThisWindow = stream.deviceId?.startsWith(`${tabId}-`);
  const deviceName = `${stream.deviceName ?? "A device"}${inThisWindow ? "" : ", elsewhere"}`;
  label.textContent = deviceName;
  item.append(button("Stop", `Stop the stream on ${deviceName}`, () => evict(stream.streamId, deviceName)));
  return item;
}

async function evict(streamId, deviceName) {
  const path = `/streams/${streamId}?evict=true`;
  const request = { device: "This page", method: "DELETE", url: new URL(`${baseUrl}/v1/users/u${path}`, location.href).href };
  try {
    const { ok, status } = await callApi(path, { method: "DELETE" });
    const meaning = ok ? `Evicted ${deviceName}: its player stops at its next heartbeat` : "Rejected: the stream continues";
    log.add({ ...request, status, tone: ok ? "good" : "bad", meaning });
  } catch {
    log.add({ ...request, status: "none", tone: "warn", meaning: "No response: the stream continues" });
  }
  scheduleRefresh();
}

function changeUser() {
  const name = byId("user").value.trim().normalize();
  if (name && name !== userName) setUser(name);
  else byId("user").value = userName;
}

byId("devices").append(...devices.map(({ card }) => card));
setUser(userName);

byId("account").addEventListener("submit", (event) => {
  event.preventDefault();
  changeUser();
});
byId("user").addEventListener("change", changeUser);
byId("token").addEventListener("change", () => {
  token = byId("token").value.trim() || undefined;
  void refresh();
});
addEventListener("hashchange", () => {
  const name = userFromHash();
  if (name !== userName) setUser(name);
});
byId("play-all").addEventListener("click", async () => {
  for (const device of devices) {
    // Start the devices one after the other, so that the last one is denied.
    await Promise.race([device.play(), new Promise((resolve) => setTimeout(resolve, MAX_START_WAIT_MS))]);
  }
});
document.addEventListener("visibilitychange", () => !document.hidden && void refresh());
setInterval(() => !document.hidden && void refresh(), POLL_MS);
setInterval(() => !document.hidden && devices.forEach((device) => device.tick()), TICK_MS);
