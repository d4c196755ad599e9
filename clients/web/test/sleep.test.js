// Tests of device sleep, hidden tabs, network changes and clock changes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createEnvironment, createPage, deferred, expired, flushPromises, networkError, noResponse, problem, unavailable } from "./environment.js";

async function startPlayback(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  await session.start();
  return { env, session };
}

test("a hidden tab renews in time with throttled timers", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  await env.advanceThrottled(10);
  const heartbeats = env.sent("heartbeat");
  assert.equal(heartbeats.length, 10);
  for (const [index, { atMs }] of heartbeats.slice(1).entries()) assert.ok(atMs - heartbeats[index].atMs <= 60_000);
  assert.equal(session.state, "live");
});

test("late timers send one heartbeat, not the missed ones", async () => {
  const { env } = await startPlayback();
  env.sleep(80_000);
  await env.runOverdueTimers();
  assert.equal(env.sent("heartbeat").length, 1);
});

test("a wake-up after lease expiry restarts silently", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  env.sleep(8 * 3600_000);
  env.responses.heartbeat.push(expired);
  await env.page.document.dispatch("visibilitychange");
  assert.equal(session.state, "live");
  assert.equal(env.emitted("restarted").length, 1);
  assert.equal(env.emitted("ended").length, 0);
  await env.runOverdueTimers();
  assert.equal(env.sent("heartbeat").length, 1);
});

for (const [name, wakeUp] of [
  ["a page event", (env) => env.page.document.dispatch("visibilitychange")],
  ["a late timer", () => {}],
]) {
  test(`sleep after a failed heartbeat does not stop playback (${name})`, async () => {
    const { env, session } = await startPlayback({ onUnavailable: "stop" });
    const slow = deferred(expired);
    env.responses.heartbeat.push(networkError, slow);
    await env.advance(30_000);
    assert.equal(session.state, "unavailable");
    env.sleep(8 * 3600_000);
    await wakeUp(env);
    await env.runOverdueTimers();
    await env.advance(1000);
    await slow.deliver();
    assert.equal(session.state, "live");
    assert.equal(env.emitted("restarted").length, 1);
    assert.equal(env.emitted("ended").length, 0);
  });

  test(`an outage after sleep stops playback after one request (${name})`, async () => {
    const { env, session } = await startPlayback({ onUnavailable: "stop" });
    env.responses.heartbeat.push(networkError, networkError);
    await env.advance(30_000);
    env.sleep(8 * 3600_000);
    await wakeUp(env);
    await env.runOverdueTimers();
    assert.equal(session.state, "ended");
    assert.equal(env.sent("heartbeat").length, 2);
  });
}

test("a sleep does not shorten Retry-After", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  env.responses.heartbeat.push(problem(429, "too-many-requests", {}, { "retry-after": "300" }));
  await env.advance(30_000);
  env.sleep(120_000);
  await env.runOverdueTimers();
  assert.equal(session.state, "ended");
  assert.equal(env.sent("heartbeat").length, 1);
});

test("a request that failed during sleep does not stop playback", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  const interrupted = deferred(networkError);
  env.responses.heartbeat.push(interrupted);
  await env.advance(30_000);
  env.sleep(8 * 3600_000);
  await interrupted.deliver();
  await env.runOverdueTimers();
  await env.advance(1000);
  assert.equal(session.state, "live");
  assert.equal(env.emitted("ended").length, 0);
});

test("a request after the sleep has the whole request timeout", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  env.responses.heartbeat.push(networkError, noResponse);
  await env.advance(30_000);
  env.sleep(8 * 3600_000);
  await env.runOverdueTimers();
  await env.advance(9999);
  assert.equal(session.state, "unavailable");
  await env.advance(1);
  assert.equal(session.state, "ended");
});

test("sleep is detected with a stopped monotonic clock", async () => {
  const { env, session } = await startPlayback({ page: null });
  await env.advance(5000);
  env.sleep(8 * 3600_000, { monotonic: false });
  env.responses.heartbeat.push(expired);
  await env.advance(10_000);
  assert.equal(env.sent("heartbeat").length, 1);
  assert.equal(env.emitted("restarted").length, 1);
  assert.equal(session.state, "live");
});

test("setting the wall clock changes neither lease nor state", async () => {
  for (const jumpMs of [86_400_000, -86_400_000]) {
    const { env, session } = await startPlayback({ onUnavailable: "stop" });
    env.wallMs += jumpMs;
    await env.runOverdueTimers();
    assert.equal(session.leaseEndsInSeconds, 90);
    await env.advance(300_000);
    const heartbeats = env.sent("heartbeat").length;
    assert.ok(heartbeats >= 10 && heartbeats <= 11, `${heartbeats} heartbeats`);
    assert.deepEqual(env.emitted("state").map(({ state }) => state), ["starting", "live"]);
  }
});

for (const [target, type] of [
  ["window", "online"],
  ["window", "pageshow"],
  ["document", "visibilitychange"],
  ["document", "resume"],
]) {
  test(`${type} immediately sends a request that waits for its backoff`, async () => {
    const { env, session } = await startPlayback();
    env.responses.heartbeat.push(...Array(4).fill(networkError));
    await env.advance(38_000);
    assert.equal(env.sent("heartbeat").length, 4);
    await env.advance(2000);
    await env.page[target].dispatch(type);
    assert.equal(env.sent("heartbeat").length, 5);
    assert.equal(session.state, "live");
  });
}

test("a null page option disables page events", async (t) => {
  const page = createPage();
  t.after(() => (delete globalThis.window, delete globalThis.document));
  Object.assign(globalThis, page);
  const listeners = () => page.window.listeners("online") + page.document.listeners("visibilitychange");
  const { session } = await startPlayback({ page: null });
  assert.equal(listeners(), 0);
  await session.stop();
  await startPlayback({ page: undefined });
  assert.equal(listeners(), 2);
});

test("visibility changes soon after a response send no heartbeat", async () => {
  const { env } = await startPlayback();
  await env.advance(5000);
  for (let turn = 0; turn < 20; turn += 1) await env.page.document.dispatch("visibilitychange");
  assert.equal(env.sent("heartbeat").length, 0);
  env.sleep(20_000);
  env.page.document.visibilityState = "hidden";
  await env.page.document.dispatch("visibilitychange");
  assert.equal(env.sent("heartbeat").length, 0);
});

test("several wake-up events send one heartbeat", async () => {
  const { env } = await startPlayback();
  env.sleep(60_000);
  await env.page.document.dispatch("resume");
  await env.page.document.dispatch("visibilitychange");
  await env.page.window.dispatch("online");
  await env.runOverdueTimers();
  assert.equal(env.sent("heartbeat").length, 1);
});

test("a wake-up replaces a request that hangs", async () => {
  const { env, session } = await startPlayback();
  env.responses.heartbeat.push(noResponse);
  await env.advance(30_000);
  env.sleep(3600_000);
  await env.page.window.dispatch("online");
  assert.equal(env.sent("heartbeat").length, 2);
  assert.equal(env.sent("heartbeat")[0].signal.aborted, true);
  assert.equal(session.state, "live");
  assert.equal(env.emitted("unavailable").length, 0);
});

test("a wake-up repeats a pending start with the same key", async () => {
  const env = createEnvironment();
  const session = env.record(createSession(env.options));
  const first = deferred(unavailable);
  env.responses.start.push(first);
  session.start();
  await flushPromises();
  env.sleep(2000);
  session.wake();
  await flushPromises();
  await first.deliver();
  const keys = env.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  assert.equal(session.state, "live");
  assert.equal(env.emitted("started").length, 1);
});

test("a lost lease after an outage emits available and restarted", async () => {
  const { env, session } = await startPlayback();
  env.responses.heartbeat.push(networkError, expired);
  await env.advance(31_000);
  assert.equal(session.state, "live");
  const seen = env.events.map(({ type }) => type).filter((type) => type !== "state");
  assert.deepEqual(seen, ["started", "unavailable", "available", "restarted"]);
});

test("retry sends a request at once during an outage", async () => {
  const { env, session } = await startPlayback();
  env.responses.heartbeat.push(...Array(4).fill(networkError));
  await env.advance(40_000);
  await session.retry();
  await flushPromises();
  assert.equal(session.state, "live");
});

test("a stopped session has no listeners and no timer", async () => {
  const { env, session } = await startPlayback();
  const listeners = () => env.page.window.listeners("online") + env.page.document.listeners("visibilitychange");
  assert.equal(listeners(), 2);
  await session.stop();
  assert.equal(listeners(), 0);
  assert.equal(env.timers.size, 0);
  session.wake();
  await flushPromises();
  assert.equal(env.sent("heartbeat").length, 0);
});
