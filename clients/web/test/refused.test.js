// Tests starts and heartbeats that the service rejects for a reason other than the limit. The player keeps playing and retries
// for one lease duration. It then follows `onRefused`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import {
  createEnvironment,
  deferred,
  evicted,
  expired,
  flushPromises,
  limitReached,
  networkError,
  problem,
  respond,
  stream,
} from "./environment.js";

function setUp(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  return { env, session };
}

const always = (response) => Array(500).fill(response);
const unauthorized = problem(401, "unauthorized");
const forbidden = problem(403, "forbidden");

for (const [status, code] of [
  [400, "invalid-request"],
  [404, "route-not-found"],
  [413, "payload-too-large"],
  [415, "unsupported-media-type"],
  [422, "idempotency-key-reused"],
]) {
  test(`a start with status ${status} is reported once and retried`, async () => {
    const { env, session } = setUp();
    const response = problem(status, code, {}, { "x-request-id": "r-1" });
    env.responses.start.push(response, response);
    assert.equal(await session.start(), "failed");
    const [error] = env.emitted("error");
    assert.deepEqual([error.status, error.code, error.requestId], [status, code, "r-1"]);
    await env.advance(1000);
    assert.equal(session.state, "failed");
    await env.advance(2000);
    assert.equal(session.state, "live");
    assert.equal(env.emitted("error").length, 1);
    assert.equal(new Set(env.sent("start").map(({ headers }) => headers["Idempotency-Key"])).size, 3);
  });
}

test("a retry after a rejection reads the options again", async () => {
  const names = ["wrong", "right"];
  const { env, session } = setUp({ labels: () => ({ quality: names.shift() }) });
  env.responses.start.push(problem(400, "invalid-request"));
  await session.start();
  await env.advance(1000);
  assert.deepEqual(env.sent("start").map(({ body }) => body.labels.quality), ["wrong", "right"]);
});

test("retry repeats a rejected start at once", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...Array(4).fill(problem(400, "invalid-request")));
  await session.start();
  await env.advance(10_000);
  void session.retry();
  await flushPromises();
  assert.equal(session.state, "live");
});

for (const [name, response, ends] of [
  ["400", problem(400, "invalid-request"), false],
  ["404", problem(404, "route-not-found"), false],
  ["401", unauthorized, true],
  ["403", forbidden, true],
  ["403 from a gateway", respond(403, undefined, { "content-type": "text/html" }), true],
  ["no response", networkError, false],
]) {
  for (const operation of ["start", "heartbeat"]) {
    test(`${name} to every ${operation} ${ends ? "ends" : "does not end"} playback by default`, async () => {
      const { env, session } = setUp({ token: async () => "t" });
      if (operation === "heartbeat") await session.start();
      env.responses[operation].push(...always(response));
      if (operation === "start") await session.start();
      await env.advance(89_999);
      assert.equal(env.emitted("ended").length, 0);
      await env.advance(60_000);
      assert.deepEqual(env.emitted("ended").map(({ reason }) => reason), ends ? ["refused"] : []);
      const { length } = env.requests;
      await env.advance(600_000);
      assert.equal(env.requests.length > length, !ends, "retries continue unless playback ended");
    });
  }
}

for (const [onRefused, response, ends] of [
  ["continue", forbidden, false],
  ["stop", problem(400, "invalid-request"), true],
  ["stop", networkError, false],
]) {
  test(`onRefused "${onRefused}" ${ends ? "ends" : "does not end"} playback (${response.name || "response"})`, async () => {
    const { env, session } = setUp({ onRefused });
    env.responses.start.push(...always(response));
    await session.start();
    await env.advance(600_000);
    assert.equal(session.state === "ended", ends);
  });
}

test("the ended event contains the reason of the refusal", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...always(forbidden));
  await session.start();
  await env.advance(90_000);
  const { reason, status, code, detail } = env.emitted("ended")[0];
  assert.deepEqual([reason, status, code, detail], ["refused", 403, "forbidden", "about forbidden"]);
});

test("a player whose token is accepted in time keeps playing", async () => {
  const { env, session } = setUp({ token: () => "t" });
  env.responses.start.push(...Array(6).fill(forbidden));
  await session.start();
  await env.advance(200_000);
  assert.equal(session.state, "live");
  assert.equal(env.emitted("ended").length, 0);
});

test("a 403 repeats the request with a new token", async () => {
  let tokens = 0;
  const { env, session } = setUp({ token: () => `token-${++tokens}` });
  env.responses.start.push(forbidden);
  assert.equal(await session.start(), "live");
  assert.deepEqual(env.sent("start").map(({ headers }) => headers.Authorization), ["Bearer token-1", "Bearer token-2"]);
});

test("the last failure decides which option applies", async () => {
  const { env, session } = setUp();
  env.responses.start.push(networkError, networkError, ...always(unauthorized));
  await session.start();
  await env.advance(90_000);
  assert.equal(env.emitted("ended")[0].reason, "refused");
});

test("the time without a lease is the lease duration of the service", async () => {
  const { env, session } = setUp();
  env.responses.start.push(stream("short", { status: 201, leaseS: 20, intervalS: 5 }), ...always(forbidden));
  await session.start();
  env.responses.heartbeat.push(expired);
  await env.advance(5000);
  await env.advance(19_999);
  assert.equal(env.emitted("ended").length, 0);
  await env.advance(1);
  assert.equal(session.state, "ended");
});

test("repeated starts share the time without a lease", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...always(forbidden));
  await session.start();
  await env.advance(60_000);
  void session.stop();
  await session.start();
  await env.advance(29_999);
  assert.equal(env.emitted("ended").length, 0);
  await env.advance(1);
  assert.equal(session.state, "ended");
  // The user plays again. No time without a lease is left, so the first refusal ends the playback.
  assert.equal(await session.start(), "ended");
  env.responses.start.length = 0;
  assert.equal(await session.start(), "live");
});

test("sessions of a user share the time without a lease", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...always(forbidden));
  await session.start();
  await env.advance(60_000);
  await session.stop();
  const next = env.record(createSession(env.options));
  const other = createSession({ ...env.options, userName: "bob" });
  await Promise.all([next.start(), other.start()]);
  await env.advance(29_999);
  assert.equal(next.state, "unavailable");
  await env.advance(1);
  assert.equal(next.state, "ended");
  assert.equal(other.state, "unavailable", "another user has the whole time without a lease");
});

test("a later session does not restore the time without a lease", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...always(forbidden));
  await session.start();
  await env.advance(50_000);
  const later = createSession({ ...env.options, deviceId: "tab-2" });
  await later.start();
  await env.advance(10_000);
  await session.stop();
  await later.stop();
  await session.start();
  await env.advance(30_000);
  assert.equal(session.state, "ended");
});

for (const [name, answer, state] of [["a denial", limitReached, "denied"], ["an eviction", evicted, "ended"]]) {
  test(`${name} restores the time without a lease`, async () => {
    const { env, session } = setUp();
    const slow = deferred(answer);
    env.responses.start.push(networkError, slow);
    await session.start();
    await env.advance(9000);
    await slow.deliver();
    assert.equal(session.state, state);
    env.responses.start.push(...always(forbidden));
    await session.start();
    await env.advance(89_999);
    assert.equal(session.state, "unavailable");
    await env.advance(1);
    assert.equal(session.state, "ended");
  });
}

test("a lease restores the time without a lease", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...Array(20).fill(forbidden));
  await session.start();
  await env.advance(90_000);
  env.responses.start.length = 0;
  await session.start();
  await session.stop();
  env.responses.start.push(...always(forbidden));
  await session.start();
  await env.advance(89_999);
  assert.equal(env.emitted("ended").length, 1);
  await env.advance(1);
  assert.equal(env.emitted("ended").length, 2);
});

test("a start that was lost does not extend the time without a lease", async () => {
  const { env, session } = setUp();
  env.responses.start.push(...Array(5).fill(networkError), expired, ...always(forbidden));
  await session.start();
  await env.advance(90_000);
  assert.equal(session.state, "ended");
});

test("starts that are always lost count as an outage", async () => {
  const { env, session } = setUp({ onUnavailable: "stop" });
  env.responses.start.push(...always(expired));
  void session.start();
  await env.advance(200_000);
  assert.equal(session.state, "ended");
  assert.ok(env.sent("start").length < 20);
});

test("a rejected heartbeat is reported once and heartbeats continue", async () => {
  const { env, session } = setUp();
  await session.start();
  env.responses.heartbeat.push(...Array(5).fill(problem(400, "invalid-request")));
  await env.advance(60_000);
  assert.equal(session.state, "live");
  await env.advance(60_000);
  assert.equal(session.state, "failed", "the lease expired");
  await env.advance(60_000);
  assert.equal(env.sent("heartbeat").length, 6);
  assert.equal(env.emitted("error").length, 1);
  assert.equal(session.state, "live");
});

test("a retry after a rejection can be denied", async () => {
  const { env, session } = setUp();
  env.responses.start.push(problem(400, "invalid-request"), limitReached);
  await session.start();
  await env.advance(1000);
  assert.equal(session.state, "denied");
});

test("invalid policies throw", () => {
  assert.throws(() => setUp({ onRefused: "pause" }), /onRefused/);
});
