// Tests the content that a player reports: options that are functions, and changes of the content during playback.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach, createSession } from "../src/player.js";
import { createEnvironment, deferred, FakeVideo, flushPromises, networkError, notFound, problem, stream, unavailable } from "./environment.js";

function setUp(options) {
  const env = createEnvironment();
  const now = { id: "first" };
  const session = env.record(createSession({ ...env.options, contentId: () => now.id, ...options }));
  return { env, session, now, bodies: () => env.sent("heartbeat").map(({ body }) => body) };
}

async function startPlayback(options) {
  const all = setUp(options);
  await all.session.start();
  return all;
}

test("options that are functions are read at each start", async () => {
  let turn = 0;
  const next = (name) => () => `${name}-${turn}`;
  const { env, session } = setUp({ contentId: next("movie"), deviceName: next("tv"), labels: () => ({ quality: `q${turn}` }) });
  await session.start();
  await session.stop();
  turn = 1;
  await session.start();
  assert.deepEqual(env.sent("start").map(({ body }) => body), [0, 1].map((n) => (
    { deviceId: "tab-1", deviceName: `tv-${n}`, contentId: `movie-${n}`, labels: { quality: `q${n}` } }
  )));
});

test("empty and missing values are not sent", async () => {
  const { env, session } = setUp({ contentId: "", deviceName: () => null, labels: undefined, replaces: () => [undefined, ""] });
  await session.start();
  assert.deepEqual(env.sent("start")[0].body, { deviceId: "tab-1" });
});

test("a new content is sent at once", async () => {
  const { env, session, now, bodies } = await startPlayback();
  await env.advance(10_000);
  now.id = "second";
  session.update();
  await env.advance(0);
  assert.deepEqual(bodies(), [{ contentId: "second" }]);
  assert.equal(env.sent("heartbeat")[0].headers["Content-Type"], "application/json");
  await env.advance(30_000);
  assert.deepEqual(bodies(), [{ contentId: "second" }, undefined], "the content is sent once");
});

test("heartbeats of the same content have no body", async () => {
  const { env, session, bodies } = await startPlayback();
  for (let turn = 0; turn < 5; turn += 1) session.update();
  await env.advance(60_000);
  assert.deepEqual(bodies(), [undefined, undefined]);
});

test("without a call of update the next heartbeat has the content", async () => {
  const { env, now, bodies } = await startPlayback();
  now.id = "second";
  await env.advance(30_000);
  assert.deepEqual(bodies(), [{ contentId: "second" }]);
});

test("fast changes are combined into one heartbeat", async () => {
  const { env, session, now, bodies } = await startPlayback();
  for (let turn = 0; turn < 20; turn += 1) {
    now.id = `channel-${turn}`;
    session.update();
    await env.advance(20);
  }
  await env.advance(100);
  assert.deepEqual(bodies(), [{ contentId: "channel-19" }]);
});

test("a change during a request is sent after its response", async () => {
  const { env, session, now, bodies } = setUp();
  const slow = deferred(stream("stream-1", { status: 201, contentId: "first" }));
  env.responses.start.push(slow);
  void session.start();
  await env.advance(5000);
  now.id = "second";
  session.update();
  await env.advance(1000);
  assert.equal(env.requests.length, 1);
  await slow.deliver();
  await env.advance(0);
  assert.deepEqual(bodies(), [{ contentId: "second" }]);
});

for (const [name, response] of [["a network error", networkError], ["503", unavailable], ["400", problem(400, "invalid-request")]]) {
  test(`the content is repeated after ${name}`, async () => {
    const { env, session, now, bodies } = await startPlayback();
    await env.advance(5000);
    env.responses.heartbeat.push(response);
    now.id = "second";
    session.update();
    await env.advance(60_000);
    assert.deepEqual(bodies().slice(0, 3), [{ contentId: "second" }, { contentId: "second" }, undefined]);
  });
}

test("a return to the earlier content after a lost response is sent", async () => {
  const { env, session, now, bodies } = await startPlayback();
  await env.advance(5000);
  env.responses.heartbeat.push(networkError);
  now.id = "second";
  session.update();
  await env.advance(0);
  now.id = "first";
  await env.advance(1000);
  assert.deepEqual(bodies(), [{ contentId: "second" }, { contentId: "first" }]);
});

test("a heartbeat that renewed nothing is followed by one with the content", async () => {
  const { env, session, now, bodies } = await startPlayback();
  await env.advance(5000);
  env.responses.heartbeat.push(stream("stream-1", { contentId: "first" }));
  now.id = "second";
  session.update();
  await env.advance(60_000);
  assert.deepEqual(bodies().slice(0, 3), [{ contentId: "second" }, { contentId: "second" }, undefined]);
});

test("content that the service shortens is sent once", async () => {
  const { env, session, now, bodies } = await startPlayback();
  await env.advance(5000);
  env.responses.heartbeat.push(stream("stream-1", { contentId: "seco" }));
  now.id = "second";
  session.update();
  await env.advance(30_000);
  assert.deepEqual(bodies(), [{ contentId: "second" }, undefined]);
});

test("a restart sends the current content", async () => {
  const { env, now } = await startPlayback();
  now.id = "second";
  env.responses.heartbeat.push(notFound);
  await env.advance(30_000);
  assert.equal(env.sent("start")[1].body.contentId, "second");
});

test("a failing function is reported once and changes nothing", async () => {
  const { env, session, bodies } = await startPlayback({
    contentId: () => {
      throw new Error("no player");
    },
  });
  for (let turn = 0; turn < 5; turn += 1) session.update();
  await env.advance(60_000);
  assert.deepEqual(bodies(), [undefined, undefined]);
  assert.deepEqual(env.emitted("error").map(({ code }) => code), ["content-id-failed"]);
});

for (const type of ["timeupdate", "loadstart", "loadedmetadata"]) {
  test(`${type} of the element sends the new content`, async () => {
    const env = createEnvironment();
    const video = new FakeVideo();
    let id = "first";
    attach(video, { ...env.options, contentId: () => id });
    await video.play();
    await env.advance(5000);
    id = "second";
    await video.dispatch(type);
    await env.advance(0);
    assert.deepEqual(env.sent("heartbeat").map(({ body }) => body), [{ contentId: "second" }]);
    assert.equal(env.sent("start").length, 1);
  });
}

test("content that changes all the time causes few heartbeats", async () => {
  let turn = 0;
  const { env, session } = await startPlayback({ contentId: () => `${(turn += 1)}` });
  for (let quarters = 0; quarters < 4 * 60; quarters += 1) {
    await env.advance(250);
    session.update();
  }
  const { length } = env.sent("heartbeat");
  assert.ok(length > 10 && length < 20, `${length} heartbeats in a minute`);
});

test("a slow response does not speed up changing content", async () => {
  let turn = 0;
  const { env, session } = await startPlayback({ contentId: () => `${(turn += 1)}` });
  for (let quarters = 0; quarters < 4 * 60; quarters += 1) {
    const slow = deferred(stream("stream-1"));
    env.responses.heartbeat = [slow];
    env.options.timers.setTimeout(slow.deliver, 600);
    await env.advance(250);
    session.update();
  }
  const { length } = env.sent("heartbeat");
  assert.ok(length < 20, `${length} heartbeats in a minute`);
});

test("after a stable content, a change is sent at once", async () => {
  const { env, session, now, bodies } = await startPlayback();
  for (let turn = 0; turn < 40; turn += 1) {
    now.id = `channel-${turn}`;
    session.update();
    await env.advance(250);
  }
  await env.advance(20_000);
  const before = bodies().length;
  for (const id of ["movie", "series"]) {
    now.id = id;
    session.update();
    await env.advance(1000);
  }
  assert.deepEqual(bodies().slice(before), [{ contentId: "movie" }, { contentId: "series" }]);
});

test("long texts are cut so that bodies stay small", async () => {
  for (const letter of ["x", "é", "東", "\u0001", "😀"]) {
    const text = letter.repeat(20_000);
    const labels = Object.fromEntries(Array.from({ length: 8 }, (_, n) => [`${n}`.repeat(32), "x".repeat(64)]));
    const { env, session, now } = setUp({ deviceName: text, labels, deviceId: "x".repeat(128) });
    now.id = `a${text}`;
    const bodies = [];
    const counting = (request) => (bodies.push(request.body), stream("stream-1")());
    env.responses.start.push(counting);
    env.responses.heartbeat.push(counting);
    await session.start({ replaces: Array(20).fill(crypto.randomUUID()) });
    now.id = `b${text}`;
    await env.advance(30_000);
    assert.equal(bodies.length, 2);
    for (const body of bodies) {
      const json = JSON.stringify(body);
      assert.ok(Buffer.byteLength(json) < 16 * 1024, `${Buffer.byteLength(json)} bytes`);
      assert.ok(body.contentId.length > 256 && body.contentId.isWellFormed());
    }
  }
});
