// Builds one page for each example in clients/web/README.md. The page runs the unchanged example with the real library from npm.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { serveHttp } from "../http-server.js";
import { mediaFile } from "./media.js";

const root = new URL("../../../", import.meta.url);
// scripts/test-libraries installs the libraries in target, so that the source tree has no node_modules.
const installed = fileURLToPath(new URL("target/libraries/", root));
const { build } = createRequire(installed)("esbuild");

/** Returns the code block of the README that imports this library. */
async function exampleOf(library) {
  const readme = await readFile(new URL("clients/web/README.md", root), "utf8");
  const blocks = [...readme.matchAll(/```jsx?\n(.*?)```/gs)].map(([, code]) => code);
  const found = blocks.filter((code) => code.includes(`from "${library}"`));
  if (found.length !== 1) throw new Error(`${found.length} examples import ${library}`);
  return found[0];
}

// The examples use the variables `video` and `options`, which the page defines. REACT_MAIN passes `options` and the movie as props.
const MAIN = `
import * as example from "example";
window.example = example;
window.dispatchEvent(new Event("example"));
`;

const REACT_MAIN = `
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Video } from "example";
document.querySelector("video").remove();
const root = createRoot(document.querySelector("main"));
const render = (movie) => root.render(movie && <StrictMode><Video movie={movie} options={options} /></StrictMode>);
window.example = { play: render, unmount: () => render(null) };
`;

async function bundle(library) {
  const code = await exampleOf(library);
  const result = await build({
    stdin: { contents: library === "react" ? REACT_MAIN : MAIN, resolveDir: installed, loader: "jsx" },
    bundle: true,
    format: "esm",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"development"' },
    alias: { "@stream-manager/player": fileURLToPath(new URL("clients/web/src/player.js", root)) },
    logLevel: "error",
    write: false,
    plugins: [
      {
        name: "example",
        setup(hooks) {
          hooks.onResolve({ filter: /^example$/ }, () => ({ path: library, namespace: "example" }));
          hooks.onLoad({ filter: /.*/, namespace: "example" }, () => ({ contents: code, loader: "jsx", resolveDir: installed }));
        },
      },
    ],
  });
  return result.outputFiles[0].text;
}

const page = (library, query) => `<!doctype html>
<meta charset="utf-8"><title>${library}</title><link rel="icon" href="data:,">
<main><video muted playsinline></video></main>
<script>
  window.video = document.querySelector("video");
  window.options = { baseUrl: ${JSON.stringify(query.get("api"))}, userName: ${JSON.stringify(query.get("user"))} };
</script>
<script type="module" src="/bundle.js?library=${encodeURIComponent(library)}"></script>`;

/** Serves a page for each library at `/?library=…&api=…&user=…`, and the media at `/media/<content>/<file>`. */
export async function serveExamples() {
  async function handle(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://pages");
    const library = searchParams.get("library");
    if (pathname === "/bundle.js") return response.setHeader("Content-Type", "text/javascript").end(await bundle(library));
    if (pathname === "/") return response.setHeader("Content-Type", "text/html").end(page(library, searchParams));
    const [type, content] = mediaFile(pathname.split("/").at(-1)) ?? [];
    if (!type) return response.writeHead(404).end();
    return response.setHeader("Content-Type", type).end(content);
  }

  return serveHttp(handle);
}
