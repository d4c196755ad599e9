// Devices that sleep, tabs that are hidden, networks that go and come, clocks that are set.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createPage, createWorld, expired, flush, later, noNetwork, silence, unavailable } from "./world.js";

async function playing(options) {
  const world = createWorld();
  const session = world.listen(createSession({ ...world.options, ...options }));
  await session.start();
  return { world, session };
}

test("a hidden tab whose timers come once a minute still renews its lease in time", async () => {
  const { world, session } = await playing({ onUnavailable: "stop" });
  await world.advanceThrottled(10);
  const beats = world.sent("heartbeat");
  assert.equal(beats.length, 10);
  for (const [index, { atMs }] of beats.slice(1).entries()) assert.ok(atMs - beats[index].atMs <= 60_000);
  assert.equal(session.state, "live");
});

test("timers that come late do not make up for heartbeats that were missed", async () => {
  const { world } = await playing();
  world.sleep(80_000);
  await world.fireOverdue();
  assert.equal(world.sent("heartbeat").length, 1);
});

test("a laptop that slept past its lease starts again silently when it wakes", async () => {
  const { world, session } = await playing({ onUnavailable: "stop" });
  world.sleep(8 * 3600_000);
  world.next.heartbeat.push(expired);
  await world.page.document.dispatch("visibilitychange");
  assert.equal(session.state, "live");
  assert.equal(world.heard("restarted").length, 1);
  assert.equal(world.heard("ended").length, 0);
  await world.fireOverdue();
  assert.equal(world.sent("heartbeat").length, 1);
});

test("a sleep that the monotonic clock did not see is noticed within ten seconds, without any event", async () => {
  const { world, session } = await playing({ page: null });
  await world.advance(5000);
  world.sleep(8 * 3600_000, { monotonic: false });
  world.next.heartbeat.push(expired);
  await world.advance(10_000);
  assert.equal(world.sent("heartbeat").length, 1);
  assert.equal(world.heard("restarted").length, 1);
  assert.equal(session.state, "live");
});

test("a wall clock that is set changes neither the lease nor the state", async () => {
  for (const jumpMs of [86_400_000, -86_400_000]) {
    const { world, session } = await playing({ onUnavailable: "stop" });
    world.wallMs += jumpMs;
    await world.fireOverdue();
    assert.equal(session.leaseEndsInSeconds, 90);
    await world.advance(300_000);
    const beats = world.sent("heartbeat").length;
    assert.ok(beats >= 10 && beats <= 11, `${beats} heartbeats`);
    assert.deepEqual(world.heard("state").map(({ state }) => state), ["starting", "live"]);
  }
});

for (const [target, type] of [
  ["window", "online"],
  ["window", "pageshow"],
  ["document", "visibilitychange"],
  ["document", "resume"],
]) {
  test(`${type} sends at once what was waiting for its back-off`, async () => {
    const { world, session } = await playing();
    world.next.heartbeat.push(...Array(4).fill(noNetwork));
    await world.advance(38_000);
    assert.equal(world.sent("heartbeat").length, 4);
    await world.advance(2000);
    await world.page[target].dispatch(type);
    assert.equal(world.sent("heartbeat").length, 5);
    assert.equal(session.state, "live");
  });
}

test("`page: null` is no page, also where there is one", async (t) => {
  const there = createPage();
  t.after(() => (delete globalThis.window, delete globalThis.document));
  Object.assign(globalThis, there);
  const listeners = () => there.window.listeners("online") + there.document.listeners("visibilitychange");
  const { session } = await playing({ page: null });
  assert.equal(listeners(), 0);
  await session.stop();
  await playing({ page: undefined });
  assert.equal(listeners(), 2);
});

test("a page that is only hidden, or comes back while nothing is in doubt, costs no heartbeat", async () => {
  const { world } = await playing();
  await world.advance(5000);
  for (let turn = 0; turn < 20; turn += 1) await world.page.document.dispatch("visibilitychange");
  assert.equal(world.sent("heartbeat").length, 0);
  world.sleep(20_000);
  world.page.document.visibilityState = "hidden";
  await world.page.document.dispatch("visibilitychange");
  assert.equal(world.sent("heartbeat").length, 0);
});

test("several events of one waking are one heartbeat", async () => {
  const { world } = await playing();
  world.sleep(60_000);
  await world.page.document.dispatch("resume");
  await world.page.document.dispatch("visibilitychange");
  await world.page.window.dispatch("online");
  await world.fireOverdue();
  assert.equal(world.sent("heartbeat").length, 1);
});

test("a request that hangs on a connection of before the sleep is not waited for", async () => {
  const { world, session } = await playing();
  world.next.heartbeat.push(silence);
  await world.advance(30_000);
  world.sleep(3600_000);
  await world.page.window.dispatch("online");
  assert.equal(world.sent("heartbeat").length, 2);
  assert.equal(world.sent("heartbeat")[0].signal.aborted, true);
  assert.equal(session.state, "live");
  assert.equal(world.heard("unavailable").length, 0);
});

test("waking up before the start is answered repeats it under the same key, and it is started once", async () => {
  const world = createWorld();
  const session = world.listen(createSession(world.options));
  const first = later(unavailable);
  world.next.start.push(first);
  session.start();
  await flush();
  world.sleep(2000);
  session.wake();
  await flush();
  await first.arrive();
  const keys = world.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  assert.equal(session.state, "live");
  assert.equal(world.heard("started").length, 1);
});

test("a service that is back and has forgotten the stream is available again", async () => {
  const { world, session } = await playing();
  world.next.heartbeat.push(noNetwork, expired);
  await world.advance(31_000);
  assert.equal(session.state, "live");
  const seen = world.events.map(({ type }) => type).filter((type) => type !== "state");
  assert.deepEqual(seen, ["started", "unavailable", "available", "restarted"]);
});

test("retry asks at once while nobody answers", async () => {
  const { world, session } = await playing();
  world.next.heartbeat.push(...Array(4).fill(noNetwork));
  await world.advance(40_000);
  await session.retry();
  await flush();
  assert.equal(session.state, "live");
});

test("a session that does not play listens to nothing and leaves no timer", async () => {
  const { world, session } = await playing();
  const listeners = () => world.page.window.listeners("online") + world.page.document.listeners("visibilitychange");
  assert.equal(listeners(), 2);
  await session.stop();
  assert.equal(listeners(), 0);
  assert.equal(world.timers.size, 0);
  session.wake();
  await flush();
  assert.equal(world.sent("heartbeat").length, 0);
});
