// Media for the test pages.

/** Returns one minute of silence as a WAV file. The pages use no canvas stream, because it would disable the back/forward cache. */
export function createSilence() {
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
