// The demo page in a browser. With DEMO_FROM_SERVICE=1 the service itself serves the page, which was embedded at compile time.
// Otherwise the page server serves the files of the source tree, from another origin.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { BROWSER, closeTab, launch, newUser, skipIn } from "./browser.js";
import { AUDIENCE, ISSUER, SECRET, servePages, tokenFor } from "./page-server.js";
import { eventually, SHORT_LEASE, startService } from "./service.js";

const FROM_SERVICE = process.env.DEMO_FROM_SERVICE === "1";
const NO_VIEWPORT = { firefox: "its driver cannot emulate a phone", webkit: "its driver cannot emulate a phone" };
const DEVICES = ["Living-room TV", "Kitchen tablet", "Phone", "Laptop"];
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

function demoUrl(user, on = service) {
  const hash = `#${encodeURIComponent(user)}`;
  return FROM_SERVICE ? `${on.url}/demo${hash}` : `${pages.url}/demo?api=${on.url}${hash}`;
}

async function open(context, user, on = service) {
  const page = await context.newPage();
  const failures = [];
  // Only Playwright's pages emit events.
  page.on?.("pageerror", (error) => failures.push(String(error)));
  page.on?.("console", (message) => message.type() === "error" && failures.push(message.text()));
  await page.goto(demoUrl(user, on));
  const demo = demoOf(page);
  return { ...demo, failures };
}

function demoOf(page) {
  const card = (name) => page.getByRole("article", { name, exact: true });
  const text = (locator) => locator.innerText();

  return {
    page,
    card,
    click: (name, label) => card(name).getByRole("button", { name: label }).click(),
    /** Waits until the text over a device's picture matches. The page shows it after the badge. */
    expectOverlay: (name, pattern) =>
      eventually(`the overlay of ${name} matches ${pattern}`, async () => {
        const actual = await text(card(name).locator(".overlay"));
        return pattern.test(actual) || actual;
      }),
    noteText: (name) => text(card(name).locator(".note")),
    /** Waits until the four devices have these badges. */
    expectBadges: (...expected) =>
      eventually(`the badges are ${expected}`, async () => {
        const badges = await page.locator(".badge").allInnerTexts();
        return badges.join() === expected.join() || badges;
      }),
    expectCount: (count) =>
      eventually(`the count is "${count}"`, async () => {
        const actual = await text(page.locator("#count"));
        return actual === count || actual;
      }),
    isMoving: (name) => card(name).locator("video").evaluate((video) => !video.paused && video.currentTime > 0),
  };
}

/** A test with its own browser context and user. */
function browserTest(name, steps, { skip, ...options } = {}) {
  test(name, { skip }, async () => {
    const context = await browser.newContext(options);
    try {
      await steps({ context, user: newUser() });
    } finally {
      await context.close();
    }
  });
}

// WebKitGTK renders the videos too slowly for several pages at once.
describe("the demo page", { concurrency: BROWSER === "webkit" ? 1 : 3 }, () => {
  browserTest("the page requests only its own and the service's origin", async ({ context, user }) => {
    const { page, click, expectBadges, expectCount, isMoving, failures } = await open(context, user);
    await expectCount("0 of 3");
    await click("Phone", "Play");
    await expectBadges("Off", "Off", "Playing", "Off");
    await expectCount("1 of 3");
    await eventually("the picture moves", () => isMoving("Phone"));
    await click("Phone", "Pause");
    await expectBadges("Off", "Off", "Paused", "Off");
    assert.equal(await page.locator("#log tr").count() > 0, true);
    assert.deepEqual(failures, []);
    const expected = FROM_SERVICE ? [service.url] : [pages.url, service.url];
    const requested = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
    const origins = new Set([await page.url(), ...requested].map((url) => new URL(url).origin));
    // A data URL has the origin "null".
    assert.deepEqual([...origins].filter((origin) => origin !== "null").sort(), expected.sort());
  });

  browserTest("a denied device plays after another is stopped", async ({ context, user }) => {
    const { page, click, expectBadges, expectOverlay } = await open(context, user);
    await page.getByRole("button", { name: "Play all four" }).click();
    await expectBadges("Playing", "Playing", "Playing", "Denied");
    for (const name of DEVICES.slice(0, 3)) await expectOverlay("Laptop", new RegExp(name));
    await click("Laptop", "Stop Kitchen tablet, and play on Laptop");
    await expectBadges("Playing", "Stopped", "Playing", "Playing");
    assert.deepEqual((await service.streams(user)).map(({ deviceName }) => deviceName), ["Living-room TV", "Phone", "Laptop"]);
  });

  browserTest("an evicted device names the device that took its slot", async ({ context, user }) => {
    const { page, card, click, expectBadges, expectOverlay } = await open(context, user);
    await page.getByRole("button", { name: "Play all four" }).click();
    await expectBadges("Playing", "Playing", "Playing", "Denied");
    await click("Laptop", "Evict the oldest stream");
    await expectBadges("Stopped", "Playing", "Playing", "Playing");
    await expectOverlay("Living-room TV", /Laptop\s+took the slot/);
    assert.equal(await card("Living-room TV").locator("video").evaluate((video) => video.paused), true);
  });

  browserTest("playing again after an eviction sends one start", async ({ context, user }) => {
    const { page, click, expectBadges } = await open(context, user);
    await page.getByRole("button", { name: "Play all four" }).click();
    await expectBadges("Playing", "Playing", "Playing", "Denied");
    await click("Laptop", "Evict the oldest stream");
    await expectBadges("Stopped", "Playing", "Playing", "Playing");
    const { streamId } = (await service.streams(user)).find(({ deviceName }) => deviceName === "Laptop");
    await service.evict(user, streamId);
    await expectBadges("Stopped", "Playing", "Playing", "Stopped");
    const starts = async () => (await page.locator("#log tr").allInnerTexts()).filter((row) => /Laptop\s+POST \S*streams\s/.test(row));
    const before = await starts();
    await click("Laptop", "Play");
    await expectBadges("Stopped", "Playing", "Playing", "Playing");
    assert.equal((await starts()).length, before.length + 1);
  });

  browserTest("a crashed device frees its slot at lease expiry", async ({ context, user }) => {
    const { click, expectBadges, expectCount, expectOverlay } = await open(context, user, shortLease);
    await click("Phone", "Play");
    await expectBadges("Off", "Off", "Playing", "Off");
    await click("Phone", "Crash");
    await expectBadges("Off", "Off", "Crashed", "Off");
    const [{ streamId, expiresAt }] = await shortLease.streams(user);
    await expectCount("0 of 3");
    assert.ok(Date.now() >= Date.parse(expiresAt));
    assert.deepEqual(await shortLease.streamStatus(user, streamId), [410, "expired"]);
    await expectOverlay("Phone", /slot is free/);
  });

  browserTest("a reloaded device takes over its own slot", async ({ context, user }) => {
    const { click, expectBadges, noteText, page } = await open(context, user);
    await click("Phone", "Play");
    await expectBadges("Off", "Off", "Playing", "Off");
    const [before] = await service.streams(user);
    await click("Phone", "Reload");
    await eventually("the note reports the takeover", async () => /own slot/.test(await noteText("Phone")));
    const streams = await service.streams(user);
    assert.deepEqual(streams.map(({ deviceId }) => deviceId), [before.deviceId]);
    assert.notEqual(streams[0].streamId, before.streamId);
    assert.deepEqual(await service.streamStatus(user, before.streamId), [410, "replaced"]);
    const requests = await page.locator("#log tr").allInnerTexts();
    assert.equal(requests.filter((row) => /Phone\s.*\s201\s/.test(row)).length, 2, requests.join("; "));
  });

  browserTest("closing the page or changing the user frees the slots", async ({ context, user }) => {
    const other = newUser();
    const isStopped = async (owner, streamId) => (await service.streamStatus(owner, streamId))[0] === 404;
    const play = async () => {
      const { page, click, expectBadges } = await open(context, user);
      await click("Phone", "Play");
      await expectBadges("Off", "Off", "Playing", "Off");
      const [{ streamId }] = await service.streams(user);
      await page.getByLabel("User").fill(other);
      await page.getByLabel("User").press("Enter");
      await expectBadges("Off", "Off", "Off", "Off");
      await eventually("the first user's slot is free", () => isStopped(user, streamId));
      assert.equal(new URL(await page.url()).hash, `#${encodeURIComponent(other)}`);
      await click("Laptop", "Play");
      await expectBadges("Off", "Off", "Off", "Playing");
      return { page, ...(await service.streams(other)).at(-1) };
    };
    await closeTab(play, (streamId) => isStopped(other, streamId));
  });

  browserTest("a second window stops a device of the first", async ({ context, user }) => {
    const first = await open(context, user);
    await first.click("Phone", "Play");
    await first.expectBadges("Off", "Off", "Playing", "Off");
    const href = await first.page.getByRole("link", { name: /second window/ }).getAttribute("href");
    const second = demoOf(await context.newPage());
    await second.page.goto(new URL(href, await first.page.url()).href);
    await second.click("Phone", "Play");
    await second.expectBadges("Off", "Off", "Playing", "Off");
    await second.expectCount("2 of 3");
    await second.page.getByRole("button", { name: "Stop the stream on Phone, elsewhere" }).click();
    await first.expectBadges("Off", "Off", "Stopped", "Off");
    await second.expectBadges("Off", "Off", "Playing", "Off");
  });

  browserTest("the page reports a missing token and accepts one", async ({ context, user }) => {
    const auth = { AUTH__MODE: "jwt", AUTH__HS256_SECRET: SECRET, AUTH__ISSUER: ISSUER, AUTH__AUDIENCE: AUDIENCE };
    const secured = await startService({ CORS__ALLOWED_ORIGINS: pages.url, ...auth });
    try {
      const { page, click, expectCount, noteText, card } = await open(context, user, secured);
      await eventually("the page reports the missing token", async () => /token is needed/.test(await page.locator("#count-label").innerText()));
      await click("Phone", "Play");
      await eventually("the device reports the missing token", async () => /token is missing/.test(await noteText("Phone")));
      assert.equal(await card("Phone").locator("video").evaluate((video) => video.paused), false);
      await page.getByLabel("Token").fill(tokenFor(user));
      await page.getByLabel("Token").press("Enter");
      await expectCount("1 of 3");
      assert.equal(await secured.count(user, tokenFor(user)), 1);
    } finally {
      await secured.stop();
    }
  });

  browserTest("a rule denies UHD to a second device, which continues", async ({ context, user }) => {
    const rules = JSON.stringify([{ name: "one UHD stream", max: 1, labels: { quality: "uhd" } }]);
    const ruled = await startService({ CORS__ALLOWED_ORIGINS: pages.url, LIMITS__RULES: rules });
    try {
      const { page, card, click, expectBadges, noteText } = await open(context, user, ruled);
      const rulesText = () => page.locator("#rules").innerText();
      const isUhd = (name) => card(name).getByRole("button", { name: `UHD on ${name}` }).evaluate((b) => b.getAttribute("aria-pressed"));
      await click("Living-room TV", "UHD on Living-room TV");
      await click("Living-room TV", "Play");
      await click("Phone", "Play");
      await expectBadges("Playing", "Off", "Playing", "Off");
      await eventually("the page shows the rule", async () => (await rulesText()) === "one UHD stream: 1 of 1");
      const [, { streamId }] = await ruled.streams(user);
      await click("Phone", "UHD on Phone");
      await eventually("the note names the rule", async () => /“one UHD stream” denied UHD/.test(await noteText("Phone")));
      await expectBadges("Playing", "Off", "Playing", "Off");
      assert.deepEqual([await isUhd("Living-room TV"), await isUhd("Phone")], ["true", "false"]);
      assert.equal((await ruled.streams(user))[1].streamId, streamId, "the stream continues");
      // The television returns to HD. Its new stream replaces the former one, so the phone may play in UHD.
      await click("Living-room TV", "UHD on Living-room TV");
      await eventually("the television plays in HD", async () => /in HD now/.test(await noteText("Living-room TV")));
      await click("Phone", "UHD on Phone");
      await eventually("the phone plays in UHD", async () => /in UHD now/.test(await noteText("Phone")));
      assert.equal(await ruled.count(user), 2);
    } finally {
      await ruled.stop();
    }
  });

  browserTest("a device shows the remaining time of its grant", async ({ context, user }) => {
    const granting = await startService({ CORS__ALLOWED_ORIGINS: pages.url, GRANTS__ALGORITHM: "HS256", GRANTS__SECRET: `${SECRET} for grants` });
    try {
      const { card, click, expectBadges } = await open(context, user, granting);
      const grantText = () => card("Phone").locator(".grant").innerText();
      await click("Phone", "Play");
      await expectBadges("Off", "Off", "Playing", "Off");
      await eventually("the card shows the grant", async () => /^Grant: (29|30) s$/.test(await grantText()) || grantText());
      await click("Phone", "Crash");
      await eventually("the crashed card hides the grant", async () => card("Phone").locator(".grant").evaluate((element) => element.hidden));
    } finally {
      await granting.stop();
    }
  });

  browserTest("the page works with the keyboard", async ({ context, user }) => {
    const { page, expectBadges, card } = await open(context, user);
    const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
    const tabTo = async (label) => {
      for (let presses = 0; presses < 30; presses += 1) {
        await page.keyboard.press("Tab");
        if ((await focused()) === label) return;
      }
      throw new Error(`"${label}" does not have the focus after pressing Tab 30 times`);
    };
    await tabTo("Play all four");
    await page.keyboard.press("Enter");
    await expectBadges("Playing", "Playing", "Playing", "Denied");
    await tabTo("Stop Phone, and play on Laptop");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none");
    await page.keyboard.press("Enter");
    await expectBadges("Playing", "Playing", "Stopped", "Playing");
    // The pressed button was removed, but the focus stays in the card.
    assert.equal(await card("Laptop").evaluate((element) => element.contains(document.activeElement)), true);
    await tabTo("Pause Laptop");
    await page.keyboard.press("Space");
    await expectBadges("Playing", "Playing", "Stopped", "Paused");
  });

  browserTest("the layout fits a phone and does not shift", async ({ context, user }) => {
    const { page, expectBadges, expectCount } = await open(context, user);
    const size = () => page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]);
    await expectCount("0 of 3");
    const before = await size();
    assert.equal(before[0], 390);
    await page.getByRole("button", { name: "Play all four" }).click();
    await expectBadges("Playing", "Playing", "Playing", "Denied");
    await expectCount("3 of 3");
    assert.deepEqual(await size(), before);
  }, { ...skipIn(NO_VIEWPORT), viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
});
