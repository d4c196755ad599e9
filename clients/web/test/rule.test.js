// The published rule: what a session does at each answer of the service.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createWorld, evicted, expired, flush, full, gone, later, problem, respond, stream, unavailable } from "./world.js";

function setUp(options) {
  const world = createWorld();
  const session = world.listen(createSession({ ...world.options, ...options }));
  return { world, session };
}

test("a start names device, content and limit policy, has a key, and reports its stream", async () => {
  const { world, session } = setUp({ deviceName: "Laptop", contentId: () => "movie-7", atLimit: "evictOldest" });
  assert.equal(await session.start(), "live");
  const [start] = world.sent("start");
  assert.equal(start.url, "https://streams.test/v1/users/ann/streams");
  assert.equal(start.method, "POST");
  assert.match(start.headers["Idempotency-Key"], /^[0-9a-f-]{36}$/);
  assert.deepEqual(start.body, { deviceId: "tab-1", deviceName: "Laptop", contentId: "movie-7", atLimit: "evictOldest" });
  assert.equal(world.heard("started")[0].streamId, "stream-1");
  assert.deepEqual(world.heard("state").map(({ state }) => state), ["starting", "live"]);
  assert.equal(session.leaseEndsInSeconds, 90);
});

test("user names are escaped, and one that a URL cannot carry is refused at once", async () => {
  const { world, session } = setUp({ baseUrl: "https://streams.test/", userName: "a/b ü" });
  await session.start();
  assert.equal(world.calls[0].url, "https://streams.test/v1/users/a%2Fb%20%C3%BC/streams");
  assert.throws(() => setUp({ userName: ".." }), /userName/);
  assert.throws(() => setUp({ userName: "" }), /userName/);
  assert.throws(() => setUp({ onUnavailable: "pause" }), /onUnavailable/);
});

test("start pressed twice is one start", async () => {
  const { world, session } = setUp();
  const both = await Promise.all([session.start(), session.start()]);
  await session.start();
  assert.deepEqual(both, ["live", "live"]);
  assert.equal(world.sent("start").length, 1);
});

test("heartbeats go out at the interval that the newest answer says", async () => {
  const { world, session } = setUp();
  await session.start();
  world.next.heartbeat.push(stream("stream-1", { intervalS: 10 }));
  await world.advance(29_999);
  assert.equal(world.sent("heartbeat").length, 0);
  await world.advance(1);
  assert.equal(world.sent("heartbeat").length, 1);
  assert.equal(world.calls.at(-1).url, "https://streams.test/v1/users/ann/streams/stream-1/heartbeat");
  await world.advance(10_000);
  assert.equal(world.sent("heartbeat").length, 2);
  assert.equal(world.heard("renewed").length, 2);
});

test("jitter makes heartbeats earlier, never later", async () => {
  const world = createWorld({ random: () => 1 });
  const session = createSession(world.options);
  await session.start();
  await world.advance(26_999);
  assert.equal(world.sent("heartbeat").length, 0);
  await world.advance(1);
  assert.equal(world.sent("heartbeat").length, 1);
});

test("409 is denied, with what plays and how long to wait, and nothing more is sent", async () => {
  const { world, session } = setUp();
  world.next.start.push(full);
  assert.equal(await session.start(), "denied");
  const [denied] = world.heard("denied");
  assert.equal(denied.limit, 1);
  assert.equal(denied.count, 1);
  assert.equal(denied.slotFreesInSeconds, 42);
  assert.deepEqual(denied.streams, [{ streamId: "other", deviceName: "Living-room TV" }]);
  await world.advance(600_000);
  assert.equal(world.calls.length, 1);
});

test("a denial shows a hundred streams at most", async () => {
  const { world, session } = setUp();
  const streams = Array.from({ length: 500 }, (_, index) => ({ streamId: `s-${index}` }));
  world.next.start.push(problem(409, "stream-limit-reached", { limit: 500, count: 500, streams }));
  await session.start();
  assert.equal(world.heard("denied")[0].streams.length, 100);
});

test("only a start can be denied", async () => {
  const { world, session } = setUp();
  await session.start();
  world.next.heartbeat.push(full);
  await world.advance(30_000);
  assert.equal(session.state, "live");
  assert.equal(world.heard("denied").length, 0);
});

test("after a denial another stream can be evicted and the start repeated under a new key", async () => {
  const { world, session } = setUp();
  world.next.start.push(full);
  await session.start();
  const [denied] = world.heard("denied");
  assert.equal(await denied.stopOther("other"), true);
  assert.equal(world.sent("evict")[0].url, "https://streams.test/v1/users/ann/streams/other?evict=true");
  assert.equal(await denied.retry(), "live");
  const [first, second] = world.sent("start");
  assert.notEqual(first.headers["Idempotency-Key"], second.headers["Idempotency-Key"]);
});

test("a stream that is gone already is stopped", async () => {
  const { world, session } = setUp();
  world.next.evict.push(gone);
  assert.equal(await session.stopOther("other"), true);
});

test("an eviction that the service refuses is false, not a rejection", async () => {
  const { world, session } = setUp();
  world.next.evict.push(problem(403, "forbidden"));
  assert.equal(await session.stopOther("other"), false);
  assert.equal(world.sent("evict").length, 1);
});

test("a stream that somebody took ends, says who, and is not started again by itself", async () => {
  const { world, session } = setUp();
  await session.start();
  world.next.heartbeat.push(evicted);
  await world.advance(600_000);
  const [ended] = world.heard("ended");
  assert.equal(ended.reason, "evicted");
  assert.deepEqual(ended.endedBy, { streamId: "other", deviceName: "Kitchen tablet" });
  assert.equal(session.state, "ended");
  assert.equal(world.sent("start").length, 1);
  assert.equal(world.sent("heartbeat").length, 1);
  assert.equal(await session.retry(), "live");
});

for (const [name, answer, reason] of [["404", gone, "forgotten"], ["410 auto", expired, "expired"]]) {
  test(`${name} starts again at once and silently, under a new key`, async () => {
    const { world, session } = setUp();
    await session.start();
    world.next.heartbeat.push(answer);
    await world.advance(30_000);
    const [first, second] = world.sent("start");
    assert.equal(second.atMs, world.nowMs);
    assert.notEqual(first.headers["Idempotency-Key"], second.headers["Idempotency-Key"]);
    assert.deepEqual(first.body, second.body);
    const [restarted] = world.heard("restarted");
    assert.equal(restarted.previousStreamId, "stream-1");
    assert.equal(restarted.streamId, "stream-2");
    assert.equal(restarted.reason, reason);
    assert.equal(world.heard("started").length, 1);
    assert.equal(world.heard("ended").length, 0);
    assert.equal(session.state, "live");
  });
}

test("a silent start that finds the limit reached is denied", async () => {
  const { world, session } = setUp();
  await session.start();
  world.next.heartbeat.push(expired);
  world.next.start.push(full);
  await world.advance(30_000);
  assert.equal(session.state, "denied");
  assert.equal(world.heard("denied").length, 1);
});

test("streams that are forgotten again and again are started less and less often", async () => {
  const { world, session } = setUp();
  await session.start();
  world.next.heartbeat.push(...Array(200).fill(gone));
  const short = () => stream("short", { status: 201, intervalS: 1 });
  world.next.start.push(...Array.from({ length: 200 }, short));
  await world.advance(120_000);
  const starts = world.sent("start").length;
  assert.ok(starts > 5 && starts < 70, `${starts} starts`);
  world.next.heartbeat.length = 0;
});

test("a stream that was renewed before it was forgotten is started again at once, each time", async () => {
  const { world, session } = setUp();
  await session.start();
  for (let turn = 1; turn <= 3; turn += 1) {
    await world.advance(30_000);
    world.next.heartbeat.push(gone);
    await world.advance(30_000);
    assert.equal(world.sent("start").at(-1).atMs, world.nowMs);
    assert.equal(world.sent("start").length, 1 + turn);
  }
});

test("the key's stream ended meanwhile: a repeated start takes a new key, unless somebody took it", async () => {
  const { world, session } = setUp();
  world.next.start.push(unavailable, expired);
  await session.start();
  await world.advance(1000);
  const keys = world.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  assert.equal(keys.length, 3);
  assert.equal(keys[0], keys[1]);
  assert.notEqual(keys[1], keys[2]);
  assert.equal(session.state, "live");

  const taken = setUp();
  taken.world.next.start.push(evicted);
  assert.equal(await taken.session.start(), "ended");
});

for (const [status, code] of [
  [400, "invalid-request"],
  [403, "forbidden"],
  [404, "route-not-found"],
  [413, "payload-too-large"],
  [415, "unsupported-media-type"],
  [422, "idempotency-key-reused"],
]) {
  test(`${status} to a start is reported as a bug and neither repeated nor a reason to stop`, async () => {
    const { world, session } = setUp({ onUnavailable: "stop" });
    world.next.start.push(problem(status, code, {}, { "x-request-id": "r-1" }));
    assert.equal(await session.start(), "failed");
    await world.advance(600_000);
    assert.equal(world.calls.length, 1);
    const [error] = world.heard("error");
    assert.deepEqual([error.status, error.code, error.requestId], [status, code, "r-1"]);
    assert.equal(world.heard("ended").length + world.heard("denied").length, 0);
    assert.equal(await session.start(), "live");
  });
}

test("a heartbeat that is refused as a bug is reported once, and heartbeats go on", async () => {
  const { world, session } = setUp({ onUnavailable: "stop" });
  await session.start();
  world.next.heartbeat.push(...Array(5).fill(problem(403, "forbidden")));
  await world.advance(150_000);
  assert.equal(world.sent("heartbeat").length, 5);
  assert.equal(world.heard("error").length, 1);
  assert.equal(session.state, "live");
});

test("what a listener throws or rejects with reaches neither the session nor the other listeners", async (t) => {
  const reported = t.mock.method(console, "error", () => {});
  const { world, session } = setUp();
  session.on("started", () => {
    throw new Error("listener");
  });
  session.on("started", async () => {
    throw new Error("async listener");
  });
  let after = 0;
  session.on("started", () => (after += 1));
  await session.start();
  await flush();
  assert.equal(after, 1);
  assert.equal(reported.mock.callCount(), 2);
  await world.advance(30_000);
  assert.equal(world.sent("heartbeat").length, 1);
});

test("a content id that cannot be told is reported and left out", async () => {
  const { world, session } = setUp({
    contentId: () => {
      throw new Error("no player");
    },
  });
  await session.start();
  assert.equal(world.heard("error")[0].code, "content-id-failed");
  assert.deepEqual(world.calls[0].body, { deviceId: "tab-1" });
});

test("a listener that a listener adds hears from the next event on", async () => {
  const { world, session } = setUp();
  const heard = [];
  session.on("state", () => session.on("state", ({ state }) => heard.push(state)));
  await session.start();
  assert.deepEqual(heard, ["live"]);
  assert.equal(world.heard("state").length, 2);
});

test("listeners can be taken away", async () => {
  const { session } = setUp();
  let heard = 0;
  const listener = () => (heard += 1);
  session.on("started", listener)();
  session.on("started", listener);
  session.off("started", listener);
  await session.start();
  assert.equal(heard, 0);
});

test("a stop from within a listener keeps later events of the same step from coming", async () => {
  const { world, session } = setUp();
  session.on("state", ({ state }) => state === "live" && session.stop());
  await session.start();
  await flush();
  assert.equal(world.heard("started").length, 0);
  assert.equal(world.sent("stop").length, 1);
  assert.equal(session.state, "idle");
});

test("a page in place of an answer, as hotel networks give, is no answer", async () => {
  const { world, session } = setUp();
  world.next.start.push(respond(200, undefined, { "content-type": "text/html" }));
  assert.equal(await session.start(), "unavailable");
  assert.equal(world.heard("unavailable")[0].code, "malformed-answer");
  await world.advance(1000);
  assert.equal(session.state, "live");
});

test("an interval or a lease beyond all sense is brought within bounds", async () => {
  const { world, session } = setUp();
  world.next.start.push(stream("s", { leaseS: 1e12, intervalS: 0.001 }));
  world.next.heartbeat.push(later(gone));
  await session.start();
  assert.equal(session.leaseEndsInSeconds, 86_400);
  await world.advance(999);
  assert.equal(world.sent("heartbeat").length, 0);
  await world.advance(1);
  assert.equal(world.sent("heartbeat").length, 1);
});
