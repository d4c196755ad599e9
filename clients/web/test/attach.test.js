// A media element and the page around it: what the user and the browser do becomes start and stop, and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach } from "../src/player.js";
import { createWorld, evicted, flush, full, gone, later, noNetwork, problem, stream, Video } from "./world.js";

function setUp(options, video = new Video()) {
  const world = createWorld();
  const attached = world.listen(attach(video, { ...world.options, ...options }));
  return { world, video, attached, session: attached.session };
}

async function playing(options) {
  const all = setUp(options);
  await all.video.play();
  return all;
}

test("play starts, the end stops, and another play is another playback", async () => {
  const { world, video, session } = await playing();
  assert.equal(session.state, "live");
  await video.end();
  assert.equal(session.state, "idle");
  assert.equal(world.sent("stop").length, 1);
  await video.play();
  assert.equal(world.sent("start").length, 2);
});

test("nothing is sent before anything plays", async () => {
  const { world } = setUp();
  await world.advance(600_000);
  assert.equal(world.calls.length, 0);
});

test("a video that plays already is started at once", async () => {
  const video = new Video();
  video.paused = false;
  const { session } = setUp({}, video);
  await flush();
  assert.equal(session.state, "live");
});

test("autoplay that says only that it is playing is started too", async () => {
  const { world, video } = setUp();
  video.paused = false;
  await video.dispatch("playing");
  assert.equal(world.sent("start").length, 1);
});

test("seeking, stalling, a change of quality and a short pause keep the same stream", async () => {
  const { world, video, session } = await playing();
  for (const type of ["seeking", "waiting", "stalled", "seeked", "playing", "emptied", "loadstart", "playing"]) {
    await video.dispatch(type);
  }
  await video.pause();
  await world.advance(299_000);
  await video.play();
  await world.advance(600_000);
  assert.equal(world.sent("start").length, 1);
  assert.equal(world.sent("stop").length, 0);
  assert.equal(session.streamId, "stream-1");
});

test("a paused player keeps its slot by heartbeats until the pause is long, and starts again on play", async () => {
  const { world, video, session } = await playing({ stopAfterPauseS: 100 });
  await video.pause();
  await world.advance(99_999);
  assert.equal(world.sent("heartbeat").length, 3);
  assert.equal(world.sent("stop").length, 0);
  await world.advance(1);
  assert.equal(world.sent("stop").length, 1);
  await world.advance(600_000);
  assert.equal(world.sent("heartbeat").length, 3);
  await video.play();
  assert.equal(session.streamId, "stream-2");
});

test("pauses do not add up", async () => {
  const { world, video } = await playing({ stopAfterPauseS: 100 });
  for (let turn = 0; turn < 3; turn += 1) {
    await video.pause();
    await world.advance(60_000);
    await video.play();
  }
  assert.equal(world.sent("stop").length, 0);
});

test("a pause of weeks, or without end, can be asked for", async () => {
  for (const stopAfterPauseS of [30 * 86_400, Infinity]) {
    const { world, video } = await playing({ stopAfterPauseS });
    await video.pause();
    await world.advance(3600_000);
    assert.equal(world.sent("stop").length, 0);
  }
});

test("what else happens to a paused player does not make its pause longer", async () => {
  const { world, video } = await playing();
  await video.pause();
  await world.advance(200_000);
  await video.dispatch("emptied");
  await world.advance(100_000);
  assert.equal(world.sent("stop").length, 1);
});

test("a pause that was slept through frees the slot instead of taking another", async () => {
  const { world, video, session } = await playing();
  await video.pause();
  world.sleep(8 * 3600_000);
  world.next.heartbeat.push(gone);
  await world.page.document.dispatch("visibilitychange");
  await world.fireOverdue();
  assert.equal(session.state, "idle");
  assert.equal(world.sent("start").length, 1);
});

for (const type of ["error", "emptied"]) {
  test(`a source that is gone by ${type}, without a pause, counts as a pause`, async () => {
    const { world, video } = await playing();
    await video.dispatch(type);
    await world.advance(299_999);
    assert.equal(world.sent("stop").length, 0);
    await world.advance(1);
    assert.equal(world.sent("stop").length, 1);
  });
}

test("a slot that is taken during a pause stays known as taken", async () => {
  const { world, video, session } = await playing();
  await video.pause();
  world.next.heartbeat.push(evicted);
  await world.advance(600_000);
  assert.equal(session.state, "ended");
});

test("a denied player is paused, and its own play is another try", async () => {
  const { world, video, session } = setUp();
  world.next.start.push(full);
  await video.play();
  assert.equal(video.paused, true);
  assert.equal(world.heard("denied").length, 1);
  await world.advance(600_000);
  assert.equal(session.state, "denied");
  await video.play();
  assert.equal(video.paused, false);
  assert.equal(session.state, "live");
});

for (const [name, answer, state] of [
  ["is admitted", stream("s", { status: 201 }), "live"],
  ["finds nobody", noNetwork, "unavailable"],
  ["is a bug", problem(400, "invalid-request"), "failed"],
]) {
  test(`a retry that ${name} resumes the player that a denial paused`, async () => {
    const { world, video, session } = setUp();
    world.next.start.push(full, answer);
    await video.play();
    await world.heard("denied")[0].retry();
    await flush();
    assert.equal(session.state, state);
    assert.equal(video.paused, false);
    assert.equal(world.sent("start").length, 2);
  });
}

test("a retry that is denied again leaves the player paused", async () => {
  const { world, video } = setUp();
  world.next.start.push(full, full);
  await video.play();
  assert.equal(await world.heard("denied")[0].retry(), "denied");
  assert.equal(video.paused, true);
});

test("a player that its user paused since is not resumed by an admission", async () => {
  const { world, video, session } = setUp();
  const late = later(stream("s", { status: 201 }));
  world.next.start.push(full, late);
  await video.play();
  await video.play();
  await video.pause();
  await late.arrive();
  assert.equal(session.state, "live");
  assert.equal(video.paused, true);
});

test("a browser that wants a click before it resumes is no failure, and a pause that ends as any other", async () => {
  const { world, video, session } = setUp({ stopAfterPauseS: 100 });
  world.next.start.push(full);
  await video.play();
  video.play = () => Promise.reject(new Error("NotAllowedError"));
  await session.retry();
  await flush();
  assert.equal(video.paused, true);
  assert.equal(session.state, "live");
  await world.advance(99_999);
  assert.equal(world.sent("stop").length, 0);
  await world.advance(600_000);
  assert.equal(world.sent("stop").length, 1);
  assert.equal(session.state, "idle");
});

test("a player whose slot was taken is paused, hears by whom, and stays paused", async () => {
  const { world, video, session } = await playing();
  world.next.heartbeat.push(evicted);
  await world.advance(30_000);
  assert.equal(video.paused, true);
  assert.equal(world.heard("ended")[0].endedBy.deviceName, "Kitchen tablet");
  await world.advance(600_000);
  assert.equal(session.state, "ended");
  assert.equal(world.sent("start").length, 1);
});

test("a silent start does not touch the player", async () => {
  const { world, video } = await playing();
  world.next.heartbeat.push(gone);
  await world.advance(30_000);
  assert.equal(world.heard("restarted").length, 1);
  assert.equal(video.pauses, 0);
});

test("no answer pauses the player only at the end of the lease, and only if told to", async () => {
  for (const [onUnavailable, pauses] of [["continue", 0], ["stop", 1]]) {
    const { world, video } = await playing({ onUnavailable });
    world.next.heartbeat.push(...Array(50).fill(noNetwork));
    await world.advance(89_999);
    assert.equal(video.pauses, 0);
    await world.advance(60_000);
    assert.equal(video.pauses, pauses);
  }
});

test("a start that fails as a bug is not repeated at every stall, only at the next play", async () => {
  const { world, video } = setUp();
  world.next.start.push(problem(400, "invalid-request"));
  await video.play();
  for (let turn = 0; turn < 5; turn += 1) await video.dispatch("playing");
  assert.equal(video.paused, false);
  assert.equal(world.sent("start").length, 1);
  await video.pause();
  await video.play();
  assert.equal(world.sent("start").length, 2);
});

test("a page that is closed stops its stream before it is gone", async () => {
  const { world } = await playing({ token: "t" });
  void world.page.window.dispatch("pagehide", { persisted: false });
  assert.equal(world.sent("stop").length, 1);
  assert.equal(world.sent("stop")[0].keepalive, true);
});

test("a page kept for the back button stops, and starts again when it comes back playing", async () => {
  const { world, video, session } = await playing();
  await world.page.window.dispatch("pagehide", { persisted: true });
  assert.equal(world.beacons.length, 1);
  assert.equal(session.state, "idle");
  await world.page.window.dispatch("pageshow", { persisted: true });
  assert.equal(session.streamId, "stream-2");
  await video.pause();
  await world.page.window.dispatch("pagehide", { persisted: true });
  await world.page.window.dispatch("pageshow", { persisted: true });
  assert.equal(session.state, "idle");
  assert.equal(world.sent("start").length, 2);
});

test("a page that said goodbye and stayed, as after a download link, starts again while it plays", async () => {
  const { world, video, session } = await playing();
  await world.page.window.dispatch("pagehide", { persisted: false });
  await video.dispatch("timeupdate");
  assert.equal(session.streamId, "stream-2");
  await video.dispatch("timeupdate");
  assert.equal(world.sent("start").length, 2);
});

test("a page that stayed and whose start fails as a bug does not start at every moment of the film", async () => {
  const { world, video, session } = await playing();
  await world.page.window.dispatch("pagehide", { persisted: false });
  world.next.start.push(problem(400, "invalid-request"));
  for (let turn = 0; turn < 5; turn += 1) await video.dispatch("timeupdate");
  assert.equal(session.state, "failed");
  assert.equal(world.sent("start").length, 2);
});

test("a denied page is not started again by coming back", async () => {
  const { world, video, session } = setUp();
  world.next.start.push(full);
  await video.play();
  await world.page.window.dispatch("pagehide", { persisted: true });
  await world.page.window.dispatch("pageshow", { persisted: true });
  assert.notEqual(session.state, "live");
  assert.equal(world.sent("start").length, 1);
});

test("a player that is detached and attached anew while it starts plays on", async () => {
  const { world, video, attached } = setUp();
  const slow = later(stream("first", { status: 201 }));
  world.next.start.push(slow);
  await video.play();
  void attached.detach();
  const again = world.listen(attach(video, world.options));
  await flush();
  assert.equal(world.sent("start").length, 1);
  await slow.arrive();
  assert.equal(again.session.state, "live");
  assert.equal(world.sent("start").length, 2);
  assert.equal(video.pauses, 0);
});

test("a player that was detached is not started again by what still knows it", async () => {
  const { world, video, attached, session } = setUp();
  world.next.start.push(full);
  await video.play();
  const [{ retry }] = world.heard("denied");
  await attached.detach();
  for (const call of [retry, session.retry, session.start]) assert.equal(await call(), "idle");
  await world.advance(600_000);
  assert.equal(world.sent("start").length, 1);
  assert.equal(session.state, "idle");
  assert.equal(video.paused, true);
});

test("detach frees the slot and lets go of element, page and timers", async () => {
  const { world, video, attached } = await playing();
  await video.pause();
  await attached.detach();
  assert.equal(world.sent("stop").length, 1);
  assert.equal(world.timers.size, 0);
  await video.play();
  await world.page.window.dispatch("pageshow", { persisted: true });
  assert.equal(world.sent("start").length, 1);
  for (const type of ["pagehide", "pageshow"]) assert.equal(world.page.window.listeners(type), 0);
});
