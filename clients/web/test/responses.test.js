// Tests of the rule for players (docs/PROTOCOL.md): how a session reacts to each response of the service.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createEnvironment, deferred, evicted, expired, flushPromises, limitReached, notFound, problem, respond, stream, unavailable } from "./environment.js";

function setUp(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  return { env, session };
}

test("a start sends device, content, policy and idempotency key", async () => {
  const { env, session } = setUp({ deviceName: "Laptop", contentId: () => "movie-7", atLimit: "evictOldest" });
  assert.equal(await session.start(), "live");
  const [start] = env.sent("start");
  assert.equal(start.url, "https://streams.test/v1/users/ann/streams");
  assert.equal(start.method, "POST");
  assert.match(start.headers["Idempotency-Key"], /^[0-9a-f-]{36}$/);
  assert.deepEqual(start.body, { deviceId: "tab-1", deviceName: "Laptop", contentId: "movie-7", atLimit: "evictOldest" });
  assert.equal(env.emitted("started")[0].streamId, "stream-1");
  assert.deepEqual(env.emitted("state").map(({ state }) => state), ["starting", "live"]);
  assert.equal(session.leaseEndsInSeconds, 90);
});

test("user names are percent-encoded", async () => {
  const { env, session } = setUp({ baseUrl: "https://streams.test/", userName: "a/b ü" });
  await session.start();
  assert.equal(env.requests[0].url, "https://streams.test/v1/users/a%2Fb%20%C3%BC/streams");
});

test("invalid options throw", () => {
  assert.throws(() => setUp({ userName: ".." }), /userName/);
  assert.throws(() => setUp({ userName: "" }), /userName/);
  assert.throws(() => setUp({ onUnavailable: "pause" }), /onUnavailable/);
});

test("concurrent starts send one request", async () => {
  const { env, session } = setUp();
  const both = await Promise.all([session.start(), session.start()]);
  await session.start();
  assert.deepEqual(both, ["live", "live"]);
  assert.equal(env.sent("start").length, 1);
});

test("heartbeats follow the interval of the latest response", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(stream("stream-1", { intervalS: 10 }));
  await env.advance(29_999);
  assert.equal(env.sent("heartbeat").length, 0);
  await env.advance(1);
  assert.equal(env.sent("heartbeat").length, 1);
  assert.equal(env.requests.at(-1).url, "https://streams.test/v1/users/ann/streams/stream-1/heartbeat");
  await env.advance(10_000);
  assert.equal(env.sent("heartbeat").length, 2);
  assert.equal(env.emitted("renewed").length, 2);
});

test("jitter makes heartbeats earlier, never later", async () => {
  const env = createEnvironment({ random: () => 1 });
  const session = createSession(env.options);
  await session.start();
  await env.advance(26_999);
  assert.equal(env.sent("heartbeat").length, 0);
  await env.advance(1);
  assert.equal(env.sent("heartbeat").length, 1);
});

test("a 409 denies the start and ends all requests", async () => {
  const { env, session } = setUp();
  env.responses.start.push(limitReached);
  assert.equal(await session.start(), "denied");
  const [denied] = env.emitted("denied");
  assert.equal(denied.limit, 1);
  assert.equal(denied.count, 1);
  assert.equal(denied.slotFreesInSeconds, 42);
  assert.deepEqual(denied.streams, [{ streamId: "other", deviceName: "Living-room TV" }]);
  await env.advance(600_000);
  assert.equal(env.requests.length, 1);
});

test("a denial lists at most 100 streams", async () => {
  const { env, session } = setUp();
  const streams = Array.from({ length: 500 }, (_, index) => ({ streamId: `s-${index}` }));
  env.responses.start.push(problem(409, "stream-limit-reached", { limit: 500, count: 500, streams }));
  await session.start();
  assert.equal(env.emitted("denied")[0].streams.length, 100);
});

test("a 409 to a heartbeat is not a denial", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(limitReached);
  await env.advance(30_000);
  assert.equal(session.state, "live");
  assert.equal(env.emitted("denied").length, 0);
});

test("a retry after a denial uses a new key", async () => {
  const { env, session } = setUp();
  env.responses.start.push(limitReached);
  await session.start();
  const [denied] = env.emitted("denied");
  assert.equal(await denied.stopOther("other"), true);
  assert.equal(env.sent("evict")[0].url, "https://streams.test/v1/users/ann/streams/other?evict=true");
  assert.equal(await denied.retry(), "live");
  const [first, second] = env.sent("start");
  assert.notEqual(first.headers["Idempotency-Key"], second.headers["Idempotency-Key"]);
});

test("evicting an unknown stream succeeds", async () => {
  const { env, session } = setUp();
  env.responses.evict.push(notFound);
  assert.equal(await session.stopOther("other"), true);
});

test("a rejected eviction resolves with false", async () => {
  const { env, session } = setUp();
  env.responses.evict.push(problem(403, "forbidden"));
  assert.equal(await session.stopOther("other"), false);
  assert.equal(env.sent("evict").length, 1);
});

test("an evicted stream ends and is not restarted", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(evicted);
  await env.advance(600_000);
  const [ended] = env.emitted("ended");
  assert.equal(ended.reason, "evicted");
  assert.deepEqual(ended.endedBy, { streamId: "other", deviceName: "Kitchen tablet" });
  assert.equal(session.state, "ended");
  assert.equal(env.sent("start").length, 1);
  assert.equal(env.sent("heartbeat").length, 1);
  assert.equal(await session.retry(), "live");
});

for (const [name, response, reason] of [["404", notFound, "forgotten"], ["410", expired, "expired"]]) {
  test(`a ${name} to a heartbeat restarts with a new key`, async () => {
    const { env, session } = setUp();
    await session.start();
    env.responses.heartbeat.push(response);
    await env.advance(30_000);
    const [first, second] = env.sent("start");
    assert.equal(second.atMs, env.nowMs);
    assert.notEqual(first.headers["Idempotency-Key"], second.headers["Idempotency-Key"]);
    assert.deepEqual(first.body, second.body);
    const [restarted] = env.emitted("restarted");
    assert.equal(restarted.previousStreamId, "stream-1");
    assert.equal(restarted.streamId, "stream-2");
    assert.equal(restarted.reason, reason);
    assert.equal(env.emitted("started").length, 1);
    assert.equal(env.emitted("ended").length, 0);
    assert.equal(session.state, "live");
  });
}

test("a restart at the limit is denied", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(expired);
  env.responses.start.push(limitReached);
  await env.advance(30_000);
  assert.equal(session.state, "denied");
  assert.equal(env.emitted("denied").length, 1);
});

test("restarts of repeatedly lost streams back off", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(...Array(200).fill(notFound));
  const short = () => stream("short", { status: 201, intervalS: 1 });
  env.responses.start.push(...Array.from({ length: 200 }, short));
  await env.advance(120_000);
  const starts = env.sent("start").length;
  assert.ok(starts > 5 && starts < 70, `${starts} starts`);
  env.responses.heartbeat.length = 0;
});

test("a stream lost after a renewal restarts at once", async () => {
  const { env, session } = setUp();
  await session.start();
  for (let turn = 1; turn <= 3; turn += 1) {
    await env.advance(30_000);
    env.responses.heartbeat.push(notFound);
    await env.advance(30_000);
    assert.equal(env.sent("start").at(-1).atMs, env.nowMs);
    assert.equal(env.sent("start").length, 1 + turn);
  }
});

test("a retried start whose stream expired uses a new key", async () => {
  const { env, session } = setUp();
  env.responses.start.push(unavailable, expired);
  await session.start();
  await env.advance(1000);
  const keys = env.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  assert.equal(keys.length, 3);
  assert.equal(keys[0], keys[1]);
  assert.notEqual(keys[1], keys[2]);
  assert.equal(session.state, "live");
});

test("a start whose stream was evicted ends", async () => {
  const { env, session } = setUp();
  env.responses.start.push(evicted);
  assert.equal(await session.start(), "ended");
});

test("a failing listener does not affect session or other listeners", async (t) => {
  const reported = t.mock.method(console, "error", () => {});
  const { env, session } = setUp();
  session.on("started", () => {
    throw new Error("listener");
  });
  session.on("started", async () => {
    throw new Error("async listener");
  });
  let after = 0;
  session.on("started", () => (after += 1));
  await session.start();
  await flushPromises();
  assert.equal(after, 1);
  assert.equal(reported.mock.callCount(), 2);
  await env.advance(30_000);
  assert.equal(env.sent("heartbeat").length, 1);
});

for (const status of [400, 409, 413, 418]) {
  test(`a ${status} without a code to a heartbeat counts as an outage`, async () => {
    const { env, session } = setUp({ onUnavailable: "stop" });
    await session.start();
    env.responses.heartbeat.push(...Array(50).fill(respond(status, undefined, { "content-type": "text/html" })));
    await env.advance(89_999);
    assert.equal(session.state, "unavailable");
    assert.equal(env.emitted("error").length, 0);
    await env.advance(1);
    assert.equal(env.emitted("ended")[0].reason, "unavailable");
  });
}

test("a 404 without a code to a heartbeat starts again", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(respond(404, undefined, { "content-type": "text/html" }));
  await env.advance(30_000);
  assert.equal(session.streamId, "stream-2");
});

test("a failing contentId function is reported and omitted", async () => {
  const { env, session } = setUp({
    contentId: () => {
      throw new Error("no player");
    },
  });
  await session.start();
  assert.equal(env.emitted("error")[0].code, "content-id-failed");
  assert.deepEqual(env.requests[0].body, { deviceId: "tab-1" });
});

test("a listener added during an event receives only later events", async () => {
  const { env, session } = setUp();
  const states = [];
  session.on("state", () => session.on("state", ({ state }) => states.push(state)));
  await session.start();
  assert.deepEqual(states, ["live"]);
  assert.equal(env.emitted("state").length, 2);
});

test("removed listeners receive no events", async () => {
  const { session } = setUp();
  let events = 0;
  const listener = () => (events += 1);
  session.on("started", listener)();
  session.on("started", listener);
  session.off("started", listener);
  await session.start();
  assert.equal(events, 0);
});

test("a stop in a listener drops pending events", async () => {
  const { env, session } = setUp();
  session.on("state", ({ state }) => state === "live" && session.stop());
  await session.start();
  await flushPromises();
  assert.equal(env.emitted("started").length, 0);
  assert.equal(env.sent("stop").length, 1);
  assert.equal(session.state, "idle");
});

test("an HTML page with status 200 counts as an outage", async () => {
  const { env, session } = setUp();
  env.responses.start.push(respond(200, undefined, { "content-type": "text/html" }));
  assert.equal(await session.start(), "unavailable");
  assert.equal(env.emitted("unavailable")[0].code, "malformed-answer");
  await env.advance(1000);
  assert.equal(session.state, "live");
});

test("lease and interval from the server are clamped", async () => {
  const { env, session } = setUp();
  env.responses.start.push(stream("s", { leaseS: 1e12, intervalS: 0.001 }));
  env.responses.heartbeat.push(deferred(notFound));
  await session.start();
  assert.equal(session.leaseEndsInSeconds, 86_400);
  await env.advance(999);
  assert.equal(env.sent("heartbeat").length, 0);
  await env.advance(1);
  assert.equal(env.sent("heartbeat").length, 1);
});
