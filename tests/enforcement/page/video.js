// Plays HLS with video.js, with a small buffer.

import videojs from "video.js";
import { BUFFER_S } from "./buffer.js";

let player;

export async function play(video, folder, grants, session) {
  if (!player) {
    videojs.Vhs.GOAL_BUFFER_LENGTH = BUFFER_S;
    videojs.Vhs.MAX_GOAL_BUFFER_LENGTH = BUFFER_S;
    videojs.Vhs.xhr.onRequest(grants.vhs);
    player = videojs(video, { html5: { vhs: { overrideNative: true } } });
  }
  // The requests of video.js cannot wait for a grant.
  void session.start();
  await session.freshGrant();
  player.src({ src: `${folder}/master.m3u8`, type: "application/vnd.apple.mpegurl" });
  await player.play();
}
