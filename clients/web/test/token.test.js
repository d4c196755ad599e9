// Tests when the player calls the token function, and how it handles a failure of this function.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createEnvironment, deferred, flushPromises, networkError, problem } from "./environment.js";

async function startPlayback(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  await session.start();
  return { env, session };
}

function startWithoutWaiting(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  void session.start();
  return { env, session };
}

const unauthorized = problem(401, "unauthorized");
const forbidden = problem(403, "forbidden");

test("a 401 repeats the request with a new token", async () => {
  const calls = [];
  const token = async (about) => (calls.push(about), `token-${calls.length}`);
  const { env, session } = await startPlayback({ token });
  env.responses.heartbeat.push(unauthorized);
  await env.advance(30_000);
  assert.deepEqual(calls, [{ rejected: undefined }, { rejected: "token-1" }]);
  const heartbeats = env.sent("heartbeat");
  assert.deepEqual(heartbeats.map(({ headers }) => headers.Authorization), ["Bearer token-1", "Bearer token-2"]);
  assert.equal(heartbeats[0].atMs, heartbeats[1].atMs);
  assert.equal(session.state, "live");
  assert.equal(env.emitted("unavailable").length, 0);
});

test("a working token is fetched once", async () => {
  let tokenCalls = 0;
  const { env } = await startPlayback({ token: () => `token-${++tokenCalls}` });
  await env.advance(300_000);
  assert.equal(tokenCalls, 1);
});

test("a second 401 is retried with backoff", async () => {
  let tokenCalls = 0;
  const { env, session } = await startPlayback({ token: () => `token-${++tokenCalls}`, onUnavailable: "stop" });
  env.responses.heartbeat.push(...Array(4).fill(unauthorized));
  await env.advance(30_000);
  assert.equal(env.sent("heartbeat").length, 2);
  assert.equal(session.state, "unavailable");
  await env.advance(1000);
  assert.equal(env.sent("heartbeat").length, 3);
  await env.advance(6000);
  assert.equal(session.state, "live");
  env.responses.heartbeat.push(unauthorized);
  await env.advance(30_000);
  assert.equal(session.state, "live");
});

test("a 401 for a fixed token is retried with backoff", async () => {
  const { env, session } = await startPlayback({ token: "fixed" });
  env.responses.heartbeat.push(unauthorized);
  await env.advance(30_000);
  assert.equal(env.sent("heartbeat").length, 1);
  assert.equal(env.emitted("unavailable")[0].code, "unauthorized");
  await env.advance(1000);
  assert.equal(session.state, "live");
});

test("a failing or hanging token function counts as an outage", async () => {
  const env = createEnvironment();
  const tokens = [
    () => Promise.reject(new Error("signed out")),
    () => {
      throw new Error("no SDK");
    },
    () => new Promise(() => {}),
    () => "good",
  ];
  const session = env.record(createSession({ ...env.options, token: () => tokens.shift()() }));
  assert.equal(await session.start(), "unavailable");
  await env.advance(60_000);
  assert.equal(session.state, "live");
  assert.equal(env.sent("start").length, 1);
  assert.equal(env.sent("start")[0].headers.Authorization, "Bearer good");
});

test("concurrent requests share one token call", async () => {
  let tokenCalls = 0;
  const { env, session } = await startPlayback({ token: async () => `token-${++tokenCalls}` });
  env.responses.heartbeat.push(unauthorized);
  env.responses.evict.push(unauthorized);
  env.sleep(31_000);
  session.wake();
  assert.equal(await session.stopOther("other"), true);
  await flushPromises();
  assert.equal(tokenCalls, 2);
  assert.equal(session.state, "live");
});

test("a late 401 does not discard the newer token", async () => {
  let tokenCalls = 0;
  const { env, session } = await startPlayback({ token: async () => `token-${++tokenCalls}` });
  const late = deferred(unauthorized);
  env.responses.heartbeat.push(late);
  await env.advance(30_000);
  env.responses.evict.push(unauthorized);
  assert.equal(await session.stopOther("other"), true);
  await late.deliver();
  assert.equal(env.sent("heartbeat")[1].headers.Authorization, "Bearer token-2");
  assert.equal(tokenCalls, 2);
  assert.equal(session.state, "live");
});

const failures = {
  rejects: () => Promise.reject(new Error("signed out")),
  throws: () => {
    throw new Error("no SDK");
  },
  hangs: () => new Promise(() => {}),
};

for (const [name, fail] of Object.entries(failures)) {
  for (const [status, rejection] of [[401, unauthorized], [403, forbidden]]) {
    test(`a start's ${status} remains if the token function ${name}`, async () => {
      const env = createEnvironment();
      const tokens = ["revoked"];
      const session = env.record(createSession({ ...env.options, token: () => tokens.shift() ?? fail() }));
      env.responses.start.push(rejection);
      void session.start();
      await env.advance(89_999);
      assert.equal(env.emitted("ended").length, 0);
      await env.advance(1);
      const [ended] = env.emitted("ended");
      assert.deepEqual([ended.reason, ended.status], ["refused", status]);
    });
  }

  test(`a heartbeat's 401 remains if the token function ${name}`, async () => {
    const tokens = ["revoked"];
    const { env } = await startPlayback({ token: () => tokens.shift() ?? fail() });
    env.responses.heartbeat.push(unauthorized);
    await env.advance(89_999);
    assert.equal(env.emitted("ended").length, 0);
    await env.advance(1);
    assert.equal(env.emitted("ended")[0].reason, "refused");
  });

  test(`a first call of the token function that ${name} is an outage`, async () => {
    const { env, session } = startWithoutWaiting({ token: fail });
    await env.advance(600_000);
    assert.equal(session.state, "unavailable");
    assert.deepEqual(env.emitted("ended"), []);
    assert.equal(env.requests.length, 0);
  });
}

test("a player that renews its token within the lease keeps playing", async () => {
  const tokens = [() => "revoked", failures.rejects, failures.hangs, () => "good"];
  const { env, session } = await startPlayback({ token: () => tokens.shift()() });
  env.responses.heartbeat.push(unauthorized);
  await env.advance(60_000);
  assert.equal(session.state, "live");
  assert.equal(env.sent("heartbeat").at(-1).headers.Authorization, "Bearer good");
});

test("a network error with a newer token counts as an outage", async () => {
  let tokens = 0;
  const { env, session } = await startPlayback({ token: () => `token-${++tokens}` });
  env.responses.heartbeat.push(unauthorized, ...Array(50).fill(networkError));
  await env.advance(300_000);
  assert.equal(session.state, "unavailable");
  assert.deepEqual(env.emitted("ended"), []);
});
