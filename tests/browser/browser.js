// Chromium, and what every test does with a page.

import { createRequire } from "node:module";
import { until } from "./service.js";

// Where scripts/browser has installed it: nothing that is downloaded lies beside the tests.
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
    // Playwright turns the back/forward cache off; users have it.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}

let users = 0;

/** No test meets another one's streams. */
export function newUser() {
  users += 1;
  return `user ${process.pid}/${users}`;
}

/** A page that plays, and what it says of itself. */
export async function watch(context, { pages, service, user, name, tokens }) {
  const page = await context.newPage();
  const query = new URLSearchParams({ api: service.url, user });
  if (name) query.set("name", name);
  if (tokens) query.set("tokens", "");
  await page.goto(`${pages.url}/watch.html?${query}`);
  return player(page);
}

/**
 * Closes a tab that `play()` has brought to play, `{ page, streamId }`, as its user does, until its stream was stopped by it.
 * Chromium ends a page that has not handled its closing within half a second; a busy machine may not have that for it, so
 * three tabs may try.
 */
export async function closes(play, stopped) {
  for (let left = 2; ; left -= 1) {
    const { page, streamId } = await play();
    await page.close({ runBeforeUnload: true });
    try {
      return await until("the stream of a closed tab was stopped", () => stopped(streamId), 4000);
    } catch (failure) {
      if (left === 0) throw failure;
    }
  }
}

export function player(page) {
  const events = () => page.evaluate(() => window.watched?.events ?? []);

  return {
    page,
    events,
    plays: () => page.evaluate(() => !window.watched.video.paused),
    state: () => page.evaluate(() => window.watched.player.session.state),
    streamId: () => page.evaluate(() => window.watched.player.session.streamId),
    /** The first such event, at once or as soon as it comes. */
    async hears(type, withinMs) {
      const heard = async () => {
        const all = await events();
        return all.some((event) => event.type === type) || all;
      };
      await until(`the player hears "${type}"`, heard, withinMs);
      return (await events()).find((event) => event.type === type);
    },
    forget: () => page.evaluate(() => window.watched.events.splice(0)),
  };
}
