// Plays real HLS and DASH through nginx in Chromium, with the real player libraries: players that keep the rule are never refused, and
// a player that ignores the service stops within one lease.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { after, before, test } from "node:test";
import { eventually, startService } from "../browser/service.js";
import { createKey } from "./grants.js";
import { MEDIA_HOST, PAGE, startGateway } from "./gateways.js";
import { createLicenseProxy } from "./license-proxy.js";
import { createMedia, SEGMENT_S } from "./media.js";
import { BUFFER_S } from "./page/buffer.js";
import { servePages } from "./pages.js";

const { chromium } = createRequire(new URL("../../target/browser/", import.meta.url))("playwright-core");
const LEASE_S = 6;
// Decoding, timers and the last request of a busy machine.
const TOLERANCE_S = 3;
// Longer than two leases, so that a player without renewals would be refused.
const PLAY_S = 14;

let folder;
let licenseProxy;
let pages;
let service;
let gateway;
let browser;

before(async () => {
  const media = await createMedia();
  folder = await mkdtemp(join(tmpdir(), "stream-manager-playback-"));
  const keyFile = join(folder, "key.pem");
  await writeFile(keyFile, createKey().privatePem);
  service = await startService({
    CORS__ALLOWED_ORIGINS: PAGE,
    LEASE__DURATION_S: LEASE_S,
    LEASE__HEARTBEAT_INTERVAL_S: 2,
    LIMITS__STREAMS_PER_USER: 1,
    GRANTS__ALGORITHM: "ES256",
    GRANTS__KEY_FILE: keyFile,
    GRANTS__CONTENT_PATH: "/media/{content}/",
  });
  licenseProxy = createLicenseProxy({ service: service.url, content: "encrypted" });
  pages = await servePages(licenseProxy);
  gateway = await startGateway("nginx", { media, service: service.url, pages: pages.url });
  // Both hosts are on the port of nginx. Their certificate is self-signed.
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--ignore-certificate-errors",
      "--autoplay-policy=no-user-gesture-required", `--host-resolver-rules=MAP *.example.com:443 127.0.0.1:${gateway.port}`,
    ],
  });
});

after(async () => {
  await browser?.close();
  await Promise.all([gateway?.stop(), service?.stop(), pages?.stop()]);
  await rm(folder, { recursive: true, force: true });
});

let users = 0;

async function open(library, parameters) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const tab = await context.newPage();
  const failures = [];
  tab.on("pageerror", (error) => failures.push(String(error)));
  const user = `viewer ${process.pid}/${(users += 1)}`;
  const query = new URLSearchParams({ library, api: "", user, media: `https://${MEDIA_HOST}`, ...parameters });
  const logged = (await gateway.readLog()).length;
  await tab.goto(`${PAGE}/?${query}`);
  await tab.waitForFunction(() => window.watched);
  const state = () => tab.evaluate(() => window.watched.state());

  return {
    tab,
    user,
    failures,
    state,
    /** Does not wait, because the promises of the libraries differ. */
    play: (content = "first") => tab.evaluate((id) => void Promise.resolve(window.watched.play(id)).catch(() => {}), content),
    /** Waits until the picture has moved by this many seconds. */
    async moves(seconds, timeoutMs = 40_000) {
      const { time } = await state();
      await eventually(`the picture moves ${seconds} s`, async () => {
        const now = await state();
        return now.time >= time + seconds || { time, now, failures, log: (await gateway.readLog()).slice(logged).split("\n").slice(-8) };
      }, timeoutMs);
    },
    /** The requests for media since the page was opened, as `[path, status]`. */
    async requests() {
      const lines = (await gateway.readLog()).slice(logged).trim().split("\n");
      return lines.map((line) => /"GET (.*)" (\d+) /.exec(line)).filter(Boolean).map(([, path, status]) => [path, Number(status)]);
    },
    close: () => context.close(),
  };
}

const countRefused = (requests) => requests.filter(([, status]) => status >= 400).length;

for (const [library, send] of [
  ["hls", "query"],
  ["hls", "header"],
  ["hls", "cookie"],
  ["shaka", "query"],
  ["shaka", "cookie"],
  ["dash", "query"],
  ["dash", "header"],
  ["video", "query"],
  ["video", "cookie"],
]) {
  test(`${library} with the grant in the ${send} is never refused`, async () => {
    const viewer = await open(library, { send });
    try {
      await viewer.play("first");
      await viewer.moves(PLAY_S);
      const requests = await viewer.requests();
      assert.deepEqual(requests.filter(([, status]) => status >= 400), []);
      const segments = requests.map(([path]) => path).filter((path) => path.endsWith(".m4s"));
      assert.ok(segments.length > PLAY_S / SEGMENT_S, `${segments.length} segments`);
      assert.deepEqual(segments.filter((path, index) => segments.indexOf(path) !== index), [], "no segment is requested twice");
      assert.deepEqual(viewer.failures, []);
    } finally {
      await viewer.close();
    }
  });
}

for (const library of ["hls", "shaka", "dash", "video"]) {
  test(`${library} is not refused after a change of the content`, async () => {
    const viewer = await open(library, {});
    try {
      await viewer.play("first");
      await viewer.moves(1);
      await viewer.play("second");
      await eventually("the second content plays", async () => {
        const requested = (await viewer.requests()).filter(([path]) => path.includes("/second/"));
        return requested.length > 4 || requested;
      });
      await viewer.moves(1);
      assert.equal(countRefused((await viewer.requests()).filter(([path]) => path.includes("/second/"))), 0);
    } finally {
      await viewer.close();
    }
  });
}

for (const library of ["shaka", "dash"]) {
  test(`${library} sends the grant with licence requests`, async () => {
    licenseProxy.requests.length = 0;
    const viewer = await open(library, {});
    try {
      await viewer.play("encrypted");
      await viewer.moves(2);
      const { grant } = await viewer.state();
      assert.deepEqual(new Set(licenseProxy.requests.map(({ status }) => status)), new Set([200]));
      assert.match(licenseProxy.requests[0].authorization, /^Bearer \S+\.\S+\.\S+$/);
      // The content of the key is in the check, and not in the path.
      const request = (authorization) => fetch(`${pages.url}/license`, { method: "POST", headers: authorization });
      assert.equal((await request({ Authorization: `Bearer ${grant}` })).status, 200);
      assert.equal((await request({})).status, 401);
      await viewer.play("first");
      await viewer.moves(1);
      assert.equal((await request({ Authorization: `Bearer ${(await viewer.state()).grant}` })).status, 401);
    } finally {
      await viewer.close();
    }
  });
}

test("an evicted player that keeps the rule is never refused", async () => {
  const viewer = await open("hls", {});
  try {
    await viewer.play();
    await viewer.moves(2);
    await evictByAnotherDevice(viewer.user);
    await eventually("the player pauses", async () => (await viewer.state()).paused);
    // Every grant of the evicted stream, and the lease of the other device, has then expired. A request in this time would be refused.
    await sleep((LEASE_S + TOLERANCE_S) * 1000);
    assert.equal(countRefused(await viewer.requests()), 0);
    await viewer.tab.evaluate(() => void window.watched.video.play());
    await viewer.moves(BUFFER_S + 2 * SEGMENT_S);
    assert.equal(countRefused(await viewer.requests()), 0);
  } finally {
    await viewer.close();
  }
});

async function evictByAnotherDevice(user) {
  const url = `${service.url}/v1/users/${encodeURIComponent(user)}/streams`;
  const body = JSON.stringify({ deviceId: "another device", atLimit: "evictOldest" });
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  assert.equal(response.status, 201);
}

test("a deaf player stops within one lease and its buffer", async (t) => {
  const viewer = await open("hls", { deaf: "" });
  try {
    await viewer.play();
    await viewer.moves(LEASE_S + 2);
    const { grant } = await viewer.state();
    await evictByAnotherDevice(viewer.user);
    const evictedMs = Date.now();
    // Longer than a segment and a stall between retries (0.5 s), so the picture does not only pause.
    await eventually("the picture stops", async () => Date.now() - (await viewer.state()).movedMs > 4000);
    const { movedMs, time } = await viewer.state();
    const playedS = (movedMs - evictedMs) / 1000;
    t.diagnostic(`the picture moved for ${playedS.toFixed(1)} s after the eviction`);
    // The expiry of a grant is rounded up to a second.
    assert.ok(playedS < LEASE_S + 1 + BUFFER_S + SEGMENT_S + TOLERANCE_S, `${playedS} s`);
    assert.ok((await viewer.requests()).some(([, status]) => status === 401), "the player still requests media");
    // Several retries of the deaf player (at most 0.5 s apart) must fail too.
    await sleep(3000);
    assert.equal((await viewer.state()).time, time, "the picture does not move again");
    const leaked = async (path, headers = {}) => (await gateway.get(path, { headers })).status;
    assert.equal(await leaked(`/media/first/master.m3u8?grant=${grant}`), 401, "after its expiry");
  } finally {
    await viewer.close();
  }
});

test("a leaked grant opens only its own content", async () => {
  const viewer = await open("hls", {});
  try {
    await viewer.play();
    await viewer.moves(1);
    const { grant } = await viewer.state();
    const status = async (path) => (await gateway.get(`${path}?grant=${grant}`)).status;
    assert.equal(await status("/media/first/master.m3u8"), 200);
    assert.equal(await status("/media/second/master.m3u8"), 401);
  } finally {
    await viewer.close();
  }
});
