// Builds the package: writes one minified module for browsers since 2018, and its type declarations, to dist. Also copies
// the licences into the package.

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
// npm packs only files in this folder, but the licences are in the root of the repository.
for (const licence of ["LICENSE-MIT", "LICENSE-APACHE"]) await copyFile(`../../${licence}`, licence);
