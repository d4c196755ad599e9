// Test environment: fake clocks, timers, service, page and media element. Time advances only when a test advances it.

import { EventEmitter } from "node:events";

/** Runs all pending promise callbacks. */
export async function flushPromises() {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

export function createEnvironment({ random = () => 0 } = {}) {
  const env = {
    nowMs: 1_000_000,
    wallMs: 1_750_000_000_000,
    timers: new Map(),
    requests: [],
    beacons: [],
    /** Queued responses by operation. If a queue is empty, the default response is used. */
    responses: { start: [], heartbeat: [], stop: [], evict: [] },
    events: [],
    /** Returns the grant of the next default response. */
    nextGrant: () => undefined,
    page: createPage(),
  };
  let timerIds = 0;

  const pass = (ms) => ((env.nowMs += ms), (env.wallMs += ms));

  /** Advances both clocks and runs each timer when it is due. */
  env.advance = async (ms) => {
    const endMs = env.nowMs + ms;
    await flushPromises();
    for (let due; (due = earliestTimer(endMs)); ) {
      pass(Math.max(due.dueMs - env.nowMs, 0));
      await run(due);
    }
    pass(endMs - env.nowMs);
  };

  /** Advances the clocks without running timers, like a sleeping device. */
  env.sleep = (ms, { monotonic = true } = {}) => {
    env.wallMs += ms;
    if (monotonic) env.nowMs += ms;
  };
  env.runOverdueTimers = async () => {
    for (let due; (due = earliestTimer(env.nowMs)); ) await run(due);
  };

  /** Runs timers once per minute, like a hidden tab. */
  env.advanceThrottled = async (minutes) => {
    for (let minute = 0; minute < minutes; minute += 1) {
      env.sleep(60_000);
      const overdue = [...env.timers.values()].filter(({ dueMs }) => dueMs <= env.nowMs);
      for (const timer of overdue) if (env.timers.has(timer.id)) await run(timer);
    }
  };

  function earliestTimer(endMs) {
    return [...env.timers.values()].filter(({ dueMs }) => dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs || a.id - b.id)[0];
  }

  async function run(timer) {
    env.timers.delete(timer.id);
    timer.call();
    await flushPromises();
  }

  const timers = {
    setTimeout(call, delayMs) {
      const id = ++timerIds;
      // As in browsers, a delay over 2^31 - 1 ms becomes 0.
      env.timers.set(id, { id, call, dueMs: env.nowMs + (delayMs > 2 ** 31 - 1 ? 0 : delayMs) });
      return id;
    },
    clearTimeout: (id) => env.timers.delete(id),
  };

  function fetch(url, init = {}) {
    const operation = operationOf(url, init);
    const request = { operation, url, ...init, atMs: env.nowMs, body: init.body && JSON.parse(init.body) };
    env.requests.push(request);
    const response = env.responses[operation].shift() ?? defaultResponses[operation];
    return response(request);
  }

  let streams = 0;
  const defaultResponses = {
    start: ({ body }) => stream(`stream-${++streams}`, { status: 201, contentId: body.contentId, grant: env.nextGrant() })(),
    heartbeat: ({ url, body }) => stream(url.split("/").at(-2), { contentId: body?.contentId, grant: env.nextGrant() })(),
    stop: () => respond(204)(),
    evict: () => respond(204)(),
  };

  env.options = {
    baseUrl: "https://streams.test",
    userName: "ann",
    deviceId: "tab-1",
    fetch,
    sendBeacon(url) {
      env.onBeacon?.();
      return env.beacons.push(url) > 0;
    },
    clock: { now: () => env.nowMs, wall: () => env.wallMs },
    timers,
    random,
    page: env.page,
  };

  /** Records every event of a session or of an `attach` result. */
  env.record = (emitter) => {
    for (const type of ["started", "renewed", "restarted", "relabeled", "labelsDenied", "grant", "denied", "ended", "unavailable", "available", "error", "state"]) {
      emitter.on(type, (event) => env.events.push(event));
    }
    return emitter;
  };
  env.emitted = (type) => env.events.filter((event) => event.type === type);
  env.sent = (operation) => env.requests.filter((request) => request.operation === operation);
  return env;
}

function operationOf(url, { method }) {
  if (method === "DELETE") return url.endsWith("?evict=true") ? "evict" : "stop";
  if (url.endsWith("/stop")) return "stop";
  return url.endsWith("/heartbeat") ? "heartbeat" : "start";
}

/** The stream id of each stop request. */
export const streamIds = (requests) => requests.map(({ url }) => url.replace(/\/stop$/, "").split("/").at(-1));

/** Returns a fake response: a function that `fetch` calls with the request. */
export function respond(status, body, headers = {}) {
  const all = new Map(Object.entries({ ...(body && { "content-type": "application/problem+json" }), ...headers }));
  return async () => ({
    status,
    headers: { get: (name) => all.get(name.toLowerCase()) ?? null },
    json: async () => structuredClone(body),
  });
}

export function problem(status, code, fields, headers) {
  return respond(status, { code, status, detail: `about ${code}`, ...fields }, headers);
}

export function stream(streamId, { status = 200, leaseS = 90, intervalS = 30, contentId, grant } = {}) {
  const times = { expiresInSeconds: leaseS, heartbeatIntervalSeconds: intervalS };
  return respond(status, { streamId, userName: "ann", contentId, ...times, ...(grant && { grant }) });
}

export const networkError = async () => {
  throw new TypeError("Failed to fetch");
};

/** Never resolves. Rejects only when the request is aborted. */
export const noResponse = ({ signal }) =>
  new Promise((_, reject) => signal?.addEventListener("abort", () => reject(new Error("aborted"))));

/** A response that arrives only when the test calls `deliver()`. */
export function deferred(response) {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  const held = async (request) => (await released, response(request));
  return Object.assign(held, { deliver: () => (release(), flushPromises()) });
}

export const notFound = problem(404, "stream-not-found", { restart: "auto" });
export const expired = problem(410, "stream-ended", { reason: "expired", restart: "auto" });
export const evicted = problem(410, "stream-ended", {
  reason: "evicted",
  restart: "user",
  endedBy: { streamId: "other", deviceName: "Kitchen tablet" },
});
export const unavailable = problem(503, "store-unavailable", {});
export const limitReached = problem(409, "stream-limit-reached", {
  limit: 1,
  count: 1,
  streams: [{ streamId: "other", deviceName: "Living-room TV" }],
  slotFreesInSeconds: 42,
});

class FakeEventTarget {
  #emitter = new EventEmitter();
  addEventListener(type, listener) {
    this.#emitter.on(type, listener);
  }
  removeEventListener(type, listener) {
    this.#emitter.off(type, listener);
  }
  dispatch(type, fields) {
    this.#emitter.emit(type, { type, ...fields });
    return flushPromises();
  }
  /** Calls only one listener, as if the browser had aborted the others. */
  dispatchTo(index, type, fields) {
    this.#emitter.listeners(type)[index]({ type, ...fields });
    return flushPromises();
  }
  listeners(type) {
    return this.#emitter.listenerCount(type);
  }
}

export function createPage() {
  return { window: new FakeEventTarget(), document: Object.assign(new FakeEventTarget(), { visibilityState: "visible" }) };
}

/** As in browsers, `paused` changes at once, and the events follow in later tasks. */
export class FakeVideo extends FakeEventTarget {
  paused = true;
  ended = false;
  error = null;
  pauses = 0;
  async play() {
    const wasPaused = this.paused;
    this.paused = false;
    this.ended = false;
    if (wasPaused) this.#fire("play");
    await this.#fire("playing");
  }
  pause() {
    if (this.paused) return Promise.resolve();
    this.paused = true;
    this.pauses += 1;
    return this.#fire("pause");
  }
  end() {
    this.paused = true;
    this.ended = true;
    this.#fire("pause");
    return this.#fire("ended");
  }
  async #fire(type) {
    await new Promise((resolve) => setImmediate(resolve));
    await this.dispatch(type);
  }
}
