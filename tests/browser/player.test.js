// Tests the player package in a browser, against the service's binary on another origin.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { BROWSER, closeTab, launch, newUser, skipIn, watch } from "./browser.js";
import { AUDIENCE, ISSUER, SECRET, servePages, tokenFor } from "./page-server.js";
import { eventually, SHORT_LEASE, startService } from "./service.js";

let browser;
let pages;
let service;
let shortLease;

before(async () => {
  pages = await servePages();
  const settings = { CORS__ALLOWED_ORIGINS: pages.url };
  [service, shortLease] = await Promise.all([startService(settings), startService({ ...settings, ...SHORT_LEASE })]);
  browser = await launch();
});

after(async () => {
  await Promise.all([browser?.close(), service?.stop(), shortLease?.stop(), pages?.stop()]);
});

/** A test with its own browser context and user. */
function browserTest(name, steps, options = {}) {
  test(name, options, async () => {
    const context = await browser.newContext();
    const user = newUser();
    const open = (options) => watch(context, { pages, service, user, ...options });
    try {
      await steps({ context, user, open });
    } finally {
      await context.close();
    }
  });
}

const expectCount = (user, count, on = service) =>
  eventually(`${user} has ${count} streams`, async () => (await on.count(user)) === count || on.streams(user));

describe("a player in a browser", { concurrency: 3 }, () => {
  browserTest("heartbeats keep the slot past the first lease", async ({ user, open }) => {
    const tv = await open({ service: shortLease, name: "TV" });
    const { streamId } = await tv.waitFor("started");
    const [first] = await shortLease.streams(user);
    assert.equal(first.streamId, streamId);
    assert.equal(first.deviceName, "TV");
    await eventually("the first lease has expired", () => Date.now() > Date.parse(first.expiresAt));
    const [now] = await shortLease.streams(user);
    assert.equal(now?.streamId, streamId);
    assert.ok(now.expiresAt > first.expiresAt);
    assert.ok((await tv.events()).every(({ type }) => ["started", "renewed"].includes(type)));
  });

  browserTest("a reload takes over its own slot", async ({ user, open }) => {
    const tab = await open();
    const { streamId } = await tab.waitFor("started");
    const [{ deviceId }] = await service.streams(user);
    await tab.page.reload();
    const again = await tab.waitFor("started");
    assert.notEqual(again.streamId, streamId);
    const streams = await service.streams(user);
    assert.deepEqual(streams.map((stream) => [stream.streamId, stream.deviceId]), [[again.streamId, deviceId]]);
  });

  browserTest("closing the tab frees the slot", async ({ user, open }) => {
    // Firefox sometimes aborts page scripts while it closes a tab, so the test closes several tabs.
    const [tab, tabs] = BROWSER === "firefox" ? [true, 12] : [false, 1];
    const play = async () => {
      const tv = await open({ tab });
      return { page: tv.page, ...(await tv.waitFor("started")) };
    };
    for (let closed = 0; closed < tabs; closed += 1) {
      await closeTab(play, async (streamId) => (await service.streamStatus(user, streamId))[0] === 404);
    }
  });

  browserTest("leaving the page frees the slot, returning takes another", async ({ user, open }) => {
    const tab = await open();
    let { streamId } = await tab.waitFor("started");
    // A browser may remove a page from its back/forward cache at any time, for example if memory is low. `goBack` then loads the page
    // again, so the test makes several attempts.
    let isFromCache = false;
    for (let attempt = 0; attempt < 5 && !isFromCache; attempt += 1) {
      await tab.page.evaluate(() => (window.marker = true));
      await tab.page.goto(`${pages.url}/elsewhere`);
      await expectCount(user, 0);
      assert.equal((await service.streamStatus(user, streamId))[0], 404);
      await tab.page.goBack({ waitUntil: "commit" });
      await expectCount(user, 1);
      await eventually("the player plays", tab.isPlaying);
      const [stream] = await service.streams(user);
      assert.notEqual(stream.streamId, streamId);
      streamId = stream.streamId;
      isFromCache = await tab.page.evaluate(() => window.marker === true);
    }
    assert.ok(isFromCache, "the page never came from the back/forward cache");
  });

  browserTest("each tab is another device", async ({ user, open }) => {
    const tabs = [await open(), await open()];
    for (const tab of tabs) await tab.waitFor("started");
    const ids = (await service.streams(user)).map(({ deviceId }) => deviceId);
    assert.equal(new Set(ids).size, 2);
  });

  browserTest("a denied player plays after it stops another stream", async ({ user, open }) => {
    const first = await service.start(user, "Cinema");
    for (const name of ["Kitchen", "Cellar"]) await service.start(user, name);
    const phone = await open({ name: "Phone" });
    await phone.waitFor("denied");
    assert.equal(await phone.isPlaying(), false);
    await phone.page.evaluate((id) => window.watched.player.session.stopOther(id), first.streamId);
    await phone.page.evaluate(() => window.watched.player.session.retry());
    await phone.waitFor("started");
    await eventually("the player plays", phone.isPlaying);
    assert.deepEqual(await service.streamStatus(user, first.streamId), [410, "evicted"]);
  });

  browserTest("an evicted player pauses and does not restart", async ({ user, open }) => {
    const tv = await open({ name: "TV" });
    const { streamId } = await tv.waitFor("started");
    await service.evict(user, streamId);
    const ended = await tv.waitFor("ended");
    assert.equal(ended.reason, "evicted");
    await eventually("the player pauses", async () => !(await tv.isPlaying()));
    assert.equal(await service.count(user), 0);
    // The library ignores a `play` within 200 ms after its own pause, so the test repeats the call.
    await eventually("the user plays again", async () => {
      await tv.page.evaluate(() => window.watched.video.play().catch(String));
      return (await service.count(user)) === 1;
    });
  });

  test("an offline player keeps playing and restarts when online", skipIn({ webkit: "its driver cannot set it offline" }), async () => {
    // Firefox can only set the whole browser offline, so this test needs its own browser.
    const own = await launch();
    try {
      const user = newUser();
      const context = await own.newContext();
      const tv = await watch(context, { pages, service: shortLease, user });
      await tv.waitFor("started");
      await context.setOffline(true);
      await tv.waitFor("unavailable");
      await expectCount(user, 0, shortLease);
      assert.equal(await tv.isPlaying(), true);
      await context.setOffline(false);
      await tv.waitFor("restarted");
      assert.equal(await tv.isPlaying(), true);
      assert.equal(await shortLease.count(user), 1);
    } finally {
      await own.close();
    }
  });

  browserTest("a player of a disallowed origin keeps playing", async ({ context, user }) => {
    const otherOrigin = await startService({ CORS__ALLOWED_ORIGINS: "https://other.example" });
    try {
      const tv = await watch(context, { pages, service: otherOrigin, user });
      const { code } = await tv.waitFor("unavailable");
      assert.equal(code, "no-answer");
      assert.equal(await tv.isPlaying(), true);
    } finally {
      await otherOrigin.stop();
    }
  });

  browserTest("a restarted service keeps the player's stream", async ({ context, user }) => {
    const folder = await mkdtemp(join(tmpdir(), "stream-manager-browser-"));
    const settings = {
      CORS__ALLOWED_ORIGINS: pages.url,
      STORE__KIND: "embedded",
      EMBEDDED__PATH: join(folder, "streams.db"),
    };
    let durable = await startService(settings);
    try {
      const tv = await watch(context, { pages, service: durable, user });
      const { streamId } = await tv.waitFor("started");
      await durable.stop("SIGKILL");
      await tv.waitFor("unavailable");
      assert.equal(await tv.isPlaying(), true);
      durable = await startService({ ...settings, port: durable.port });
      await tv.waitFor("available");
      assert.equal(await tv.isPlaying(), true);
      assert.equal(await tv.streamId(), streamId);
      assert.deepEqual((await durable.streams(user)).map((stream) => stream.streamId), [streamId]);
    } finally {
      await durable.stop();
      await rm(folder, { recursive: true });
    }
  });

  browserTest("an expired token is replaced without interrupting playback", async ({ context, user }) => {
    const secured = await startService({
      CORS__ALLOWED_ORIGINS: pages.url,
      AUTH__MODE: "jwt",
      AUTH__HS256_SECRET: SECRET,
      AUTH__ISSUER: ISSUER,
      AUTH__AUDIENCE: AUDIENCE,
    });
    try {
      const play = async () => {
        pages.issued.validS = 3;
        const tv = await watch(context, { pages, service: secured, user, tokens: true });
        const { streamId } = await tv.waitFor("started");
        const { count } = pages.issued;
        // The next token must still be valid when the tab is closed. Otherwise the service could reject the stop.
        pages.issued.validS = 600;
        await eventually("the player fetches another token", () => pages.issued.count > count);
        await tv.clearEvents();
        await tv.waitFor("renewed");
        assert.equal(await tv.isPlaying(), true);
        assert.equal(await tv.streamId(), streamId);
        return { page: tv.page, streamId };
      };
      await closeTab(play, async (streamId) => (await secured.streamStatus(user, streamId, tokenFor(user)))[0] === 404);
      assert.equal((await fetch(`${secured.url}/v1/users/${encodeURIComponent(user)}/streams`)).status, 401);
    } finally {
      await secured.stop();
    }
  });
});
