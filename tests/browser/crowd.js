// A page with one player for each `user` parameter in its URL. The content id and the device name of a player are its user's name.
// The page adds the headers of a monitoring library to all requests. The tests call `window.crowd`.

import { attach } from "./demo/player.js";
import { createSilence } from "./silence.js";

const query = new URLSearchParams(location.search);

// Sentry adds the same headers: https://docs.sentry.io/platforms/javascript/tracing/trace-propagation/
const { fetch: originalFetch } = window;
window.fetch = (input, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("baggage", "sentry-environment=test,sentry-trace_id=771a43a4192642f0b136d5159a501700");
  headers.set("sentry-trace", "771a43a4192642f0b136d5159a501700-a5c3b2e1d4f60798-1");
  return originalFetch(input, { ...init, headers });
};

const source = URL.createObjectURL(createSilence());
const watchers = query.getAll("user").map(watch);

function watch(userName) {
  const video = document.body.appendChild(document.createElement("video"));
  const player = attach(video, { baseUrl: query.get("api"), userName, deviceName: userName, contentId: userName });
  const seen = {};
  for (const type of ["started", "renewed", "restarted", "denied", "ended", "unavailable", "error"]) {
    player.on(type, ({ code }) => (seen[type] ??= []).push(code));
  }
  const isPlaying = () => !video.paused && !video.ended;
  // One pair `[time, playing]` for each change.
  const changes = [];
  for (const type of ["play", "pause", "ended"]) video.addEventListener(type, () => changes.push([Date.now(), isPlaying()]));
  video.muted = true;
  video.loop = true;
  video.src = source;
  void video.play().catch(() => {});
  return () => ({ playing: isPlaying(), slot: player.session.streamId !== null, changes, seen });
}

window.crowd = { states: () => watchers.map((state) => state()) };
