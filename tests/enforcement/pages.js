// Builds and serves the pages in page/, one for each player library, at `/?library=…`. Also serves the licence proxy at `/license`.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { serveHttp } from "../browser/http-server.js";

const root = new URL("../../", import.meta.url);
// scripts/test-libraries installs the libraries in target, so that the source tree has no node_modules.
const installed = fileURLToPath(new URL("target/libraries/", root));
const folder = fileURLToPath(new URL("page/", import.meta.url));
const { build } = createRequire(installed)("esbuild");

async function bundle(library) {
  const result = await build({
    entryPoints: [`${folder}main.js`],
    bundle: true,
    format: "esm",
    alias: { "@stream-manager/player": fileURLToPath(new URL("clients/web/src/player.js", root)), library: `${folder}${library}.js` },
    nodePaths: [`${installed}node_modules`],
    logLevel: "error",
    write: false,
  });
  return result.outputFiles[0].text;
}

const page = (library) => `<!doctype html>
<meta charset="utf-8"><title>${library}</title><link rel="icon" href="data:,">
<main><video muted playsinline></video></main>
<script type="module" src="/bundle.js?library=${library}"></script>`;

export async function servePages(licenseProxy) {
  const bundles = new Map();
  async function handle(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://pages");
    if (pathname === "/license") return licenseProxy.handle(request, response);
    const library = searchParams.get("library");
    if (pathname !== "/bundle.js") return response.setHeader("Content-Type", "text/html").end(page(library));
    if (!bundles.has(library)) bundles.set(library, bundle(library));
    return response.setHeader("Content-Type", "text/javascript").end(await bundles.get(library));
  }

  return serveHttp(handle);
}
