// Makes real media with ffmpeg: one movie as HLS and as DASH, which share their segments. Keeps it in target/enforcement. Also writes
// encrypted audio.

import { execFile } from "node:child_process";
import { cp, mkdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { writeEncrypted } from "./encrypted.js";

const MOVIE_S = 60;
export const SEGMENT_S = 2;
const FOLDER = fileURLToPath(new URL("../../target/enforcement/media-root/", import.meta.url));
const run = promisify(execFile);

/** Returns the folder with `media/<content>/master.m3u8` and `media/<content>/manifest.mpd` for the contents "first" and "second". "encrypted" has only DASH. */
export async function createMedia() {
  const first = join(FOLDER, "media/first");
  await writeEncrypted(join(FOLDER, "media/encrypted"));
  const exists = await stat(join(FOLDER, "media/second")).then(() => true, () => false);
  if (exists) return FOLDER;
  await rm(first, { recursive: true, force: true });
  await mkdir(first, { recursive: true });
  const framesPerSecond = 10;
  const sources = ["-f", "lavfi", "-i", `testsrc2=size=320x180:rate=${framesPerSecond}`, "-f", "lavfi", "-i", "sine=frequency=440"];
  const gop = `${framesPerSecond * SEGMENT_S}`;
  const keyFrames = ["-g", gop, "-keyint_min", gop, "-sc_threshold", "0"];
  const video = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "200k", ...keyFrames];
  const output = ["-f", "dash", "-seg_duration", `${SEGMENT_S}`, "-hls_playlist", "1", "-adaptation_sets", "id=0,streams=v id=1,streams=a"];
  const all = ["-loglevel", "error", ...sources, "-t", `${MOVIE_S}`, ...video, "-c:a", "aac", ...output, join(first, "manifest.mpd")];
  await run("ffmpeg", all);
  // Rename the copy at the end, so that an interrupted run does not leave incomplete media.
  await cp(first, `${FOLDER}copy`, { recursive: true });
  await rename(`${FOLDER}copy`, join(FOLDER, "media/second"));
  return FOLDER;
}
