// Tests the hand-over from another device: the start request contains the ids in `replaces`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createEnvironment, deferred, flushPromises, limitReached, networkError, stream, unavailable } from "./environment.js";

const [PHONE, TABLET, LAPTOP] = ["1", "2", "3"].map((digit) => `${digit.repeat(8)}-aaaa-4bbb-8ccc-dddddddddddd`);

function setUp(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  const replaced = () => env.sent("start").map(({ body }) => body.replaces);
  const keys = () => env.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  return { env, session, replaced, keys };
}

test("replaces is an option of the session, of start and of retry", async () => {
  const { env, session, replaced } = setUp({ replaces: [PHONE] });
  env.responses.start.push(limitReached, limitReached);
  await session.start();
  await session.start({ replaces: [TABLET] });
  await env.emitted("denied")[0].retry({ replaces: [LAPTOP] });
  await flushPromises();
  assert.deepEqual(replaced(), [[PHONE], [TABLET], [LAPTOP]]);
  assert.equal(session.state, "live");
});

test("a retry during an outage replaces the streams", async () => {
  const { env, session, replaced, keys } = setUp();
  env.responses.start.push(networkError, networkError);
  await session.start();
  await env.advance(1500);
  void session.retry({ replaces: [PHONE] });
  await flushPromises();
  await env.advance(60_000);
  assert.deepEqual(replaced(), [undefined, undefined, [PHONE]]);
  assert.equal(keys()[0], keys()[1]);
  assert.notEqual(keys()[1], keys()[2], "another body needs another key");
  assert.equal(session.state, "live");
});

for (const [name, response] of [
  ["succeeds", stream("first", { status: 201 })],
  ["is denied", limitReached],
  ["fails", networkError],
]) {
  test(`a retry replaces streams after a start that ${name}`, async () => {
    const { env, session, replaced } = setUp();
    const slow = deferred(response);
    env.responses.start.push(slow);
    void session.start();
    await env.advance(2000);
    void session.retry({ replaces: [PHONE] });
    await env.advance(2000);
    assert.equal(env.sent("start").length, 1, "the retry waits, because the service keeps only the stream that it commits last");
    await slow.deliver();
    assert.deepEqual(replaced(), [undefined, [PHONE]]);
    assert.equal(session.state, "live");
    assert.equal(env.emitted("denied").length, 0);
  });
}

test("a retry with replaces does not shorten Retry-After", async () => {
  const { env, session, replaced } = setUp();
  const busy = async (request) => ({ ...(await unavailable(request)), headers: new Map([["retry-after", "20"]]) });
  env.responses.start.push(busy);
  await session.start();
  void session.retry({ replaces: [PHONE] });
  await env.advance(19_999);
  assert.equal(env.sent("start").length, 1);
  await env.advance(10_000);
  assert.deepEqual(replaced(), [undefined, [PHONE]]);
});

test("a retry while the device id is unknown replaces the streams", async () => {
  const { env, session, replaced } = setUp({ deviceId: undefined });
  void session.start();
  void session.retry({ replaces: [PHONE] });
  await env.advance(1000);
  assert.deepEqual(replaced(), [[PHONE]]);
  assert.equal(session.state, "live");
});

test("a stop during a hand-over frees the pending slot", async () => {
  const { env, session } = setUp();
  const slow = deferred(stream("first", { status: 201 }));
  env.responses.start.push(slow);
  void session.start();
  await env.advance(2000);
  void session.retry({ replaces: [PHONE] });
  void session.stop();
  await slow.deliver();
  await env.advance(60_000);
  assert.equal(env.sent("start").length, 1);
  assert.equal(env.sent("stop").length, 1);
});

test("a retry during playback keeps the stream", async () => {
  const { env, session } = setUp();
  await session.start();
  await session.retry({ replaces: [PHONE] });
  assert.equal(env.sent("start").length, 1);
  assert.equal(session.state, "live");
});

test("invalid ids are not sent", async () => {
  const { session, replaced } = setUp({ replaces: () => ["", undefined, 7, "phone", `${PHONE}0`, PHONE, PHONE.toUpperCase()] });
  await session.start();
  assert.deepEqual(replaced(), [[PHONE, PHONE.toUpperCase()]]);
});

test("at most ten ids are sent", async () => {
  const ids = Array.from({ length: 12 }, () => crypto.randomUUID());
  const { session, replaced } = setUp({ replaces: ids });
  await session.start();
  assert.deepEqual(replaced(), [ids.slice(0, 10)]);
});
