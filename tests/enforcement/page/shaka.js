// Plays DASH with Shaka Player, with a small buffer.

import shaka from "shaka-player";
import { BUFFER_S } from "./buffer.js";

const player = new shaka.Player();

export async function play(video, folder, grants, session) {
  if (!player.getMediaElement()) {
    const drm = { servers: { "org.w3.clearkey": `${location.origin}/license` } };
    player.configure({ streaming: { bufferingGoal: BUFFER_S, rebufferingGoal: 1 }, drm });
    player.getNetworkingEngine().registerRequestFilter(grants.shaka);
    await player.attach(video);
  }
  void session.start();
  await player.load(`${folder}/manifest.mpd`);
  await video.play();
}
