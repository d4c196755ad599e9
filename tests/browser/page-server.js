// HTTP server for the test pages: the demo, the player sources, and a page with one player. Its origin differs from the
// service's, as in most deployments. It also issues tokens.

import { createHmac } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { serveHttp } from "./http-server.js";

const root = new URL("../../", import.meta.url);
const testFolder = new URL("./", import.meta.url);
const DEMO_FOLDER = "src/http/pages/demo/";
const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8" };

export const SECRET = "a secret of the tests that is long enough";
export const ISSUER = "https://issuer.example";
export const AUDIENCE = "stream-manager";
// The service accepts a token for this long after it has expired, because the issuer's clock may differ.
const LEEWAY_S = 30;

/** A token that the service rejects after `validS` seconds. */
export function tokenFor(user, validS = 600) {
  const now = Math.floor(Date.now() / 1000);
  const encode = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
  const claims = { sub: user, iss: ISSUER, aud: AUDIENCE, iat: now - LEEWAY_S - 60, exp: now - LEEWAY_S + validS };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

// The URLs are the same as in the service: /demo/ contains the files of the page and of the player.
function fileFor(path) {
  if (path === "/demo") return new URL(`${DEMO_FOLDER}index.html`, root);
  if (/^\/(watch|crowd)\.html$|^\/(watch|crowd|silence)\.js$/.test(path)) return new URL(path.slice(1), testFolder);
  const name = /^\/demo\/([a-z-]+\.(css|js))$/.exec(path)?.[1];
  const candidates = name ? [`${DEMO_FOLDER}${name}`, `clients/web/src/${name}`].map((file) => new URL(file, root)) : [];
  return candidates.find((file) => existsSync(file));
}

export async function servePages() {
  /** Number of issued tokens, and validity of the next tokens in seconds. */
  const issued = { count: 0, validS: 600 };

  async function handle(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://pages");
    if (pathname === "/token") {
      issued.count += 1;
      return response.end(tokenFor(searchParams.get("user"), issued.validS));
    }
    if (pathname === "/elsewhere") return response.setHeader("Content-Type", TYPES.html).end("<!doctype html><title>Elsewhere</title>");
    const file = fileFor(pathname);
    if (!file) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[String(file).split(".").pop()] ?? TYPES.html);
    response.setHeader("Content-Security-Policy", POLICY);
    return response.end(await readFile(file));
  }

  return { ...(await serveHttp(handle)), issued };
}

// The policy of the service's demo page, except that `connect-src` also allows other origins, because the service has another origin.
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self' *",
  "media-src blob: mediastream:",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");
