// Starts Chromium and controls the test pages.

import { createRequire } from "node:module";
import { eventually } from "./service.js";

// scripts/test-browser installs playwright-core in target, so that the source tree has no node_modules.
const { chromium } = createRequire(new URL("../../target/browser/", import.meta.url))("playwright-core");
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ARGUMENTS,
    // Playwright disables the back/forward cache, but it is enabled in the browsers of users.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}

let users = 0;

/** A user name that no other test uses. */
export function newUser() {
  users += 1;
  return `user ${process.pid}/${users}`;
}

/** Opens a page that plays a video, and returns its player. */
export async function watch(context, { pages, service, user, name, tokens }) {
  const page = await context.newPage();
  const query = new URLSearchParams({ api: service.url, user });
  if (name) query.set("name", name);
  if (tokens) query.set("tokens", "");
  await page.goto(`${pages.url}/watch.html?${query}`);
  return playerOf(page);
}

/**
 * Opens a playing tab with `play()`, which returns `{ page, streamId }`. Closes the tab as a user does, and waits until
 * `isStopped(streamId)` is true. Chromium ends a page if its unload handlers take longer than 0.5 s. This time may be too short on a
 * busy machine, so the function tries up to three tabs.
 */
export async function closeTab(play, isStopped) {
  for (let attemptsLeft = 2; ; attemptsLeft -= 1) {
    const { page, streamId } = await play();
    await page.close({ runBeforeUnload: true });
    try {
      return await eventually("a closed tab stops its stream", () => isStopped(streamId), 4000);
    } catch (failure) {
      if (attemptsLeft === 0) throw failure;
    }
  }
}

function playerOf(page) {
  const events = () => page.evaluate(() => window.watched?.events ?? []);

  return {
    page,
    events,
    isPlaying: () => page.evaluate(() => !window.watched.video.paused),
    streamId: () => page.evaluate(() => window.watched.player.session.streamId),
    /** Waits for the first event of this type. */
    async waitFor(type, timeoutMs) {
      const emitted = async () => {
        const all = await events();
        return all.some((event) => event.type === type) || all;
      };
      await eventually(`the player emits "${type}"`, emitted, timeoutMs);
      return (await events()).find((event) => event.type === type);
    },
    clearEvents: () => page.evaluate(() => window.watched.events.splice(0)),
  };
}
