// Starts the browser under test and controls the test pages.

import { eventually } from "./service.js";

/** The browser under test: "chromium", "firefox" or "webkit". Only Chromium has Playwright's full interface. */
export const BROWSER = process.env.BROWSER ?? "chromium";
// Chromium ends a page if its unload handlers take longer than 0.5 s, which may be too short on a busy machine. WebKitGTK sometimes
// ends a page before its unload handlers run. Firefox has neither problem.
const CLOSE_ATTEMPTS = BROWSER === "firefox" ? 1 : 3;
// Shorter than the lease of 30 s, so that a stream whose lease expired does not count as stopped.
const STOP_TIMEOUT_MS = 20_000;

export async function launch() {
  const engine = await import(`./engines/${BROWSER}.js`);
  return engine.launch();
}

/** Test options that skip a test in some browsers: `skipIn({ webkit: "reason" })`. */
export const skipIn = (reasons) => ({ skip: reasons[BROWSER] ?? false });

let users = 0;

/** A user name that no other test uses. */
export function newUser() {
  users += 1;
  return `user ${process.pid}/${users}`;
}

/** Opens a page that plays a video, and returns its player. With `tab`, the page is a tab of a window that stays open. */
export async function watch(context, { pages, service, user, name, tokens, tab }) {
  const page = await context.newPage({ tab });
  const query = new URLSearchParams({ api: service.url, user });
  if (name) query.set("name", name);
  if (tokens) query.set("tokens", "");
  await page.goto(`${pages.url}/watch.html?${query}`);
  return playerOf(page);
}

/**
 * Opens a playing tab with `play()`, which returns `{ page, streamId }`. Closes the tab as a user does, and waits until
 * `isStopped(streamId)` is true. If it stays false, tries again with another tab, at most `CLOSE_ATTEMPTS` times in all.
 */
export async function closeTab(play, isStopped) {
  for (let attempt = 1; ; attempt += 1) {
    const { page, streamId } = await play();
    await page.close({ runBeforeUnload: true });
    try {
      return await eventually("a closed tab stops its stream", () => isStopped(streamId), STOP_TIMEOUT_MS);
    } catch (failure) {
      if (attempt === CLOSE_ATTEMPTS) throw failure;
    }
  }
}

function playerOf(page) {
  const events = () => page.evaluate(() => window.watched?.events ?? []);

  return {
    page,
    events,
    isPlaying: () => page.evaluate(() => window.watched?.video.paused === false),
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
