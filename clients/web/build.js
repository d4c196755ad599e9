// Builds the package into dist: a minified module, a minified script for browsers without modules, and the type declarations.
// Also copies the licences into the package.

import { build } from "esbuild";
import { copyFile, readFile, rm } from "node:fs/promises";
import { gzipSync } from "node:zlib";

// esbuild replaces syntax that is newer than the `target`, for example `??=` (ES2021), with older syntax.
const BUILDS = [
  { outfile: "dist/player.js", format: "esm", target: "es2017" },
  { outfile: "dist/player.script.js", format: "iife", globalName: "StreamManager", target: "es2015" },
];

await rm("dist", { recursive: true, force: true });
for (const options of BUILDS) {
  await build({
    entryPoints: ["src/player.js"],
    bundle: true,
    minify: true,
    banner: { js: "/* @stream-manager/player, MIT OR Apache-2.0 */" },
    ...options,
  });
  const built = await readFile(options.outfile);
  console.log(`${options.outfile}: ${built.length} bytes, ${gzipSync(built).length} compressed`);
}
await copyFile("src/player.d.ts", "dist/player.d.ts");
// npm packs only files in this folder, but the licences are in the root of the repository.
for (const licence of ["LICENSE-MIT", "LICENSE-APACHE"]) await copyFile(`../../${licence}`, licence);
