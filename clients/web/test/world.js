// A world for tests: clock, timers, service, page and media element that move only when told to. Asserts nothing.

import { EventEmitter } from "node:events";

/** Lets everything run that waits for nothing but promises. */
export async function flush() {
  for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

export function createWorld({ random = () => 0 } = {}) {
  const world = {
    nowMs: 1_000_000,
    wallMs: 1_750_000_000_000,
    timers: new Map(),
    calls: [],
    beacons: [],
    next: { start: [], heartbeat: [], stop: [], evict: [] },
    events: [],
    page: createPage(),
  };
  let ids = 0;

  const pass = (ms) => ((world.nowMs += ms), (world.wallMs += ms));

  /** Time goes by, and every timer comes when it should. */
  world.advance = async (ms) => {
    const endMs = world.nowMs + ms;
    await flush();
    for (let due; (due = earliest(endMs)); ) {
      pass(Math.max(due.dueMs - world.nowMs, 0));
      await fire(due);
    }
    pass(endMs - world.nowMs);
  };

  /** Timers stand still while the clocks go on; afterwards the overdue ones come. */
  world.sleep = (ms, { monotonic = true } = {}) => {
    world.wallMs += ms;
    if (monotonic) world.nowMs += ms;
  };
  world.fireOverdue = async () => {
    for (let due; (due = earliest(world.nowMs)); ) await fire(due);
  };

  /** A hidden tab: timers come only at whole minutes. */
  world.advanceThrottled = async (minutes) => {
    for (let minute = 0; minute < minutes; minute += 1) {
      world.sleep(60_000);
      const overdue = [...world.timers.values()].filter(({ dueMs }) => dueMs <= world.nowMs);
      for (const timer of overdue) if (world.timers.has(timer.id)) await fire(timer);
    }
  };

  function earliest(endMs) {
    return [...world.timers.values()].filter(({ dueMs }) => dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs || a.id - b.id)[0];
  }

  async function fire(timer) {
    world.timers.delete(timer.id);
    timer.call();
    await flush();
  }

  const timers = {
    setTimeout(call, delayMs) {
      const id = ++ids;
      // As browsers do: a delay that does not fit is none.
      world.timers.set(id, { id, call, dueMs: world.nowMs + (delayMs > 2 ** 31 - 1 ? 0 : delayMs) });
      return id;
    },
    clearTimeout: (id) => world.timers.delete(id),
  };

  function fetch(url, init = {}) {
    const call = kindOf(url, init);
    const seen = { call, url, ...init, atMs: world.nowMs, body: init.body && JSON.parse(init.body) };
    world.calls.push(seen);
    const answer = world.next[call].shift() ?? usual[call];
    return answer(seen);
  }

  let streams = 0;
  const usual = {
    start: () => stream(`stream-${++streams}`, { status: 201 })(),
    heartbeat: ({ url }) => stream(url.split("/").at(-2))(),
    stop: () => respond(204)(),
    evict: () => respond(204)(),
  };

  world.options = {
    baseUrl: "https://streams.test",
    userName: "ann",
    deviceId: "tab-1",
    fetch,
    sendBeacon: (url) => world.beacons.push(url) > 0,
    clock: { now: () => world.nowMs, wall: () => world.wallMs },
    timers,
    random,
    page: world.page,
  };

  /** Notes every event of a session, or of what `attach` returned. */
  world.listen = (emitter) => {
    for (const type of ["started", "renewed", "restarted", "denied", "ended", "unavailable", "available", "error", "state"]) {
      emitter.on(type, (event) => world.events.push(event));
    }
    return emitter;
  };
  world.heard = (type) => world.events.filter((event) => event.type === type);
  world.sent = (call) => world.calls.filter((seen) => seen.call === call);
  return world;
}

function kindOf(url, { method }) {
  if (method === "DELETE") return url.endsWith("?evict=true") ? "evict" : "stop";
  return url.endsWith("/heartbeat") ? "heartbeat" : "start";
}

/** Answers, each a function of the request. */
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

export function stream(streamId, { status = 200, leaseS = 90, intervalS = 30 } = {}) {
  return respond(status, { streamId, userName: "ann", expiresInSeconds: leaseS, heartbeatIntervalSeconds: intervalS });
}

export const noNetwork = async () => {
  throw new TypeError("Failed to fetch");
};

/** Ends only by the request's abort. */
export const silence = ({ signal }) =>
  new Promise((_, reject) => signal?.addEventListener("abort", () => reject(new Error("aborted"))));

/** An answer that comes when the test says so. */
export function later(answer) {
  let arrive;
  const arrived = new Promise((resolve) => (arrive = resolve));
  const delayed = async (seen) => (await arrived, answer(seen));
  return Object.assign(delayed, { arrive: () => (arrive(), flush()) });
}

export const gone = problem(404, "stream-not-found", { restart: "auto" });
export const expired = problem(410, "stream-ended", { reason: "expired", restart: "auto" });
export const evicted = problem(410, "stream-ended", {
  reason: "evicted",
  restart: "user",
  endedBy: { streamId: "other", deviceName: "Kitchen tablet" },
});
export const unavailable = problem(503, "store-unavailable", {});
export const full = problem(409, "stream-limit-reached", {
  limit: 1,
  count: 1,
  streams: [{ streamId: "other", deviceName: "Living-room TV" }],
  slotFreesInSeconds: 42,
});

class Target {
  #emitter = new EventEmitter();
  addEventListener(type, listener) {
    this.#emitter.on(type, listener);
  }
  removeEventListener(type, listener) {
    this.#emitter.off(type, listener);
  }
  dispatch(type, fields) {
    this.#emitter.emit(type, { type, ...fields });
    return flush();
  }
  listeners(type) {
    return this.#emitter.listenerCount(type);
  }
}

export function createPage() {
  return { window: new Target(), document: Object.assign(new Target(), { visibilityState: "visible" }) };
}

export class Video extends Target {
  paused = true;
  ended = false;
  error = null;
  pauses = 0;
  async play() {
    const wasPaused = this.paused;
    this.paused = false;
    this.ended = false;
    if (wasPaused) this.dispatch("play");
    await this.dispatch("playing");
  }
  pause() {
    if (this.paused) return Promise.resolve();
    this.paused = true;
    this.pauses += 1;
    return this.dispatch("pause");
  }
  end() {
    this.paused = true;
    this.ended = true;
    this.dispatch("pause");
    return this.dispatch("ended");
  }
}
