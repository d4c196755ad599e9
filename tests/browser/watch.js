// A page with one player, as the package's README has it. `api`, `user` and `name` come from the address; `tokens` asks this
// server for one. What the player says is kept in `watched`, for the tests.

import { attach } from "./demo/player.js";

const asked = new URLSearchParams(location.search);
const userName = asked.get("user");
const video = document.querySelector("video");
const token = asked.has("tokens") ? async () => (await fetch(`token?user=${encodeURIComponent(userName)}`)).text() : undefined;
const player = attach(video, { baseUrl: asked.get("api"), userName, deviceName: asked.get("name") ?? undefined, token });
const events = [];
for (const type of ["started", "renewed", "restarted", "denied", "ended", "unavailable", "available", "error"]) {
  player.on(type, ({ streamId, reason, endedBy, status, code }) => events.push({ type, streamId, reason, endedBy, status, code }));
}
window.watched = { player, events, video };

video.muted = true;
video.loop = true;
video.src = URL.createObjectURL(silence());
// A page that was closed while it played goes on after a reload; so does a television.
void video.play();

// Not a canvas' stream: a page with one is never kept for "back", and one with a film is.
function silence() {
  const bytes = 60 * 8000;
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  // PCM, one channel, 8000 samples of one byte a second.
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, 8000, true);
  head.setUint32(28, 8000, true);
  head.setUint16(32, 1, true);
  head.setUint16(34, 8, true);
  text(36, "data");
  head.setUint32(40, bytes, true);
  return new Blob([head, new Uint8Array(bytes).fill(128)], { type: "audio/wav" });
}
