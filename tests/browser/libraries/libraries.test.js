// Tests the examples of clients/web/README.md in Chromium, with the real libraries and the service's binary.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, newUser } from "../browser.js";
import { eventually, startService } from "../service.js";
import { serveExamples } from "./examples.js";

const LIBRARIES = [
  ["hls.js", "master.m3u8"],
  ["shaka-player", "manifest.mpd"],
  ["dashjs", "manifest.mpd"],
  ["video.js", "master.m3u8"],
  ["plyr", "all.mp4"],
  ["react", "all.mp4"],
];

let browser;
let pages;
let service;

before(async () => {
  pages = await serveExamples();
  // No heartbeat is due during a test, so only new content can cause one.
  const settings = { CORS__ALLOWED_ORIGINS: pages.url, LEASE__DURATION_S: 90, LEASE__HEARTBEAT_INTERVAL_S: 30 };
  // Start the service before the browser. If the service does not start, no browser keeps the test process alive.
  service = await startService(settings);
  browser = await launch();
});

after(async () => {
  await Promise.all([browser?.close(), service?.stop(), pages?.stop()]);
});

/** Opens the page of a library. `play(id)` plays the content with this id. */
async function open(library, file) {
  const context = await browser.newContext();
  const tab = await context.newPage();
  // Plyr loads its icons over HTTPS. Return an empty response.
  await context.route(/^https:/, (route) => route.fulfill({ body: "" }));
  const user = newUser();
  const failures = [];
  tab.on("pageerror", (error) => failures.push(String(error)));
  tab.on("console", (message) => message.type() === "error" && failures.push(message.text()));
  await tab.goto(`${pages.url}/?${new URLSearchParams({ library, api: service.url, user })}`);
  await tab.waitForFunction(() => window.example);
  // Do not wait for the promise, because the libraries reject `play()` in different ways when the source changes.
  const play = (id) =>
    tab.evaluate((movie) => void Promise.resolve(window.example.play(movie)).catch(() => {}), { id, url: `${pages.url}/media/${id}/${file}` });
  const listed = async () => (await service.streams(user)).map(({ contentId }) => contentId);
  const expectList = (ids) =>
    eventually(`the list is ${ids}`, async () => {
      const actual = await listed();
      return String(actual) === String(ids) || { actual, failures };
    });
  const isPlaying = () => tab.evaluate(() => {
    const video = document.querySelector("video");
    return !video.paused && video.currentTime > 0.1;
  });
  return { tab, user, play, expectList, isPlaying, failures, close: () => context.close() };
}

/**
 * Call this before the source changes. Returns a function that resolves with the time in milliseconds from the next `loadstart` event
 * to the response to the next start or heartbeat. The time is negative if this response arrives before the `loadstart` event.
 */
async function watchSource(tab) {
  await tab.evaluate(() => {
    const onLoad = () => (window.sourceChangedMs = performance.now());
    // Media events do not bubble, so the listener needs `capture`.
    document.addEventListener("loadstart", onLoad, { capture: true, once: true });
    window.requests = () =>
      performance.getEntriesByType("resource").filter(({ name }) => /\/streams(\/[^/]+\/heartbeat)?$/.test(name));
    window.requestsBefore = window.requests().length;
  });
  return async () => {
    await tab.waitForFunction(() => window.sourceChangedMs && window.requests().length > window.requestsBefore);
    return tab.evaluate(() => window.requests()[window.requestsBefore].responseEnd - window.sourceChangedMs);
  };
}

for (const [library, file] of LIBRARIES) {
  test(`${library}: the list shows the content that plays`, async (t) => {
    const { tab, play, expectList, isPlaying, failures, close } = await open(library, file);
    try {
      await play("first");
      await eventually("the first content plays", isPlaying);
      await expectList(["first"]);
      const reportDelayMs = await watchSource(tab);
      await play("second");
      await expectList(["second"]);
      const delayMs = await reportDelayMs();
      t.diagnostic(`listed ${Math.round(delayMs)} ms after the change`);
      assert.ok(delayMs < 1000, `${delayMs} ms`);
      await eventually("the second content plays", isPlaying);
      await expectList(["second"]);
      assert.deepEqual(failures, []);
      await tab.evaluate(() => document.querySelector("main").replaceChildren());
      await expectList([]);
    } finally {
      await close();
    }
  });
}

test("react: an unmounted component frees its slot", async () => {
  const { tab, play, expectList, isPlaying, close } = await open("react", "all.mp4");
  try {
    await play("first");
    await eventually("the content plays", isPlaying);
    await expectList(["first"]);
    await tab.evaluate(() => window.example.unmount());
    await expectList([]);
  } finally {
    await close();
  }
});
