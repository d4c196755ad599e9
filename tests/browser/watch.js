// A page with one player. Query parameters: `api`, `user`, `name` and `tokens`. With `tokens`, the player fetches its tokens from the
// page server. The tests read the player's events from `window.watched`.

import { attach } from "./demo/player.js";
import { createSilence } from "./silence.js";

const query = new URLSearchParams(location.search);
const userName = query.get("user");
const video = document.querySelector("video");
const token = query.has("tokens") ? async () => (await fetch(`token?user=${encodeURIComponent(userName)}`)).text() : undefined;
const player = attach(video, { baseUrl: query.get("api"), userName, deviceName: query.get("name") ?? undefined, token });
const events = [];
for (const type of ["started", "renewed", "restarted", "denied", "ended", "unavailable", "available", "error"]) {
  player.on(type, ({ streamId, reason, endedBy, status, code }) => events.push({ type, streamId, reason, endedBy, status, code }));
}
window.watched = { player, events, video };

video.muted = true;
video.loop = true;
video.src = URL.createObjectURL(createSilence());
// Play without a user action, so that the page also plays after a reload.
void video.play();
