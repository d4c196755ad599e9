// Plays DASH with dash.js, with a small buffer.

import { MediaPlayer } from "dashjs";
import { BUFFER_S } from "./buffer.js";

const buffer = { bufferTimeDefault: BUFFER_S, bufferTimeAtTopQuality: BUFFER_S, bufferTimeAtTopQualityLongForm: BUFFER_S };
const player = MediaPlayer().create();
let isInitialized = false;

export function play(video, folder, grants, session) {
  if (!isInitialized) {
    isInitialized = true;
    player.initialize(video);
    player.updateSettings({ streaming: { buffer } });
    player.addRequestInterceptor(grants.dash);
    player.registerLicenseRequestFilter(grants.dashLicense);
  }
  void session.start();
  player.setProtectionData({ "org.w3.clearkey": { serverURL: `${location.origin}/license` } });
  player.attachSource(`${folder}/manifest.mpd`);
  return video.play();
}
