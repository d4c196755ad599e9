// Tests that playback and retries continue while the service is unavailable, slow or overloaded.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import {
  createEnvironment,
  deferred,
  flushPromises,
  limitReached,
  networkError,
  noResponse,
  problem,
  respond,
  stream,
  streamIds,
  unavailable,
} from "./environment.js";

async function startPlayback(options, envOptions) {
  const env = createEnvironment(envOptions);
  const session = env.record(createSession({ ...env.options, ...options }));
  await session.start();
  return { env, session };
}

const gaps = (calls) => calls.slice(1).map(({ atMs }, index) => atMs - calls[index].atMs);

for (const [name, response, code] of [
  ["503", unavailable, "store-unavailable"],
  ["500", problem(500, "internal"), "internal"],
  ["502 from a proxy", respond(502), "http-502"],
  ["a network error", networkError, "no-answer"],
  ["a synchronous exception", () => { throw new TypeError("no network stack"); }, "no-answer"],
]) {
  test(`a start is retried unchanged after ${name}`, async () => {
    const env = createEnvironment();
    const session = env.record(createSession(env.options));
    env.responses.start.push(response, response, response);
    assert.equal(await session.start(), "unavailable");
    await env.advance(60_000);
    assert.equal(session.state, "live");
    const starts = env.sent("start");
    assert.equal(starts.length, 4);
    assert.equal(new Set(starts.map(({ headers }) => headers["Idempotency-Key"])).size, 1);
    assert.deepEqual(starts[0].body, starts[3].body);
    assert.deepEqual(env.emitted("unavailable").map((event) => event.code), [code]);
    assert.equal(env.emitted("available").length, 1);
    assert.equal(env.emitted("started").length, 1);
  });
}

for (const [name, response] of [
  ["a plain 404", respond(404)],
  ["an HTML 403", respond(403, undefined, { "content-type": "text/html" })],
  ["JSON without a code", respond(400, { error: "no such path" })],
]) {
  test(`a start is retried after ${name}`, async () => {
    const env = createEnvironment();
    const session = env.record(createSession(env.options));
    env.responses.start.push(response, response);
    assert.equal(await session.start(), "unavailable");
    await env.advance(999);
    assert.equal(env.sent("start").length, 1);
    await env.advance(10_000);
    assert.equal(session.state, "live");
    assert.equal(env.sent("start").length, 3);
    assert.equal(env.emitted("error").length, 0);
  });
}

test("the stop policy sends one stop at lease expiry", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  env.responses.heartbeat.push(...Array(50).fill(unavailable));
  await env.advance(90_000);
  assert.equal(session.state, "ended");
  assert.deepEqual(streamIds(env.sent("stop")), ["stream-1"]);
});

test("retries back off up to the heartbeat interval", async () => {
  const { env } = await startPlayback({}, { random: () => 1 });
  env.responses.heartbeat.push(...Array(9).fill(unavailable));
  await env.advance(300_000);
  const waits = gaps(env.sent("heartbeat")).slice(0, 8);
  assert.deepEqual(waits, [2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
});

test("the backoff has jitter and is at least one second", async () => {
  const { env } = await startPlayback({}, { random: () => 0 });
  env.responses.heartbeat.push(...Array(9).fill(unavailable));
  await env.advance(300_000);
  assert.deepEqual(gaps(env.sent("heartbeat")).slice(0, 6), [1000, 2000, 4000, 8000, 15_000, 15_000]);
});

test("a successful heartbeat resets the backoff", async () => {
  const { env, session } = await startPlayback();
  env.responses.heartbeat.push(unavailable, unavailable, stream("stream-1"), unavailable);
  await env.advance(33_000);
  assert.equal(session.state, "live");
  await env.advance(31_000);
  assert.deepEqual(gaps(env.sent("heartbeat")), [1000, 2000, 30_000, 1000]);
});

test("a wake-up does not shorten Retry-After", async () => {
  const { env, session } = await startPlayback();
  env.responses.heartbeat.push(problem(429, "too-many-requests", {}, { "retry-after": "12" }));
  await env.advance(30_000);
  assert.equal(session.state, "unavailable");
  await env.advance(5000);
  await env.page.window.dispatch("online");
  await env.advance(6999);
  assert.equal(env.sent("heartbeat").length, 1);
  await env.advance(1);
  assert.equal(env.sent("heartbeat").length, 2);
});

test("Retry-After is capped, and ignored if it is a date", async () => {
  const { env } = await startPlayback();
  env.responses.heartbeat.push(
    problem(503, "overloaded", {}, { "retry-after": "999999" }),
    problem(503, "overloaded", {}, { "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT" }),
  );
  await env.advance(333_000);
  assert.deepEqual(gaps(env.sent("heartbeat")), [300_000, 2000]);
});

test("a request without a response times out", async () => {
  const { env, session } = await startPlayback({ requestTimeoutS: 5 });
  env.responses.heartbeat.push(noResponse);
  await env.advance(34_999);
  assert.equal(session.state, "live");
  await env.advance(1);
  assert.equal(session.state, "unavailable");
  assert.equal(env.emitted("unavailable")[0].code, "timeout");
  assert.equal(env.sent("heartbeat")[0].signal.aborted, true);
});

test("a response after the timeout is ignored", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  const late = deferred(limitReached);
  env.responses.heartbeat.push(late);
  await env.advance(41_000);
  assert.equal(session.state, "live");
  await late.deliver();
  assert.equal(session.state, "live");
  assert.equal(env.emitted("denied").length, 0);
});

test("a response to an older request is ignored", async () => {
  const { env, session } = await startPlayback();
  const old = deferred(stream("stream-1", { leaseS: 5, intervalS: 2 }));
  env.responses.heartbeat.push(old);
  await env.advance(35_000);
  env.sleep(20_000);
  await env.page.document.dispatch("visibilitychange");
  assert.equal(env.sent("heartbeat").length, 2);
  assert.equal(session.leaseEndsInSeconds, 90);
  await old.deliver();
  assert.equal(session.leaseEndsInSeconds, 90);
  await env.advance(29_000);
  assert.equal(env.sent("heartbeat").length, 2);
});

test("the lease is measured from the time of the request", async () => {
  const { env, session } = await startPlayback();
  const slow = deferred(stream("stream-1"));
  env.responses.heartbeat.push(slow);
  await env.advance(38_000);
  await slow.deliver();
  assert.equal(session.leaseEndsInSeconds, 82);
});

test("the stop policy ends playback exactly at lease expiry", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "stop" });
  env.responses.heartbeat.push(stream("stream-1", { leaseS: 87 }), ...Array(50).fill(unavailable));
  await env.advance(116_999);
  assert.equal(session.state, "unavailable");
  assert.equal(env.emitted("unavailable")[0].leaseEndsInSeconds, 57);
  await env.advance(1);
  assert.equal(session.state, "ended");
  assert.deepEqual(env.emitted("ended").map(({ reason }) => reason), ["unavailable"]);
  await flushPromises();
  const { length } = env.requests;
  await env.advance(600_000);
  assert.equal(env.requests.length, length);
});

test("the continue policy keeps playing past lease expiry", async () => {
  const { env, session } = await startPlayback({ onUnavailable: "continue" });
  env.responses.heartbeat.push(...Array(20).fill(networkError));
  await env.advance(200_000);
  assert.equal(session.state, "unavailable");
  assert.equal(env.emitted("ended").length, 0);
  await env.advance(200_000);
  assert.equal(session.state, "live");
});

test("the stop policy ends an unanswered start after unansweredStartS", async () => {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, onUnavailable: "stop", unansweredStartS: 40 }));
  env.responses.start.push(...Array(50).fill(networkError));
  await session.start();
  await env.advance(39_999);
  assert.equal(session.state, "unavailable");
  await env.advance(1);
  assert.equal(session.state, "ended");
});

test("a start that times out after unansweredStartS ends playback", async () => {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, onUnavailable: "stop", unansweredStartS: 4 }));
  env.responses.start.push(noResponse);
  void session.start();
  await env.advance(10_000);
  assert.equal(session.state, "ended");
  assert.equal(env.sent("start").length, 1);
});
