// Media with DRM: the silent audio of tests/browser/libraries as DASH, encrypted for the key system Clear Key, which Chromium contains.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { box, mediaFile, SEGMENTS } from "../browser/libraries/media.js";

export const KEY_ID = Buffer.from("101112131415161718191a1b1c1d1e1f", "hex");
export const KEY = Buffer.from("000102030405060708090a0b0c0d0e0f", "hex");
const CONTAINERS = ["moov", "trak", "mdia", "minf", "stbl"];
const UUID = KEY_ID.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
const PROTECTION = `<ContentProtection schemeIdUri="urn:mpeg:dash:mp4protection:2011" value="cbcs" cenc:default_KID="${UUID}"/>
<ContentProtection schemeIdUri="urn:uuid:e2719d58-a985-b3c9-781a-b030af78d30e"/>`;

function* boxesOf(buffer) {
  for (let at = 0; at < buffer.length; at += buffer.readUInt32BE(at)) {
    yield [buffer.toString("latin1", at + 4, at + 8), buffer.subarray(at + 8, at + buffer.readUInt32BE(at))];
  }
}

/**
 * Marks the audio as encrypted with the scheme `cbcs`. It encrypts only whole blocks of 16 bytes, so the frames of 6 bytes stay as they
 * are. The browser still needs the key before it plays.
 */
function protect(buffer) {
  const all = [...boxesOf(buffer)].map(([type, content]) => {
    if (CONTAINERS.includes(type)) return box(type, protect(content));
    if (type !== "stsd") return box(type, content);
    const [[, entry]] = boxesOf(content.subarray(8));
    const iv = Buffer.alloc(16);
    const tenc = box("tenc", Buffer.from([1, 0, 0, 0, 0, 0, 1, 0]), KEY_ID, Buffer.from([iv.length]), iv);
    const scheme = box("schm", Buffer.alloc(4), Buffer.from("cbcs"), Buffer.from([0, 1, 0, 0]));
    const sinf = box("sinf", box("frma", Buffer.from("mp4a")), scheme, box("schi", tenc));
    return box("stsd", content.subarray(0, 8), box("enca", entry, sinf));
  });
  return Buffer.concat(all);
}

/** Writes the manifest and the segments. */
export async function writeEncrypted(folder) {
  await mkdir(folder, { recursive: true });
  const manifest = mediaFile("manifest.mpd")[1];
  const encrypted = manifest
    .replace("<MPD ", '<MPD xmlns:cenc="urn:mpeg:cenc:2013" ')
    .replace("<SegmentTemplate", `${PROTECTION}<SegmentTemplate`);
  await writeFile(join(folder, "manifest.mpd"), encrypted);
  await writeFile(join(folder, "init.mp4"), protect(mediaFile("init.mp4")[1]));
  for (let index = 0; index < SEGMENTS; index += 1) await writeFile(join(folder, `${index}.m4s`), mediaFile(`${index}.m4s`)[1]);
}
