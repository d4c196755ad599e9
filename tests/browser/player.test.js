// The player package in a real browser against the real service, which is of another origin, as most applications have it.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { closes, launch, newUser, watch } from "./browser.js";
import { AUDIENCE, ISSUER, SECRET, servePages, tokenFor } from "./pages.js";
import { BRIEF, startService, until } from "./service.js";

let browser;
let pages;
let service;
let brief;

before(async () => {
  pages = await servePages();
  const settings = { CORS__ALLOWED_ORIGINS: pages.url };
  [browser, service, brief] = await Promise.all([launch(), startService(settings), startService({ ...settings, ...BRIEF })]);
});

after(async () => {
  await Promise.all([browser?.close(), service?.stop(), brief?.stop(), pages?.stop()]);
});

/** A test with a browser window and a user of its own. */
function flow(sentence, steps) {
  test(sentence, async () => {
    const context = await browser.newContext();
    const user = newUser();
    const open = (more) => watch(context, { pages, service, user, ...more });
    try {
      await steps({ context, user, open });
    } finally {
      await context.close();
    }
  });
}

const counts = (user, n, at = service) => until(`${n} of ${user} play`, async () => (await at.count(user)) === n || at.streams(user));

describe("a player in a browser", { concurrency: 3 }, () => {
  flow("takes a slot when it plays, and keeps it beyond the first lease", async ({ user, open }) => {
    const tv = await open({ service: brief, name: "TV" });
    const { streamId } = await tv.hears("started");
    const [first] = await brief.streams(user);
    assert.equal(first.streamId, streamId);
    assert.equal(first.deviceName, "TV");
    await until("the first lease would be over", () => Date.now() > Date.parse(first.expiresAt));
    const [now] = await brief.streams(user);
    assert.equal(now?.streamId, streamId);
    assert.ok(now.expiresAt > first.expiresAt);
    assert.ok((await tv.events()).every(({ type }) => ["started", "renewed"].includes(type)));
  });

  flow("is the same device after a reload, and holds one slot", async ({ user, open }) => {
    const tab = await open();
    const { streamId } = await tab.hears("started");
    const [{ deviceId }] = await service.streams(user);
    await tab.page.reload();
    const again = await tab.hears("started");
    assert.notEqual(again.streamId, streamId);
    const streams = await service.streams(user);
    assert.deepEqual(streams.map((stream) => [stream.streamId, stream.deviceId]), [[again.streamId, deviceId]]);
  });

  flow("frees its slot when its tab is closed", async ({ user, open }) => {
    const play = async () => {
      const tab = await open();
      return { page: tab.page, ...(await tab.hears("started")) };
    };
    await closes(play, async (streamId) => (await service.fate(user, streamId))[0] === 404);
  });

  flow("frees its slot when one leaves the page, and takes another when the browser brings the page back as it was", async ({ user, open }) => {
    const tab = await open();
    const { streamId } = await tab.hears("started");
    await tab.page.evaluate(() => (window.asItWas = true));
    await tab.page.goto(`${pages.url}/elsewhere`);
    await counts(user, 0);
    assert.equal((await service.fate(user, streamId))[0], 404);
    await tab.page.goBack({ waitUntil: "commit" });
    await counts(user, 1);
    await until("it plays", tab.plays);
    // Else it is a reload, which another test is about.
    assert.equal(await tab.page.evaluate(() => window.asItWas), true);
    assert.notEqual((await service.streams(user))[0].streamId, streamId);
  });

  flow("is another device in each tab", async ({ user, open }) => {
    const tabs = [await open(), await open()];
    for (const tab of tabs) await tab.hears("started");
    const ids = (await service.streams(user)).map(({ deviceId }) => deviceId);
    assert.equal(new Set(ids).size, 2);
  });

  flow("is paused when the limit is reached, says who is watching, and plays when it has stopped one of them", async ({ user, open }) => {
    const first = await service.start(user, "Cinema");
    for (const name of ["Kitchen", "Cellar"]) await service.start(user, name);
    const phone = await open({ name: "Phone" });
    await phone.hears("denied");
    assert.equal(await phone.plays(), false);
    await phone.page.evaluate((id) => window.watched.player.session.stopOther(id), first.streamId);
    await phone.page.evaluate(() => window.watched.player.session.retry());
    await phone.hears("started");
    await until("it plays", phone.plays);
    assert.deepEqual(await service.fate(user, first.streamId), [410, "evicted"]);
  });

  flow("pauses when it is evicted, and does not start again by itself", async ({ user, open }) => {
    const tv = await open({ name: "TV" });
    const { streamId } = await tv.hears("started");
    await service.evict(user, streamId);
    const ended = await tv.hears("ended");
    assert.equal(ended.reason, "evicted");
    await until("it is paused", async () => !(await tv.plays()));
    assert.equal(await service.count(user), 0);
    await tv.page.evaluate(() => window.watched.video.play());
    await counts(user, 1);
  });

  flow("plays on while it is offline, and has a slot again when it is back", async ({ context, user, open }) => {
    const tv = await open({ service: brief });
    await tv.hears("started");
    await context.setOffline(true);
    await tv.hears("unavailable");
    await counts(user, 0, brief);
    assert.equal(await tv.plays(), true);
    await context.setOffline(false);
    await tv.hears("restarted");
    assert.equal(await tv.plays(), true);
    assert.equal(await brief.count(user), 1);
  });

  flow("plays on when the service does not allow its page's origin, and says that nobody answers", async ({ context, user }) => {
    const strict = await startService({ CORS__ALLOWED_ORIGINS: "https://somebody.example" });
    try {
      const tv = await watch(context, { pages, service: strict, user });
      const { code } = await tv.hears("unavailable");
      assert.equal(code, "no-answer");
      assert.equal(await tv.plays(), true);
    } finally {
      await strict.stop();
    }
  });

  flow("plays on while the service is killed and started again, and keeps its stream", async ({ context, user }) => {
    const folder = await mkdtemp(join(tmpdir(), "stream-manager-browser-"));
    const settings = {
      CORS__ALLOWED_ORIGINS: pages.url,
      STORE__KIND: "embedded",
      EMBEDDED__PATH: join(folder, "streams.db"),
    };
    let lasting = await startService(settings);
    try {
      const tv = await watch(context, { pages, service: lasting, user });
      const { streamId } = await tv.hears("started");
      await lasting.stop("SIGKILL");
      await tv.hears("unavailable");
      assert.equal(await tv.plays(), true);
      lasting = await startService({ ...settings, port: lasting.port });
      await tv.hears("available");
      assert.equal(await tv.plays(), true);
      assert.equal(await tv.streamId(), streamId);
      assert.deepEqual((await lasting.streams(user)).map((stream) => stream.streamId), [streamId]);
    } finally {
      await lasting.stop();
      await rm(folder, { recursive: true });
    }
  });

  flow("asks for another token when its token runs out, plays on, and frees its slot when it is closed", async ({ context, user }) => {
    const guarded = await startService({
      CORS__ALLOWED_ORIGINS: pages.url,
      AUTH__MODE: "jwt",
      AUTH__HS256_SECRET: SECRET,
      AUTH__ISSUER: ISSUER,
      AUTH__AUDIENCE: AUDIENCE,
    });
    try {
      pages.issued.forS = 2;
      const play = async () => {
        pages.issued.count = 0;
        const tv = await watch(context, { pages, service: guarded, user, tokens: true });
        const { streamId } = await tv.hears("started");
        await until("a second token was asked for", () => pages.issued.count >= 2);
        await tv.forget();
        await tv.hears("renewed");
        assert.equal(await tv.plays(), true);
        assert.equal(await tv.streamId(), streamId);
        return { page: tv.page, streamId };
      };
      await closes(play, async (streamId) => (await guarded.fate(user, streamId, tokenFor(user)))[0] === 404);
      assert.equal((await fetch(`${guarded.url}/v1/users/${encodeURIComponent(user)}/streams`)).status, 401);
    } finally {
      await guarded.stop();
    }
  });
});
