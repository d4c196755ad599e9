// Tests `attach` when the page is closed, hidden or restored.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach } from "../src/player.js";
import { createEnvironment, FakeVideo, limitReached, problem } from "./environment.js";

function setUp(options) {
  const env = createEnvironment();
  const video = new FakeVideo();
  const { session } = env.record(attach(video, { ...env.options, ...options }));
  return { env, video, session };
}

async function startPlayback(options) {
  const all = setUp(options);
  await all.video.play();
  return all;
}

test("closing the page stops the stream synchronously", async () => {
  const { env } = await startPlayback({ token: "t" });
  void env.page.window.dispatch("pagehide", { persisted: false });
  assert.equal(env.sent("stop").length, 1);
  const [{ method, keepalive, headers }] = env.sent("stop");
  assert.deepEqual([method, keepalive, headers.Authorization], ["DELETE", true, "Bearer t"]);
});

for (const index of [0, 3]) {
  test(`pagehide listener ${index} alone stops the stream`, async () => {
    const { env } = await startPlayback();
    void env.page.window.dispatchTo(index, "pagehide", { persisted: false });
    assert.equal(env.beacons.length, 1);
  });
}

test("all pagehide listeners together send one stop", async () => {
  const { env } = await startPlayback();
  assert.equal(env.page.window.listeners("pagehide"), 4);
  await env.page.window.dispatch("pagehide", { persisted: false });
  assert.equal(env.beacons.length, 1);
});

test("a page restored from the back/forward cache starts again", async () => {
  const { env, video, session } = await startPlayback();
  await env.page.window.dispatch("pagehide", { persisted: true });
  assert.equal(env.beacons.length, 1);
  assert.equal(session.state, "idle");
  await env.page.window.dispatch("pageshow", { persisted: true });
  assert.equal(session.streamId, "stream-2");
  await video.pause();
  await env.page.window.dispatch("pagehide", { persisted: true });
  await env.page.window.dispatch("pageshow", { persisted: true });
  assert.equal(session.state, "idle");
  assert.equal(env.sent("start").length, 2);
});

test("a page that survives pagehide starts again while playing", async () => {
  const { env, video, session } = await startPlayback();
  await env.page.window.dispatch("pagehide", { persisted: false });
  await video.dispatch("timeupdate");
  assert.equal(session.streamId, "stream-2");
  await video.dispatch("timeupdate");
  assert.equal(env.sent("start").length, 2);
});

test("a page that survives pagehide sends one start", async () => {
  const { env, video, session } = await startPlayback();
  await env.page.window.dispatch("pagehide", { persisted: false });
  env.responses.start.push(problem(400, "invalid-request"));
  for (let turn = 0; turn < 5; turn += 1) await video.dispatch("timeupdate");
  assert.equal(session.state, "failed");
  assert.equal(env.sent("start").length, 2);
});

test("a restored page does not repeat a denied start", async () => {
  const { env, video, session } = setUp();
  env.responses.start.push(limitReached);
  await video.play();
  await env.page.window.dispatch("pagehide", { persisted: true });
  await env.page.window.dispatch("pageshow", { persisted: true });
  assert.notEqual(session.state, "live");
  assert.equal(env.sent("start").length, 1);
});
