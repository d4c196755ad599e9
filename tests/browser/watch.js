// A page with one player. Query parameters: `api`, `user`, `name` and `tokens`. With `tokens`, the player fetches its tokens from the
// page server. The tests read the player's events from `window.watched`.

import { attach } from "./demo/player.js";

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
// The page also plays after a reload.
void video.play();

// One minute of silence as a WAV file. With a canvas stream, the page would not enter the back/forward cache.
function createSilence() {
  const bytes = 60 * 8000;
  const header = new DataView(new ArrayBuffer(44));
  const text = (offset, letters) => [...letters].forEach((letter, i) => header.setUint8(offset + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  // PCM, one channel, 8000 samples of one byte per second.
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, 8000, true);
  header.setUint32(28, 8000, true);
  header.setUint16(32, 1, true);
  header.setUint16(34, 8, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, new Uint8Array(bytes).fill(128)], { type: "audio/wav" });
}
