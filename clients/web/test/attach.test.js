// Tests of `attach`: media and page events start and stop the session, and the session pauses and resumes the element.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach } from "../src/player.js";
import { createEnvironment, deferred, evicted, FakeVideo, flushPromises, limitReached, networkError, notFound, problem, stream } from "./environment.js";

function setUp(options, video = new FakeVideo()) {
  const env = createEnvironment();
  const attached = env.record(attach(video, { ...env.options, ...options }));
  return { env, video, attached, session: attached.session };
}

async function startPlayback(options) {
  const all = setUp(options);
  await all.video.play();
  return all;
}

test("play starts, the end stops, another play starts again", async () => {
  const { env, video, session } = await startPlayback();
  assert.equal(session.state, "live");
  await video.end();
  assert.equal(session.state, "idle");
  assert.equal(env.sent("stop").length, 1);
  await video.play();
  assert.equal(env.sent("start").length, 2);
});

test("no request is sent before playback", async () => {
  const { env } = setUp();
  await env.advance(600_000);
  assert.equal(env.requests.length, 0);
});

test("attaching to a playing video starts at once", async () => {
  const video = new FakeVideo();
  video.paused = false;
  const { session } = setUp({}, video);
  await flushPromises();
  assert.equal(session.state, "live");
});

test("a playing event without a play event starts", async () => {
  const { env, video } = setUp();
  video.paused = false;
  await video.dispatch("playing");
  assert.equal(env.sent("start").length, 1);
});

test("seeks, stalls, quality changes and short pauses keep the stream", async () => {
  const { env, video, session } = await startPlayback();
  for (const type of ["seeking", "waiting", "stalled", "seeked", "playing", "emptied", "loadstart", "playing"]) {
    await video.dispatch(type);
  }
  await video.pause();
  await env.advance(299_000);
  await video.play();
  await env.advance(600_000);
  assert.equal(env.sent("start").length, 1);
  assert.equal(env.sent("stop").length, 0);
  assert.equal(session.streamId, "stream-1");
});

test("a long pause stops the stream and play starts another", async () => {
  const { env, video, session } = await startPlayback({ stopAfterPauseS: 100 });
  await video.pause();
  await env.advance(99_999);
  assert.equal(env.sent("heartbeat").length, 3);
  assert.equal(env.sent("stop").length, 0);
  await env.advance(1);
  assert.equal(env.sent("stop").length, 1);
  await env.advance(600_000);
  assert.equal(env.sent("heartbeat").length, 3);
  await video.play();
  assert.equal(session.streamId, "stream-2");
});

test("a start without playback frees the slot like a pause", async () => {
  const { env, session } = setUp({ stopAfterPauseS: 100 });
  await session.start();
  await env.advance(99_999);
  assert.equal(env.sent("stop").length, 0);
  await env.advance(1);
  assert.equal(env.sent("stop").length, 1);
});

test("playback after an early start keeps the slot", async () => {
  const { env, video, session } = setUp({ stopAfterPauseS: 100 });
  await session.start();
  await env.advance(50_000);
  await video.play();
  await env.advance(600_000);
  assert.deepEqual([env.sent("start").length, env.sent("stop").length], [1, 0]);
});

test("each pause has its own time limit", async () => {
  const { env, video } = await startPlayback({ stopAfterPauseS: 100 });
  for (let turn = 0; turn < 3; turn += 1) {
    await video.pause();
    await env.advance(60_000);
    await video.play();
  }
  assert.equal(env.sent("stop").length, 0);
});

test("stopAfterPauseS may exceed the longest timer delay", async () => {
  for (const stopAfterPauseS of [30 * 86_400, Infinity]) {
    const { env, video } = await startPlayback({ stopAfterPauseS });
    await video.pause();
    await env.advance(3600_000);
    assert.equal(env.sent("stop").length, 0);
  }
});

test("other media events do not extend a pause", async () => {
  const { env, video } = await startPlayback();
  await video.pause();
  await env.advance(200_000);
  await video.dispatch("emptied");
  await env.advance(100_000);
  assert.equal(env.sent("stop").length, 1);
});

for (const [name, wakeUp] of [
  ["visibilitychange", ({ document }) => document.dispatch("visibilitychange")],
  ["resume", ({ document }) => document.dispatch("resume")],
  ["online", ({ window }) => window.dispatch("online")],
  ["pageshow", ({ window }) => window.dispatch("pageshow", { persisted: false })],
  ["a late timer", () => {}],
]) {
  test(`a pause that expired during sleep frees the slot (${name})`, async () => {
    const { env, video, session } = await startPlayback();
    await video.pause();
    env.sleep(8 * 3600_000);
    env.responses.heartbeat.push(notFound);
    await wakeUp(env.page);
    await env.runOverdueTimers();
    assert.equal(session.state, "idle");
    assert.equal(env.sent("start").length, 1);
    assert.equal(env.sent("heartbeat").length, 0);
  });
}

for (const type of ["error", "emptied"]) {
  test(`${type} without a pause event counts as a pause`, async () => {
    const { env, video } = await startPlayback();
    await video.dispatch(type);
    await env.advance(299_999);
    assert.equal(env.sent("stop").length, 0);
    await env.advance(1);
    assert.equal(env.sent("stop").length, 1);
  });
}

test("an eviction during a pause stays the final state", async () => {
  const { env, video, session } = await startPlayback();
  await video.pause();
  env.responses.heartbeat.push(evicted);
  await env.advance(600_000);
  assert.equal(session.state, "ended");
});

test("a denial pauses the player and play tries again", async () => {
  const { env, video, session } = setUp();
  env.responses.start.push(limitReached);
  await video.play();
  assert.equal(video.paused, true);
  assert.equal(env.emitted("denied").length, 1);
  await env.advance(600_000);
  assert.equal(session.state, "denied");
  await video.play();
  assert.equal(video.paused, false);
  assert.equal(session.state, "live");
});

for (const [name, response, state] of [
  ["succeeds", stream("s", { status: 201 }), "live"],
  ["finds no service", networkError, "unavailable"],
  ["is invalid", problem(400, "invalid-request"), "failed"],
]) {
  test(`a retry that ${name} resumes the denied player`, async () => {
    const { env, video, session } = setUp();
    env.responses.start.push(limitReached, response);
    await video.play();
    await env.emitted("denied")[0].retry();
    await flushPromises();
    assert.equal(session.state, state);
    assert.equal(video.paused, false);
    assert.equal(env.sent("start").length, 2);
  });
}

test("a second denial leaves the player paused", async () => {
  const { env, video } = setUp();
  env.responses.start.push(limitReached, limitReached);
  await video.play();
  assert.equal(await env.emitted("denied")[0].retry(), "denied");
  assert.equal(video.paused, true);
});

test("a late admission does not resume a user-paused player", async () => {
  const { env, video, session } = setUp();
  const late = deferred(stream("s", { status: 201 }));
  env.responses.start.push(limitReached, late);
  await video.play();
  await env.advance(200);
  await video.play();
  await video.pause();
  await late.deliver();
  assert.equal(session.state, "live");
  assert.equal(video.paused, true);
});

test("a resume that the browser blocks counts as a pause", async () => {
  const { env, video, session } = setUp({ stopAfterPauseS: 100 });
  env.responses.start.push(limitReached);
  await video.play();
  video.play = () => Promise.reject(new Error("NotAllowedError"));
  await session.retry();
  await flushPromises();
  assert.equal(video.paused, true);
  assert.equal(session.state, "live");
  await env.advance(99_999);
  assert.equal(env.sent("stop").length, 0);
  await env.advance(600_000);
  assert.equal(env.sent("stop").length, 1);
  assert.equal(session.state, "idle");
});

test("an evicted player is paused and stays paused", async () => {
  const { env, video, session } = await startPlayback();
  env.responses.heartbeat.push(evicted);
  await env.advance(30_000);
  assert.equal(video.paused, true);
  assert.equal(env.emitted("ended")[0].endedBy.deviceName, "Kitchen tablet");
  await env.advance(600_000);
  assert.equal(session.state, "ended");
  assert.equal(env.sent("start").length, 1);
});

for (const [name, message] of [["with", "Please pay"], ["without", undefined]]) {
  test(`an eviction ${name} a message ends playback`, async () => {
    const { env, video } = await startPlayback();
    const endedBy = { message };
    env.responses.heartbeat.push(problem(410, "stream-ended", { reason: "evicted", restart: "user", endedBy }));
    await env.advance(30_000);
    assert.equal(video.paused, true);
    assert.equal(env.emitted("ended")[0].endedBy.message, message);
  });
}

test("a play event right after the library's pause starts nothing", async () => {
  const { env, video, session } = setUp();
  env.responses.start.push(limitReached);
  await video.play();
  await env.advance(199);
  await video.play();
  assert.equal(video.paused, true);
  assert.equal(session.state, "denied");
  assert.equal(env.sent("start").length, 1);
  await env.advance(1);
  await video.play();
  assert.equal(session.state, "live");
});

test("a retry right after a denial plays", async () => {
  const { env, video, session } = setUp();
  env.responses.start.push(limitReached);
  await video.play();
  await session.retry();
  await flushPromises();
  assert.equal(video.paused, false);
  assert.equal(session.state, "live");
});

test("a silent restart does not pause the player", async () => {
  const { env, video } = await startPlayback();
  env.responses.heartbeat.push(notFound);
  await env.advance(30_000);
  assert.equal(env.emitted("restarted").length, 1);
  assert.equal(video.pauses, 0);
});

test("with stop, an outage pauses only at lease expiry", async () => {
  for (const [onUnavailable, pauses] of [["continue", 0], ["stop", 1]]) {
    const { env, video } = await startPlayback({ onUnavailable });
    env.responses.heartbeat.push(...Array(50).fill(networkError));
    await env.advance(89_999);
    assert.equal(video.pauses, 0);
    await env.advance(60_000);
    assert.equal(video.pauses, pauses);
  }
});

test("a rejected start keeps playing and is retried", async () => {
  const { env, video, session } = setUp();
  env.responses.start.push(problem(400, "invalid-request"));
  await video.play();
  for (let turn = 0; turn < 5; turn += 1) await video.dispatch("playing");
  assert.equal(session.state, "failed");
  assert.equal(video.paused, false);
  assert.equal(env.sent("start").length, 1);
  await env.advance(1000);
  assert.equal(session.state, "live");
});

test("a paused player without a slot stops its retries", async () => {
  const { env, video, session } = setUp({ stopAfterPauseS: 5 });
  env.responses.start.push(...Array(50).fill(problem(400, "invalid-request")));
  await video.play();
  await video.pause();
  await env.advance(5000);
  assert.equal(session.state, "idle");
  const { length } = env.requests;
  await env.advance(600_000);
  assert.equal(env.requests.length, length);
});

test("a player that is refused for one lease duration is paused", async () => {
  const { env, video } = setUp({ token: "wrong" });
  env.responses.start.push(...Array(50).fill(problem(401, "unauthorized")));
  await video.play();
  await env.advance(89_999);
  assert.equal(video.paused, false);
  await env.advance(1);
  assert.equal(video.paused, true);
  assert.equal(env.emitted("ended")[0].reason, "refused");
});

test("detaching and attaching during a start keeps playing", async () => {
  const { env, video, attached } = setUp();
  const slow = deferred(stream("first", { status: 201 }));
  env.responses.start.push(slow);
  await video.play();
  void attached.detach();
  const again = env.record(attach(video, env.options));
  await flushPromises();
  assert.equal(env.sent("start").length, 1);
  await slow.deliver();
  assert.equal(again.session.state, "live");
  assert.equal(env.sent("start").length, 2);
  assert.equal(video.pauses, 0);
});

test("start and retry do nothing after detach", async () => {
  const { env, video, attached, session } = setUp();
  env.responses.start.push(limitReached);
  await video.play();
  const [{ retry }] = env.emitted("denied");
  await attached.detach();
  for (const call of [retry, session.retry, session.start]) assert.equal(await call(), "idle");
  await env.advance(600_000);
  assert.equal(env.sent("start").length, 1);
  assert.equal(session.state, "idle");
  assert.equal(video.paused, true);
});

test("detach frees the slot and removes listeners and timers", async () => {
  const { env, video, attached } = await startPlayback();
  await video.pause();
  await attached.detach();
  assert.equal(env.sent("stop").length, 1);
  assert.equal(env.timers.size, 0);
  await video.play();
  await env.page.window.dispatch("pageshow", { persisted: true });
  assert.equal(env.sent("start").length, 1);
  for (const type of ["pagehide", "pageshow"]) assert.equal(env.page.window.listeners(type), 0);
});
