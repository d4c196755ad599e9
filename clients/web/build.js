// Builds dist from src: one module for browsers and televisions of 2018 on, its types, and the licences beside it.
// Changes nothing else.

import { build } from "esbuild";
import { copyFile, readFile, rm } from "node:fs/promises";
import { gzipSync } from "node:zlib";

await rm("dist", { recursive: true, force: true });
await build({
  entryPoints: ["src/player.js"],
  outfile: "dist/player.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2018",
  banner: { js: "/* @stream-manager/player, MIT OR Apache-2.0 */" },
});
const built = await readFile("dist/player.js");
console.log(`dist/player.js: ${built.length} bytes, ${gzipSync(built).length} compressed`);
await copyFile("src/player.d.ts", "dist/player.d.ts");
// The package stands alone; the repository keeps one copy.
for (const licence of ["LICENSE-MIT", "LICENSE-APACHE"]) await copyFile(`../../${licence}`, licence);
