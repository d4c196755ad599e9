// Plays HLS with hls.js, with a small buffer.

import Hls from "hls.js";
import { BUFFER_S } from "./buffer.js";

let hls;

export function play(video, folder, grants) {
  hls?.destroy();
  const buffer = { maxBufferLength: BUFFER_S, maxMaxBufferLength: BUFFER_S };
  hls = new Hls({ ...buffer, xhrSetup: grants.hls, licenseXhrSetup: grants.hlsLicense });
  hls.attachMedia(video);
  hls.loadSource(`${folder}/master.m3u8`);
  return video.play();
}

/** Plays on, whatever happens: repeats every failed request. */
export function playDeaf(video, folder, addGrant) {
  const retry = { maxNumRetry: 1000, retryDelayMs: 200, maxRetryDelayMs: 500 };
  const loadPolicy = { default: { maxTimeToFirstByteMs: 5000, maxLoadTimeMs: 10_000, timeoutRetry: retry, errorRetry: retry } };
  const policies = { fragLoadPolicy: loadPolicy, playlistLoadPolicy: loadPolicy, manifestLoadPolicy: loadPolicy };
  hls = new Hls({ maxBufferLength: BUFFER_S, maxMaxBufferLength: BUFFER_S, ...policies, xhrSetup: addGrant });
  hls.on(Hls.Events.ERROR, (_, { fatal }) => fatal && setTimeout(() => hls.startLoad(), 500));
  hls.attachMedia(video);
  hls.loadSource(`${folder}/master.m3u8`);
  return video.play();
}
