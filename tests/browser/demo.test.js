// The demo page, as one who tries it out uses it. With DEMO_FROM_SERVICE=1 it is the service's own, at /demo; else these
// tests serve its files themselves, from another origin than the service's.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { closes, launch, newUser } from "./browser.js";
import { AUDIENCE, ISSUER, SECRET, servePages, tokenFor } from "./pages.js";
import { BRIEF, startService, until } from "./service.js";

const FROM_SERVICE = process.env.DEMO_FROM_SERVICE === "1";
const DEVICES = ["Living-room TV", "Kitchen tablet", "Phone", "Laptop"];
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

function addressOf(user, at = service) {
  const hash = `#${encodeURIComponent(user)}`;
  return FROM_SERVICE ? `${at.url}/demo${hash}` : `${pages.url}/demo?api=${at.url}${hash}`;
}

async function open(context, user, at = service) {
  const page = await context.newPage();
  const failures = [];
  page.on("pageerror", (error) => failures.push(String(error)));
  page.on("console", (message) => message.type() === "error" && failures.push(message.text()));
  await page.goto(addressOf(user, at));
  const demo = demoOn(page);
  return { ...demo, failures };
}

function demoOn(page) {
  const card = (name) => page.getByRole("article", { name, exact: true });
  const text = (locator) => locator.innerText();

  return {
    page,
    card,
    press: (name, label) => card(name).getByRole("button", { name: label }).click(),
    screen: (name) => text(card(name).locator(".message")),
    says: (name) => text(card(name).locator(".says")),
    /** Until the devices' badges are these. */
    badges: (...expected) =>
      until(`the devices are ${expected}`, async () => {
        const badges = await page.locator(".badge").allInnerTexts();
        return badges.join() === expected.join() || badges;
      }),
    shows: (count) =>
      until(`the page shows "${count}"`, async () => {
        const shown = await text(page.locator("#count"));
        return shown === count || shown;
      }),
    runs: (name) => card(name).locator("video").evaluate((video) => !video.paused && video.currentTime > 0),
  };
}

/** A test with a browser window and a user of its own. */
function flow(sentence, steps, options) {
  test(sentence, async () => {
    const context = await browser.newContext(options);
    try {
      await steps({ context, user: newUser() });
    } finally {
      await context.close();
    }
  });
}

describe("the demo page", { concurrency: 3 }, () => {
  flow("loads and plays without an error, and asks no host but its own and the service's", async ({ context, user }) => {
    const asked = new Set();
    context.on("request", (request) => asked.add(new URL(request.url()).origin));
    const { page, press, badges, shows, runs, failures } = await open(context, user);
    await shows("0 of 3");
    await press("Phone", "Play");
    await badges("Off", "Off", "Playing", "Off");
    await shows("1 of 3");
    await until("the picture moves", () => runs("Phone"));
    await press("Phone", "Pause");
    await badges("Off", "Off", "Paused", "Off");
    assert.equal(await page.locator("#log tr").count() > 0, true);
    assert.deepEqual(failures, []);
    const own = FROM_SERVICE ? [service.url] : [pages.url, service.url];
    // A picture that is part of the page has no host.
    assert.deepEqual([...asked].filter((origin) => origin !== "null").sort(), own.sort());
  });

  flow("denies the fourth device, shows who is watching, and lets it play when another is stopped", async ({ context, user }) => {
    const { page, press, badges, screen } = await open(context, user);
    await page.getByRole("button", { name: "Play all four" }).click();
    await badges("Playing", "Playing", "Playing", "Denied");
    for (const name of DEVICES.slice(0, 3)) assert.match(await screen("Laptop"), new RegExp(name));
    await press("Laptop", "Stop Kitchen tablet, and play on Laptop");
    await badges("Playing", "Stopped", "Playing", "Playing");
    assert.deepEqual((await service.streams(user)).map(({ deviceName }) => deviceName), ["Living-room TV", "Phone", "Laptop"]);
  });

  flow("evicts the oldest for the fourth, and the evicted one says who took over", async ({ context, user }) => {
    const { page, card, press, badges, screen } = await open(context, user);
    await page.getByRole("button", { name: "Play all four" }).click();
    await badges("Playing", "Playing", "Playing", "Denied");
    await press("Laptop", "Evict the oldest stream");
    await badges("Stopped", "Playing", "Playing", "Playing");
    assert.match(await screen("Living-room TV"), /Laptop\s+took the slot/);
    assert.equal(await card("Living-room TV").locator("video").evaluate((video) => video.paused), true);
  });

  flow("starts once when a device that evicted another is stopped and played again", async ({ context, user }) => {
    const { page, press, badges } = await open(context, user);
    await page.getByRole("button", { name: "Play all four" }).click();
    await badges("Playing", "Playing", "Playing", "Denied");
    await press("Laptop", "Evict the oldest stream");
    await badges("Stopped", "Playing", "Playing", "Playing");
    const { streamId } = (await service.streams(user)).find(({ deviceName }) => deviceName === "Laptop");
    await service.evict(user, streamId);
    await badges("Stopped", "Playing", "Playing", "Stopped");
    const starts = [];
    page.on("request", (request) => request.method() === "POST" && /\/streams$/.test(request.url()) && starts.push(request.url()));
    await press("Laptop", "Play");
    await badges("Stopped", "Playing", "Playing", "Playing");
    assert.equal(starts.length, 1);
  });

  flow("frees a crashed device's slot when its lease runs out, and not before", async ({ context, user }) => {
    const { press, badges, shows, screen } = await open(context, user, brief);
    await press("Phone", "Play");
    await badges("Off", "Off", "Playing", "Off");
    await press("Phone", "Crash");
    await badges("Off", "Off", "Crashed", "Off");
    const [{ streamId, expiresAt }] = await brief.streams(user);
    await shows("0 of 3");
    assert.ok(Date.now() >= Date.parse(expiresAt));
    assert.deepEqual(await brief.fate(user, streamId), [410, "expired"]);
    assert.match(await screen("Phone"), /slot is free/);
  });

  flow("takes over a device's own slot at its reload", async ({ context, user }) => {
    const { press, badges, says, page } = await open(context, user);
    await press("Phone", "Play");
    await badges("Off", "Off", "Playing", "Off");
    const [before] = await service.streams(user);
    await press("Phone", "Reload");
    await until("it says so", async () => /own slot/.test(await says("Phone")));
    const streams = await service.streams(user);
    assert.deepEqual(streams.map(({ deviceId }) => deviceId), [before.deviceId]);
    assert.notEqual(streams[0].streamId, before.streamId);
    assert.deepEqual(await service.fate(user, before.streamId), [410, "replaced"]);
    assert.match(await page.locator("#log tr").first().innerText(), /201/);
  });

  flow("gives the slots back when it is closed, and when its user changes", async ({ context, user }) => {
    const other = newUser();
    const stopped = async (of, streamId) => (await service.fate(of, streamId))[0] === 404;
    const play = async () => {
      const { page, press, badges } = await open(context, user);
      await press("Phone", "Play");
      await badges("Off", "Off", "Playing", "Off");
      const [{ streamId }] = await service.streams(user);
      await page.getByLabel("User").fill(other);
      await page.getByLabel("User").press("Enter");
      await badges("Off", "Off", "Off", "Off");
      await until("the first user's slot is free", () => stopped(user, streamId));
      assert.equal(new URL(page.url()).hash, `#${encodeURIComponent(other)}`);
      await press("Laptop", "Play");
      await badges("Off", "Off", "Off", "Playing");
      return { page, ...(await service.streams(other)).at(-1) };
    };
    await closes(play, (streamId) => stopped(other, streamId));
  });

  flow("has devices of its own in a second window, and stops those of the first", async ({ context, user }) => {
    const first = await open(context, user);
    await first.press("Phone", "Play");
    await first.badges("Off", "Off", "Playing", "Off");
    const opened = context.waitForEvent("page");
    await first.page.getByRole("link", { name: /second window/ }).click();
    const second = demoOn(await opened);
    await second.press("Phone", "Play");
    await second.badges("Off", "Off", "Playing", "Off");
    await second.shows("2 of 3");
    await second.page.getByRole("button", { name: "Stop the stream on Phone, elsewhere" }).click();
    await first.badges("Off", "Off", "Stopped", "Off");
    await second.badges("Off", "Off", "Playing", "Off");
  });

  flow("says that a token is needed, and plays with one", async ({ context, user }) => {
    const auth = { AUTH__MODE: "jwt", AUTH__HS256_SECRET: SECRET, AUTH__ISSUER: ISSUER, AUTH__AUDIENCE: AUDIENCE };
    const guarded = await startService({ CORS__ALLOWED_ORIGINS: pages.url, ...auth });
    try {
      const { page, press, shows, says, card } = await open(context, user, guarded);
      await until("it says so", async () => /token is needed/.test(await page.locator("#of").innerText()));
      await press("Phone", "Play");
      await until("the device says so too", async () => /token is missing/.test(await says("Phone")));
      assert.equal(await card("Phone").locator("video").evaluate((video) => video.paused), false);
      await page.getByLabel("Token").fill(tokenFor(user));
      await page.getByLabel("Token").press("Enter");
      await shows("1 of 3");
      assert.equal(await guarded.count(user, tokenFor(user)), 1);
    } finally {
      await guarded.stop();
    }
  });

  flow("works by keyboard", async ({ context, user }) => {
    const { page, badges, card } = await open(context, user);
    const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
    const tabTo = async (label) => {
      for (let presses = 0; presses < 30; presses += 1) {
        await page.keyboard.press("Tab");
        if ((await focused()) === label) return;
      }
      throw new Error(`30 times Tab did not come to "${label}"`);
    };
    await tabTo("Play all four");
    await page.keyboard.press("Enter");
    await badges("Playing", "Playing", "Playing", "Denied");
    await tabTo("Stop Phone, and play on Laptop");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none");
    await page.keyboard.press("Enter");
    await badges("Playing", "Playing", "Stopped", "Playing");
    // The button is gone, but not the place of whoever pressed it.
    assert.equal(await card("Laptop").evaluate((element) => element.contains(document.activeElement)), true);
    await tabTo("Pause Laptop");
    await page.keyboard.press("Space");
    await badges("Playing", "Playing", "Stopped", "Paused");
  });

  flow("fits a phone: nothing to the side, and nothing moves when the state changes", async ({ context, user }) => {
    const { page, badges, shows } = await open(context, user);
    const size = () => page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]);
    await shows("0 of 3");
    const before = await size();
    assert.equal(before[0], 390);
    await page.getByRole("button", { name: "Play all four" }).click();
    await badges("Playing", "Playing", "Playing", "Denied");
    await shows("3 of 3");
    assert.deepEqual(await size(), before);
  }, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
});
