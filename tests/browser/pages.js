// A small server of the pages: the demo's files, the player's, and a page with a single player. It is another origin than the
// service's, as it is for most who use it. It also makes tokens, as an issuer would.

import { createHmac } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer } from "node:http";

const root = new URL("../../", import.meta.url);
const here = new URL("./", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8" };

export const SECRET = "a secret of the tests that is long enough";
export const ISSUER = "https://issuer.example";
export const AUDIENCE = "stream-manager";
// What the service allows the issuer's clock to be off.
const LEEWAY_S = 30;

/** Valid for `forS` seconds, by the service's own reckoning. */
export function tokenFor(user, forS = 600) {
  const now = Math.floor(Date.now() / 1000);
  const encode = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
  const claims = { sub: user, iss: ISSUER, aud: AUDIENCE, iat: now - LEEWAY_S - 60, exp: now - LEEWAY_S + forS };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

// As the service has them: the page's own files, and the player's sources.
function fileOf(path) {
  if (path === "/demo") return new URL("src/http/demo/index.html", root);
  if (/^\/watch(\.html|\.js)$/.test(path)) return new URL(path.slice(1), here);
  const name = /^\/demo\/([a-z]+\.(css|js))$/.exec(path)?.[1];
  const places = name ? [`src/http/demo/${name}`, `clients/web/src/${name}`].map((place) => new URL(place, root)) : [];
  return places.find((place) => existsSync(place));
}

/** `connect()` says which origins the pages may call, as the service's own policy says "self". */
export async function servePages(connect = () => "*") {
  // How long the next tokens are valid.
  const issued = { count: 0, forS: 600 };

  async function answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://pages");
    if (pathname === "/token") {
      issued.count += 1;
      return response.end(tokenFor(searchParams.get("user"), issued.forS));
    }
    if (pathname === "/elsewhere") return response.setHeader("Content-Type", TYPES.html).end("<!doctype html><title>Elsewhere</title>");
    const file = fileOf(pathname);
    if (!file) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[String(file).split(".").pop()] ?? TYPES.html);
    response.setHeader("Content-Security-Policy", policy(connect()));
    return response.end(await readFile(file));
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.writeHead(500).end(String(error)));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");

  async function stop() {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  }

  return { url: `http://127.0.0.1:${server.address().port}`, issued, stop };
}

// The demo's own, but for whom it may call.
function policy(connect) {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    `connect-src 'self' ${connect}`,
    "media-src blob: mediastream:",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}
