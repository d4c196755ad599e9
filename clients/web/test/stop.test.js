// Tests that a stop frees the slot even if responses are late, the service is unavailable, or the page closes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import {
  createEnvironment,
  deferred,
  flushPromises,
  networkError,
  noResponse,
  notFound,
  problem,
  respond,
  stream,
  streamIds,
  unavailable,
} from "./environment.js";

async function startPlayback(options) {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, ...options }));
  await session.start();
  return { env, session };
}

test("stop frees the slot and ends all requests", async () => {
  const { env, session } = await startPlayback();
  await session.stop();
  const [stop] = env.sent("stop");
  assert.equal(stop.url, "https://streams.test/v1/users/ann/streams/stream-1");
  assert.equal(stop.method, "DELETE");
  assert.equal(session.state, "idle");
  assert.equal(session.streamId, null);
  await session.stop();
  await env.advance(600_000);
  assert.equal(env.requests.length, 2);
});

test("each playback has its own idempotency key", async () => {
  const { env, session } = await startPlayback();
  await session.stop();
  await session.start();
  const keys = env.sent("start").map(({ headers }) => headers["Idempotency-Key"]);
  assert.notEqual(keys[0], keys[1]);
});

test("a failed stop is retried with backoff", async () => {
  const { env, session } = await startPlayback();
  env.responses.stop.push(unavailable, networkError, noResponse);
  const stopped = session.stop();
  await env.advance(60_000);
  await stopped;
  const sent = env.sent("stop").map(({ atMs }) => atMs);
  assert.deepEqual(sent.slice(1).map((atMs, index) => atMs - sent[index]), [1000, 2000, 14_000]);
});

test("a stop is sent at most four times", async () => {
  const { env, session } = await startPlayback();
  env.responses.stop.push(...Array(20).fill(networkError));
  const stopped = session.stop();
  await env.advance(600_000);
  await stopped;
  assert.equal(env.sent("stop").length, 4);
});

for (const [name, response] of [["404", notFound], ["403", problem(403, "forbidden")]]) {
  test(`a stop is not retried after ${name}`, async () => {
    const { env, session } = await startPlayback();
    env.responses.stop.push(response);
    await session.stop();
    await env.advance(60_000);
    assert.equal(env.sent("stop").length, 1);
  });
}

test("a stop is retried after an HTML page", async () => {
  const { env, session } = await startPlayback();
  env.responses.stop.push(respond(200, undefined, { "content-type": "text/html" }));
  const stopped = session.stop();
  await env.advance(5000);
  await stopped;
  assert.equal(env.sent("stop").length, 2);
});

test("a start that succeeds after the stop is stopped", async () => {
  const env = createEnvironment();
  const session = env.record(createSession(env.options));
  const late = deferred(stream("late", { status: 201 }));
  env.responses.start.push(late);
  const started = session.start();
  const stopped = session.stop();
  assert.equal(await started, "idle");
  await flushPromises();
  assert.equal(env.sent("stop").length, 0);
  await late.deliver();
  await stopped;
  assert.equal(env.sent("stop")[0].url.split("/").at(-1), "late");
  assert.equal(env.emitted("started").length, 0);
  assert.equal(session.state, "idle");
});

test("a late start response does not affect the next playback", async () => {
  const env = createEnvironment();
  const session = env.record(createSession(env.options));
  const late = deferred(stream("late", { status: 201 }));
  env.responses.start.push(late);
  session.start();
  void session.stop();
  const again = session.start();
  await late.deliver();
  assert.equal(await again, "live");
  assert.equal(session.streamId, "stream-1");
  assert.deepEqual(streamIds(env.sent("stop")), ["late"]);
});

const replaced = problem(410, "stream-ended", { reason: "replaced", restart: "user" });

/** Fakes a service that keeps only the last committed stream of a device. The first start is committed after `latencyMs`. */
function keepLastStart(env, latencyMs) {
  let live;
  const commit = (streamId) => ((live = streamId), stream(streamId, { status: 201 }));
  const slow = deferred((request) => commit("first")(request));
  env.options.timers.setTimeout(slow.deliver, latencyMs);
  env.responses.start.push(slow, (request) => commit("second")(request));
  env.responses.heartbeat.push(
    ...Array(9).fill((request) => (request.url.includes(live) ? stream(live)(request) : replaced(request))),
  );
}

for (const latencyMs of [1000, 9000]) {
  test(`a new start waits ${latencyMs} ms for an abandoned start`, async () => {
    const env = createEnvironment();
    const session = env.record(createSession(env.options));
    keepLastStart(env, latencyMs);
    void session.start();
    void session.stop();
    void session.start();
    await env.advance(latencyMs - 1);
    assert.equal(env.sent("start").length, 1);
    await env.advance(100_000);
    assert.equal(session.state, "live");
    assert.equal(session.streamId, "second");
    assert.equal(env.sent("start").length, 2);
    assert.equal(env.emitted("ended").length, 0);
  });
}

test("only starts of the same device wait for each other", async () => {
  const env = createEnvironment();
  const first = createSession(env.options);
  keepLastStart(env, 1000);
  void first.start();
  void first.stop();
  await flushPromises();
  const second = createSession(env.options);
  void second.start();
  env.responses.start.unshift(stream("other", { status: 201 }));
  const other = createSession({ ...env.options, deviceId: "tab-2" });
  void other.start();
  await flushPromises();
  assert.deepEqual(env.sent("start").map(({ body }) => body.deviceId), ["tab-1", "tab-2"]);
  void other.stop();
  await env.advance(100_000);
  assert.equal(second.state, "live");
});

test("an abandoned start delays the next until its timeout", async () => {
  const env = createEnvironment();
  const session = env.record(createSession({ ...env.options, requestTimeoutS: 5 }));
  env.responses.start.push(noResponse);
  void session.start();
  void session.stop();
  void session.start();
  await env.advance(4999);
  assert.equal(env.sent("start").length, 1);
  assert.equal(session.state, "starting");
  await env.advance(1);
  assert.equal(session.state, "live");
});

test("a start that waits for another can be stopped", async () => {
  const env = createEnvironment();
  const session = env.record(createSession(env.options));
  keepLastStart(env, 1000);
  void session.start();
  void session.stop();
  void session.start();
  await session.stop();
  await env.advance(100_000);
  assert.equal(env.sent("start").length, 1);
  assert.deepEqual(streamIds(env.sent("stop")), ["first"]);
  assert.equal(session.state, "idle");
});

test("a late heartbeat response after a stop is ignored", async () => {
  const { env, session } = await startPlayback();
  const late = deferred(notFound);
  env.responses.heartbeat.push(late);
  await env.advance(30_000);
  await session.stop();
  assert.equal(env.sent("heartbeat")[0].signal.aborted, true);
  await late.deliver();
  assert.equal(session.state, "idle");
  assert.equal(env.sent("start").length, 1);
});

test("a stop cancels the retries of a start", async () => {
  const env = createEnvironment();
  const session = env.record(createSession(env.options));
  env.responses.start.push(networkError);
  await session.start();
  await session.stop();
  await env.advance(600_000);
  assert.equal(env.requests.length, 1);
});

test("an unload stop is synchronous and has keepalive and token", async () => {
  const { env, session } = await startPlayback({ token: () => "t" });
  void session.stop({ unload: true });
  const [stop] = env.sent("stop");
  assert.equal(stop.method, "DELETE");
  assert.equal(stop.keepalive, true);
  assert.equal(stop.headers.Authorization, "Bearer t");
  assert.equal(env.beacons.length, 0);
  await env.advance(60_000);
  assert.equal(env.sent("stop").length, 1);
});

test("only the first attempt of a stop uses keepalive", async () => {
  const { env, session } = await startPlayback();
  env.responses.stop.push(networkError);
  const stopped = session.stop();
  await env.advance(1000);
  await stopped;
  assert.deepEqual(env.sent("stop").map(({ keepalive }) => keepalive ?? false), [true, false]);
});

for (const [name, unload] of [
  ["a closing page", ({ env }) => env.page.window.dispatch("pagehide", { persisted: false })],
  ["an unload stop", ({ session }) => session.stop({ unload: true })],
]) {
  test(`${name} sends a waiting stop immediately`, async () => {
    const { env, session } = await startPlayback();
    env.responses.stop.push(unavailable);
    const stopped = session.stop();
    await flushPromises();
    assert.deepEqual(env.beacons, []);
    void unload({ env, session });
    assert.deepEqual(env.beacons, ["https://streams.test/v1/users/ann/streams/stream-1/stop"]);
    // If the page stays open, the stop is still retried.
    await env.advance(60_000);
    await stopped;
    assert.deepEqual(env.sent("stop").map(({ method }) => method), ["DELETE", "POST", "DELETE"]);
    assert.equal(env.beacons.length, 1);
    assert.equal(env.page.window.listeners("pagehide"), 0);
  });
}

test("an unload stop is sent before the playback is closed", async () => {
  const { env, session } = await startPlayback();
  let streamIdAtSend;
  env.onBeacon = () => (streamIdAtSend = session.streamId);
  void session.stop({ unload: true });
  assert.equal(streamIdAtSend, "stream-1");
  assert.equal(session.streamId, null);
});

test("an unload stop without a token is a request and a beacon", async () => {
  const { env, session } = await startPlayback();
  void session.stop({ unload: true });
  const url = "https://streams.test/v1/users/ann/streams/stream-1/stop";
  const [{ method, headers, keepalive }] = env.sent("stop");
  // POST without headers needs no preflight.
  assert.deepEqual({ method, headers, keepalive }, { method: "POST", headers: {}, keepalive: true });
  assert.equal(env.sent("stop")[0].url, url);
  assert.deepEqual(env.beacons, [url]);
});

for (const [name, sendBeacon] of [
  ["a blocked beacon that returns true", () => true],
  ["a rejected beacon", () => false],
  ["a missing beacon", null],
  ["a throwing beacon", () => {
    throw new Error("blocked");
  }],
]) {
  test(`${name} does not prevent the unload stop`, async () => {
    const { env, session } = await startPlayback({ sendBeacon });
    env.responses.stop.push(networkError);
    void session.stop({ unload: true });
    assert.equal(env.sent("stop").length, 1);
    await flushPromises();
  });
}

for (const token of [undefined, "t"]) {
  test(`without keepalive support an unload stop ${token ? "with" : "without"} a token is a beacon`, async () => {
    const { env, session } = await startPlayback({ token });
    env.responses.stop.push(() => {
      throw new TypeError("keepalive is not supported");
    });
    void session.stop({ unload: true });
    assert.equal(env.beacons.length, 1);
  });
}
