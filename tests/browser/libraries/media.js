// Silent media for the tests: AAC in fragmented MP4 as one file, as an HLS playlist and as a DASH manifest. This file generates
// the media, so that the repository contains no media files.

const SAMPLE_RATE = 48_000;
const SAMPLES_PER_FRAME = 1024;
const FRAMES_PER_SEGMENT = 96;
export const SEGMENTS = 15;
export const SEGMENT_S = (FRAMES_PER_SEGMENT * SAMPLES_PER_FRAME) / SAMPLE_RATE;
// One frame of silence: AAC-LC, one channel.
const FRAME = Buffer.from([0x00, 0xc8, 0x00, 0x80, 0x23, 0x80]);
const CODEC = "mp4a.40.2";

const u16 = (...values) => Buffer.from(values.flatMap((value) => [value >> 8, value & 255]));
const u32 = (...values) => Buffer.concat(values.map((value) => u16(value >>> 16, value & 0xffff)));
const zeros = (count) => Buffer.alloc(count);

export function box(type, ...contents) {
  const content = Buffer.concat(contents);
  return Buffer.concat([u32(content.length + 8), Buffer.from(type, "latin1"), content]);
}

const fullBox = (type, flags, ...contents) => box(type, u32(flags), ...contents);

function sampleEntry() {
  // Descriptors of ISO 14496-1. `specific` configures the decoder: AAC-LC (2) at 48 kHz (index 3) with one channel.
  const specific = Buffer.from([0x05, 2, 0x11, 0x88]);
  const config = Buffer.concat([Buffer.from([0x04, 13 + specific.length, 0x40, 0x15, 0, 0, 0]), u32(8000, 8000), specific]);
  const content = Buffer.concat([u16(1), Buffer.from([0]), config, Buffer.from([0x06, 1, 2])]);
  const esds = fullBox("esds", 0, Buffer.from([0x03, content.length]), content);
  return box("mp4a", zeros(6), u16(1), zeros(8), u16(1, 16), zeros(4), u16(SAMPLE_RATE, 0), esds);
}

function initSegment() {
  const matrix = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000);
  const tables = box(
    "stbl",
    fullBox("stsd", 0, u32(1), sampleEntry()),
    ...["stts", "stsc", "stco"].map((type) => fullBox(type, 0, u32(0))),
    fullBox("stsz", 0, u32(0, 0)),
  );
  const data = box("dinf", fullBox("dref", 0, u32(1), fullBox("url ", 1)));
  const media = box(
    "mdia",
    fullBox("mdhd", 0, u32(0, 0, SAMPLE_RATE, 0), u16(0x55c4, 0)),
    fullBox("hdlr", 0, u32(0), Buffer.from("soun"), zeros(12), Buffer.from("sound\0")),
    box("minf", fullBox("smhd", 0, u32(0)), data, tables),
  );
  const track = box("trak", fullBox("tkhd", 7, u32(0, 0, 1, 0, 0), zeros(8), u16(0, 0, 0x0100, 0), matrix, u32(0, 0)), media);
  const movie = fullBox("mvhd", 0, u32(0, 0, 1000, 0, 0x10000), u16(0x0100, 0), zeros(8), matrix, zeros(24), u32(2));
  return Buffer.concat([
    box("ftyp", Buffer.from("iso5"), u32(0), Buffer.from("iso5iso6mp41")),
    box("moov", movie, track, box("mvex", fullBox("trex", 0, u32(1, 1, 0, 0, 0)))),
  ]);
}

function mediaSegment(index) {
  const start = index * FRAMES_PER_SEGMENT * SAMPLES_PER_FRAME;
  // The data offset of `trun` is counted from the start of `moof`, so it depends on the size of `moof`.
  const fragment = (dataOffset) =>
    box(
      "moof",
      fullBox("mfhd", 0, u32(index + 1)),
      box(
        "traf",
        fullBox("tfhd", 0x020038, u32(1, SAMPLES_PER_FRAME, FRAME.length, 0x02000000)),
        fullBox("tfdt", 0, u32(start)),
        fullBox("trun", 1, u32(FRAMES_PER_SEGMENT, dataOffset)),
      ),
    );
  const moof = fragment(fragment(0).length + 8);
  return Buffer.concat([moof, box("mdat", ...Array(FRAMES_PER_SEGMENT).fill(FRAME))]);
}

const indexes = Array.from({ length: SEGMENTS }, (_, index) => index);

function playlist() {
  const lines = ["#EXTM3U", "#EXT-X-VERSION:7", `#EXT-X-TARGETDURATION:${Math.ceil(SEGMENT_S)}`, "#EXT-X-PLAYLIST-TYPE:VOD"];
  lines.push('#EXT-X-MAP:URI="init.mp4"', ...indexes.flatMap((index) => [`#EXTINF:${SEGMENT_S},`, `${index}.m4s`]), "#EXT-X-ENDLIST");
  return lines.join("\n");
}

function masterPlaylist() {
  return ["#EXTM3U", `#EXT-X-STREAM-INF:BANDWIDTH=8000,CODECS="${CODEC}"`, "audio.m3u8"].join("\n");
}

function manifest() {
  const duration = FRAMES_PER_SEGMENT * SAMPLES_PER_FRAME;
  return `<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011" type="static" minBufferTime="PT2S"
  mediaPresentationDuration="PT${SEGMENTS * SEGMENT_S}S">
  <Period><AdaptationSet mimeType="audio/mp4" codecs="${CODEC}" segmentAlignment="true" lang="en">
    <SegmentTemplate timescale="${SAMPLE_RATE}" duration="${duration}" startNumber="0" initialization="init.mp4" media="$Number$.m4s"/>
    <Representation id="audio" bandwidth="8000" audioSamplingRate="${SAMPLE_RATE}"/>
  </AdaptationSet></Period>
</MPD>`;
}

const HLS = "application/vnd.apple.mpegurl";

/** Returns `[media type, content]` for a file name, or undefined. */
export function mediaFile(name) {
  const segment = /^(\d+)\.m4s$/.exec(name)?.[1];
  if (segment && segment < SEGMENTS) return ["audio/mp4", mediaSegment(Number(segment))];
  if (name === "init.mp4") return ["audio/mp4", initSegment()];
  if (name === "all.mp4") return ["video/mp4", Buffer.concat([initSegment(), ...indexes.map(mediaSegment)])];
  if (name === "master.m3u8") return [HLS, masterPlaylist()];
  if (name === "audio.m3u8") return [HLS, playlist()];
  if (name === "manifest.mpd") return ["application/dash+xml", manifest()];
  return undefined;
}
