// Tests the grants of a session: the newest one, the event, and requests that wait for a fresh grant.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createEnvironment, deferred, evicted, expired, flushPromises, networkError, stream, unavailable } from "./environment.js";

const grantOf = (name) => `header.${name}.signature`;

/** The service issues a new grant with each response. */
function setUp(options) {
  const env = createEnvironment();
  const now = { contentId: "first" };
  let issued = 0;
  env.nextGrant = () => grantOf(`g${(issued += 1)}`);
  const session = env.record(createSession({ ...env.options, contentId: () => now.contentId, ...options }));
  return { env, session, now };
}

async function startPlayback(options) {
  const all = setUp(options);
  await all.session.start();
  return all;
}

/** Resolves with the value, or with "waiting" if the promise is pending. */
async function settledValue(promise) {
  let value = "waiting";
  void promise.then((result) => (value = result));
  await flushPromises();
  return value;
}

test("the session has the newest grant", async () => {
  const { env, session } = await startPlayback();
  assert.equal(session.grant, grantOf("g1"));
  await env.advance(30_000);
  assert.equal(session.grant, grantOf("g2"));
});

test("each new grant emits an event with its time", async () => {
  const { env } = await startPlayback();
  await env.advance(30_000);
  const events = env.emitted("grant").map(({ grant, streamId, expiresInSeconds }) => [grant, streamId, expiresInSeconds]);
  assert.deepEqual(events, [[grantOf("g1"), "stream-1", 90], [grantOf("g2"), "stream-1", 90]]);
});

test("a grant is renewed before it expires", async () => {
  const { env, session } = await startPlayback();
  for (let seconds = 0; seconds < 600; seconds += 1) {
    await env.advance(1000);
    assert.ok(session.leaseEndsInSeconds > 0);
  }
  assert.equal(env.emitted("grant").length, 21);
});

test("a valid grant resolves at once and sends nothing", async () => {
  const { env, session } = await startPlayback();
  await env.advance(20_000);
  const before = env.requests.length;
  for (let turn = 0; turn < 100; turn += 1) assert.equal(await session.freshGrant(), grantOf("g1"));
  assert.equal(env.requests.length, before);
});

test("a request before the start waits for the first grant", async () => {
  const { env, session } = setUp();
  const fresh = session.freshGrant();
  await env.advance(600_000);
  assert.equal(await settledValue(fresh), "waiting");
  await session.start();
  assert.equal(await fresh, grantOf("g1"));
});

test("without grants of the service, requests do not wait", async () => {
  const { env, session } = setUp();
  env.nextGrant = () => undefined;
  const fresh = session.freshGrant();
  await session.start();
  assert.equal(await fresh, null);
  await env.advance(600_000);
  assert.equal(await session.freshGrant(), null);
  assert.deepEqual([session.grant, env.emitted("grant").length], [null, 0]);
});

test("new content waits for its grant", async () => {
  const { env, session, now } = await startPlayback();
  await env.advance(5000);
  now.contentId = "second";
  const fresh = session.freshGrant();
  assert.equal(await settledValue(fresh), "waiting");
  await env.advance(0);
  assert.equal(await fresh, grantOf("g2"));
  assert.deepEqual(env.sent("heartbeat").map(({ body }) => body), [{ contentId: "second" }]);
});

// The monotonic clock of some platforms stops during sleep.
for (const [name, monotonic] of [["both clocks", true], ["the wall clock", false]]) {
  test(`after a sleep on ${name}, requests wait for a lease`, async () => {
    const { env, session } = await startPlayback();
    await env.advance(1000);
    env.sleep(3_600_000, { monotonic });
    env.responses.heartbeat.push(expired);
    env.responses.start.push(stream("stream-2", { status: 201, contentId: "first", grant: grantOf("new") }));
    const fresh = session.freshGrant();
    assert.equal(await fresh, grantOf("new"));
    assert.equal(env.emitted("restarted").length, 1);
  });
}

test("during an outage, requests get the newest grant after a while", async () => {
  const { env, session } = await startPlayback();
  env.responses.heartbeat = Array(50).fill(networkError);
  env.responses.start = Array(50).fill(networkError);
  await env.advance(100_000);
  const fresh = session.freshGrant();
  await env.advance(9999);
  assert.equal(await settledValue(fresh), "waiting");
  await env.advance(1);
  assert.equal(await fresh, grantOf("g1"));
});

test("requests during an outage send no extra heartbeats", async () => {
  const count = async (request) => {
    const { env, session } = await startPlayback();
    env.responses.heartbeat = Array(200).fill(unavailable);
    await env.advance(100_000);
    for (let seconds = 0; seconds < 100; seconds += 1) {
      if (request) void session.freshGrant();
      await env.advance(1000);
    }
    return env.requests.length;
  };
  assert.equal(await count(true), await count(false));
});

test("requests that wait for a slow start do not repeat it", async () => {
  const { env, session } = setUp();
  const slow = deferred(stream("stream-1", { status: 201, contentId: "first", grant: grantOf("new") }));
  env.responses.start.push(slow);
  void session.start();
  const all = [];
  for (let seconds = 0; seconds < 5; seconds += 1) {
    all.push(session.freshGrant());
    await env.advance(1000);
  }
  await slow.deliver();
  assert.deepEqual(new Set(await Promise.all(all)), new Set([grantOf("new")]));
  assert.equal(env.sent("start").length, 1);
});

test("a response without a grant keeps the earlier one", async () => {
  const { env, session } = await startPlayback();
  env.nextGrant = () => undefined;
  await env.advance(600_000);
  assert.equal(await session.freshGrant(), grantOf("g1"), "requests do not wait");
  assert.equal(env.emitted("grant").length, 1);
});

for (const [name, end] of [
  ["a stop", ({ session }) => session.stop()],
  ["an eviction", ({ env }) => (env.responses.heartbeat.push(evicted), env.advance(30_000))],
]) {
  test(`after ${name}, requests wait for the next start`, async () => {
    const all = await startPlayback();
    await end(all);
    assert.equal(all.session.grant, null);
    const fresh = all.session.freshGrant();
    await all.env.advance(600_000);
    assert.equal(await settledValue(fresh), "waiting");
    await all.session.start();
    assert.equal(await fresh, grantOf("g2"));
  });
}

test("a session that cannot start again releases waiting requests", async () => {
  const { session } = setUp();
  const fresh = session.freshGrant();
  await session.stop({ forGood: true });
  assert.deepEqual([await fresh, await session.freshGrant()], [null, null]);
});

test("a listener sets its cookie before waiting requests continue", async () => {
  const { session } = setUp();
  const order = [];
  session.on("grant", () => order.push("cookie"));
  void session.freshGrant().then(() => order.push("request"));
  await session.start();
  await flushPromises();
  assert.deepEqual(order, ["cookie", "request"]);
});

test("values that are not tokens are ignored", async () => {
  for (const grant of ["a.b", "a.b.c; Domain=evil", "a.b.c\r\nX: y", 7, "", "a".repeat(9000) + ".b.c"]) {
    const env = createEnvironment();
    env.responses.start.push(stream("stream-1", { status: 201, grant }));
    const session = createSession(env.options);
    await session.start();
    assert.equal(session.grant, null);
  }
});
