// Stopping: that the slot is freed, also when answers are late, the service is away or the page is closing.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createWorld, flush, gone, later, noNetwork, problem, respond, silence, stream, unavailable } from "./world.js";

async function playing(options) {
  const world = createWorld();
  const session = world.listen(createSession({ ...world.options, ...options }));
  await session.start();
  return { world, session };
}

test("stop frees the slot, and nothing is sent after it", async () => {
  const { world, session } = await playing();
  await session.stop();
  const [stop] = world.sent("stop");
  assert.equal(stop.url, "https://streams.test/v1/users/ann/streams/stream-1");
  assert.equal(stop.method, "DELETE");
  assert.equal(session.state, "idle");
  assert.equal(session.streamId, null);
  await session.stop();
  await world.advance(600_000);
  assert.equal(world.calls.length, 2);
});

test("each playback has a key of its own", async () => {
  const { world, session } = await playing();
  await session.stop();
  await session.start();
  const keys = world.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  assert.notEqual(keys[0], keys[1]);
});

test("a stop that nobody answers is repeated a few times, with back-off", async () => {
  const { world, session } = await playing();
  world.next.stop.push(unavailable, noNetwork, silence);
  const stopped = session.stop();
  await world.advance(60_000);
  await stopped;
  const sent = world.sent("stop").map(({ atMs }) => atMs);
  assert.deepEqual(sent.slice(1).map((atMs, index) => atMs - sent[index]), [1000, 2000, 14_000]);

  world.next.stop.push(...Array(20).fill(noNetwork));
  await session.start();
  const givenUp = session.stop();
  await world.advance(600_000);
  await givenUp;
  assert.equal(world.sent("stop").length, 4 + 4);
});

for (const [name, answer] of [["404", gone], ["a bug", problem(403, "forbidden")]]) {
  test(`a stop that is answered with ${name} is done`, async () => {
    const { world, session } = await playing();
    world.next.stop.push(answer);
    await session.stop();
    await world.advance(60_000);
    assert.equal(world.sent("stop").length, 1);
  });
}

test("a page in place of the answer to a stop is no answer", async () => {
  const { world, session } = await playing();
  world.next.stop.push(respond(200, undefined, { "content-type": "text/html" }));
  const stopped = session.stop();
  await world.advance(5000);
  await stopped;
  assert.equal(world.sent("stop").length, 2);
});

test("a start that is answered after the stop is stopped then", async () => {
  const world = createWorld();
  const session = world.listen(createSession(world.options));
  const late = later(stream("late", { status: 201 }));
  world.next.start.push(late);
  const started = session.start();
  const stopped = session.stop();
  assert.equal(await started, "idle");
  await flush();
  assert.equal(world.sent("stop").length, 0);
  await late.arrive();
  await stopped;
  assert.equal(world.sent("stop")[0].url.split("/").at(-1), "late");
  assert.equal(world.heard("started").length, 0);
  assert.equal(session.state, "idle");
});

test("a late answer of a stopped playback does not touch the next one", async () => {
  const world = createWorld();
  const session = world.listen(createSession(world.options));
  const late = later(stream("late", { status: 201 }));
  world.next.start.push(late);
  session.start();
  void session.stop();
  const again = session.start();
  await late.arrive();
  assert.equal(await again, "live");
  assert.equal(session.streamId, "stream-1");
  assert.deepEqual(world.sent("stop").map(({ url }) => url.split("/").at(-1)), ["late"]);
});

/** A service that keeps one stream a device, the one that it commits last; the first start takes `latencyMs`. */
function replacing(world, latencyMs) {
  let live;
  const commit = (streamId) => ((live = streamId), stream(streamId, { status: 201 }));
  const slow = later((seen) => commit("first")(seen));
  world.options.timers.setTimeout(slow.arrive, latencyMs);
  world.next.start.push(slow, (seen) => commit("second")(seen));
  world.next.heartbeat.push(
    ...Array(9).fill((seen) => (seen.url.includes(live) ? stream(live)(seen) : problem(410, "stream-ended", { reason: "replaced", restart: "user" })(seen))),
  );
}

for (const latencyMs of [1000, 9000]) {
  test(`stopped and started within the ${latencyMs} ms of a start: the second waits for the first, and lives`, async () => {
    const world = createWorld();
    const session = world.listen(createSession(world.options));
    replacing(world, latencyMs);
    void session.start();
    void session.stop();
    void session.start();
    await world.advance(latencyMs - 1);
    assert.equal(world.sent("start").length, 1);
    await world.advance(100_000);
    assert.equal(session.state, "live");
    assert.equal(session.streamId, "second");
    assert.equal(world.sent("start").length, 2);
    assert.equal(world.heard("ended").length, 0);
  });
}

test("another session of the same device waits too, one of another device does not", async () => {
  const world = createWorld();
  const first = createSession(world.options);
  replacing(world, 1000);
  void first.start();
  void first.stop();
  await flush();
  const second = createSession(world.options);
  void second.start();
  world.next.start.unshift(stream("other", { status: 201 }));
  const other = createSession({ ...world.options, deviceId: "tab-2" });
  void other.start();
  await flush();
  assert.deepEqual(world.sent("start").map(({ body }) => body.deviceId), ["tab-1", "tab-2"]);
  void other.stop();
  await world.advance(100_000);
  assert.equal(second.state, "live");
});

test("a start that is never answered holds up the next one only for its time limit", async () => {
  const world = createWorld();
  const session = world.listen(createSession({ ...world.options, requestTimeoutS: 5 }));
  world.next.start.push(silence);
  void session.start();
  void session.stop();
  void session.start();
  await world.advance(4999);
  assert.equal(world.sent("start").length, 1);
  assert.equal(session.state, "starting");
  await world.advance(1);
  assert.equal(session.state, "live");
});

test("a start that waits for an earlier one can be stopped too", async () => {
  const world = createWorld();
  const session = world.listen(createSession(world.options));
  replacing(world, 1000);
  void session.start();
  void session.stop();
  void session.start();
  await session.stop();
  await world.advance(100_000);
  assert.equal(world.sent("start").length, 1);
  assert.deepEqual(world.sent("stop").map(({ url }) => url.split("/").at(-1)), ["first"]);
  assert.equal(session.state, "idle");
});

test("a late refusal of a stopped playback is not heard", async () => {
  const { world, session } = await playing();
  const late = later(gone);
  world.next.heartbeat.push(late);
  await world.advance(30_000);
  await session.stop();
  assert.equal(world.sent("heartbeat")[0].signal.aborted, true);
  await late.arrive();
  assert.equal(session.state, "idle");
  assert.equal(world.sent("start").length, 1);
});

test("stop while a start waits for its next try gives the start up", async () => {
  const world = createWorld();
  const session = world.listen(createSession(world.options));
  world.next.start.push(noNetwork);
  await session.start();
  await session.stop();
  await world.advance(600_000);
  assert.equal(world.calls.length, 1);
});

test("at unload the stop is sent before anything else runs, kept alive, with the token, and once", async () => {
  const { world, session } = await playing({ token: () => "t" });
  void session.stop({ unload: true });
  const [stop] = world.sent("stop");
  assert.equal(stop.method, "DELETE");
  assert.equal(stop.keepalive, true);
  assert.equal(stop.headers.Authorization, "Bearer t");
  assert.equal(world.beacons.length, 0);
  await world.advance(60_000);
  assert.equal(world.sent("stop").length, 1);
});

test("a stop is kept alive, and repeated in the plain way, for browsers that keep none alive", async () => {
  const { world, session } = await playing();
  world.next.stop.push(noNetwork);
  const stopped = session.stop();
  await world.advance(1000);
  await stopped;
  assert.deepEqual(world.sent("stop").map(({ keepalive }) => keepalive ?? false), [true, false]);
});

for (const [name, leave] of [
  ["is closed", ({ world }) => world.page.window.dispatch("pagehide", { persisted: false })],
  ["says so itself", ({ session }) => session.stop({ unload: true })],
]) {
  test(`a stop that waits for its next try is sent at once when its page ${name}`, async () => {
    const { world, session } = await playing();
    world.next.stop.push(unavailable);
    const stopped = session.stop();
    await flush();
    assert.deepEqual(world.beacons, []);
    void leave({ world, session });
    assert.deepEqual(world.beacons, ["https://streams.test/v1/users/ann/streams/stream-1/stop"]);
    // Repeated where the page was not gone after all.
    await world.advance(60_000);
    await stopped;
    assert.equal(world.sent("stop").length, 2);
    assert.equal(world.beacons.length, 1);
    assert.equal(world.page.window.listeners("pagehide"), 0);
  });
}

test("at unload without a token the stop is a beacon, which needs no preflight", async () => {
  const { world, session } = await playing();
  void session.stop({ unload: true });
  assert.deepEqual(world.beacons, ["https://streams.test/v1/users/ann/streams/stream-1/stop"]);
  assert.equal(world.sent("stop").length, 0);
});

for (const [name, sendBeacon] of [
  ["is refused", () => false],
  ["throws", () => {
    throw new Error("blocked");
  }],
]) {
  test(`where the beacon ${name}, the stop is a request that is kept alive`, async () => {
    const { world, session } = await playing({ sendBeacon });
    world.next.stop.push(noNetwork);
    void session.stop({ unload: true });
    assert.equal(world.sent("stop")[0].keepalive, true);
    await flush();
  });
}

test("where a request cannot be kept alive at all, the stop is a beacon even with a token", async () => {
  const { world, session } = await playing({ token: "t" });
  world.next.stop.push(() => {
    throw new TypeError("keepalive is not supported");
  });
  void session.stop({ unload: true });
  assert.equal(world.beacons.length, 1);
});
