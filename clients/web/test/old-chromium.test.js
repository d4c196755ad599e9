// Runs both builds in dist in old browsers against a running service. OLD_CHROMIUM is a list of executables (scripts/old-chromium),
// and STREAM_MANAGER_URL is the URL of the service. Without both, the tests are skipped. `npm test` creates the builds before it runs
// the tests.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "esbuild";

const browsers = process.env.OLD_CHROMIUM?.split(/\s+/).filter(Boolean) ?? [];
const service = process.env.STREAM_MANAGER_URL;
const skip = browsers.length > 0 && service ? false : "OLD_CHROMIUM or STREAM_MANAGER_URL is not set";
// Longer than the timeout of the page (old-chromium/page.js).
const REPORT_TIMEOUT_MS = 90_000;
const STOP_TIMEOUT_MS = 30_000;
const folder = new URL("./", import.meta.url);
const root = new URL("../", folder);

const reports = new Map();
let server;
let display;
let scripts;

before(async () => {
  if (skip) return;
  const pageScript = await readFile(new URL("old-chromium/page.js", folder), "utf8");
  const bundle = await build({
    stdin: { contents: `import { attach } from "./dist/player.js"; run(attach);`, resolveDir: root.pathname },
    bundle: true,
    format: "iife",
    // Do not transpile the module, so that the test runs its syntax unchanged.
    target: "esnext",
    write: false,
  });
  scripts = {
    "script.js": `${pageScript}\n${await readFile(new URL("dist/player.script.js", root), "utf8")}\nrun(StreamManager.attach);`,
    "bundle.js": `${pageScript}\n${bundle.outputFiles[0].text}`,
    "module.js": `import { attach } from "./player.js";\n${pageScript}\nrun(attach);`,
    "player.js": await readFile(new URL("dist/player.js", root), "utf8"),
  };
  server = createServer((request, response) => handle(request, response).catch((error) => response.writeHead(500).end(String(error))));
  await once(server.listen(0, "127.0.0.1"), "listening");
  display = await startDisplay();
});

after(async () => {
  if (skip) return;
  server.closeAllConnections();
  server.close();
  display.child.kill();
});

/** Starts an X server on a free display. */
async function startDisplay() {
  const child = spawn("Xvfb", ["-displayfd", "3", "-screen", "0", "320x240x24", "-nolisten", "tcp"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const [number] = await once(child.stdio[3], "data");
  return { child, name: `:${String(number).trim()}` };
}

async function handle(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://pages");
  let body = "";
  for await (const data of request) body += data;
  if (pathname.startsWith("/v1/")) return forward(request, body, response);
  if (pathname === "/report") {
    // List the streams before the response, because the page navigates away when it receives the response.
    const user = searchParams.get("user");
    reports.get(user)({ report: JSON.parse(body), listed: await streamsOf(user) });
    return response.end();
  }
  if (pathname === "/silence.wav") return response.setHeader("Content-Type", "audio/wav").end(silence(20));
  const script = scripts[pathname.slice(1)];
  if (script) return response.setHeader("Content-Type", "text/javascript").end(script);
  const name = searchParams.get("build");
  response.setHeader("Content-Type", "text/html");
  if (!name) return response.end("<title>Elsewhere</title>");
  return response.end(`<video></video><script ${name === "module" ? "type=module" : ""} src="${name}.js"></script>`);
}

// Forwards API requests, so that the page and the service have the same origin.
async function forward({ method, url, headers }, body, response) {
  const kept = ["content-type", "authorization", "idempotency-key"].filter((name) => headers[name]);
  const init = { method, headers: Object.fromEntries(kept.map((name) => [name, headers[name]])), body: body || undefined };
  const answer = await fetch(`${service}${url}`, init);
  response.writeHead(answer.status, { "Content-Type": answer.headers.get("content-type") ?? "text/plain" });
  response.end(Buffer.from(await answer.arrayBuffer()));
}

/** A WAV file with one channel and 8000 samples of one byte per second. */
function silence(seconds) {
  const header = Buffer.alloc(44);
  header.write("RIFF    WAVEfmt ", "latin1");
  header.writeUInt32LE(36 + seconds * 8000, 4);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(8000, 24);
  header.writeUInt32LE(8000, 28);
  header.writeUInt16LE(1, 32);
  header.writeUInt16LE(8, 34);
  header.write("data", 36, "latin1");
  header.writeUInt32LE(seconds * 8000, 40);
  return Buffer.concat([header, Buffer.alloc(seconds * 8000, 128)]);
}

const streamsOf = async (user) => (await (await fetch(`${service}/v1/users/${user}/streams`)).json()).streams;

/** Waits until a stream has ended, and returns its status: 404 after a stop, 410 after its lease expired. */
async function endedStatus(user, { streamId }) {
  for (const endMs = Date.now() + STOP_TIMEOUT_MS; ; await sleep(50)) {
    const { status } = await fetch(`${service}/v1/users/${user}/streams/${streamId}`);
    if (status !== 200 || Date.now() > endMs) return status;
  }
}

// Retries, because a browser sometimes fails to start on a busy machine.
async function play(browser, name) {
  for (let attemptsLeft = 2; ; attemptsLeft -= 1) {
    const result = await tryToPlay(browser, name);
    if (result.report || attemptsLeft === 0) return result;
  }
}

async function tryToPlay(browser, name) {
  const user = `old-${crypto.randomUUID()}`;
  const reported = new Promise((resolve) => reports.set(user, resolve));
  const env = {
    ...process.env,
    DISPLAY: display.name,
    QT_QPA_PLATFORM: "xcb",
    QTWEBENGINE_DISABLE_SANDBOX: "1",
    QTWEBENGINE_CHROMIUM_FLAGS: "--no-sandbox --disable-gpu",
  };
  const url = `http://127.0.0.1:${server.address().port}/?build=${name}&user=${user}`;
  const child = execFile(browser, [url], { env }, () => {});
  const failed = sleep(REPORT_TIMEOUT_MS, {}, { ref: false });
  try {
    const { report, listed } = await Promise.race([reported, failed]);
    return { report, listed, status: listed?.length === 1 ? await endedStatus(user, listed[0]) : undefined };
  } finally {
    child.kill("SIGKILL");
  }
}

for (const browser of browsers.length > 0 ? browsers : [""]) {
  const qt = browser.split("/").at(-5);
  // `bundle` is the module build, bundled into an application's script. Qt 5.9 contains Chromium 56, which does not support modules.
  for (const name of qt === "5.9.2" ? ["script", "bundle"] : ["script", "bundle", "module"]) {
    test(`${name} build in Qt ${qt}`, { skip, timeout: 600_000 }, async (t) => {
      const { report, listed, status } = await play(browser, name);
      assert.ok(report, "the page reports");
      t.diagnostic(report.userAgent);
      assert.equal(report.error, undefined);
      assert.equal(report.playing, true);
      assert.match(report.deviceId, /^[0-9a-f-]{36}$/);
      assert.deepEqual(report.events.slice(0, 3), ["starting", "live", "started"]);
      assert.ok(report.events.slice(3).every((type) => type === "renewed"), report.events.join());
      assert.equal(listed.length, 1);
      assert.deepEqual([listed[0].deviceName, listed[0].contentId], ["Television", "second"]);
      assert.equal(status, 404, "leaving the page stops the stream");
    });
  }
}
