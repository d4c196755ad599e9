// Sends the requests that end streams: the session's own stop (with retries, or at once during page unload), and evictions of
// other streams.

import { backoffMs } from "./backoff.js";
import { addListeners } from "./lifecycle.js";

const MAX_ATTEMPTS = 4;
const MAX_BACKOFF_MS = 8000;

export function createStops(client, { timers, random, page }) {
  /** Each handler sends one stop that waits for a retry. */
  const unloadHandlers = new Set();

  /** Resolves when the slot is free, or after the last failed attempt. */
  async function release(streamId) {
    // Only the first attempt uses keepalive. If the page unloads between two attempts, `onUnload` sends the stop at once.
    let waiting = false;
    const onUnload = () => {
      if (waiting) client.stopNow(streamId);
      waiting = false;
    };
    unloadHandlers.add(onUnload);
    const removeListener = page ? addListeners([[page.window, "pagehide", onUnload]]) : () => {};
    await withRetries((attempt) => client.stop(streamId, { keepalive: attempt === 1 }), () => (waiting = true));
    removeListener();
    unloadHandlers.delete(onUnload);
  }

  /** Stops the stream, if any, during page unload. Also sends all stops that wait for a retry. */
  function unload(streamId) {
    if (streamId) client.stopNow(streamId);
    unloadHandlers.forEach((onUnload) => onUnload());
  }

  /** Resolves with false if the request failed. */
  function evict(streamId) {
    return withRetries(() => client.evict(String(streamId)));
  }

  async function withRetries(send, onFailure) {
    for (let attempt = 1; ; attempt += 1) {
      const { kind } = await send(attempt).outcome;
      if (kind === "ok" || kind === "error" || attempt === MAX_ATTEMPTS) return kind === "ok";
      onFailure?.();
      const waitMs = backoffMs(attempt, MAX_BACKOFF_MS, random);
      await new Promise((resolve) => timers.setTimeout(resolve, waitMs));
    }
  }

  return { release, unload, evict };
}
