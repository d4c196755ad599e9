// The network of one device: passes requests through, logs each response, and can be cut to simulate a crash.

import { describeResponse } from "./request-log.js";

/** Returns the `fetch` and `sendBeacon` options of a player. Calls `onResponse()` after each request. */
export function createNetwork({ device, log, onResponse }) {
  let cut = false;

  async function loggedFetch(url, init) {
    if (cut) return new Promise(() => {});
    const request = { device, method: init.method ?? "GET", url };
    try {
      const response = await fetch(url, init);
      const body = await response.clone().json().catch(() => undefined);
      // Fail instead of waiting forever, because the device's next start waits for this request.
      if (cut) throw new TypeError("network is cut");
      log.add({ ...request, status: response.status, ...describeResponse(request, response, body) });
      return response;
    } catch (error) {
      if (!cut) log.add({ ...request, status: "none", tone: "warn", meaning: "No response: keeps playing and retries" });
      throw error;
    } finally {
      onResponse();
    }
  }

  function sendBeacon(url) {
    return cut || navigator.sendBeacon(url);
  }

  return { fetch: loggedFetch, sendBeacon, cut: () => (cut = true) };
}
