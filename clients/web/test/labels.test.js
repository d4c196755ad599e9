// Tests changes of the labels during playback: a change is a start that replaces the stream, and a denial keeps the former stream.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach, createSession } from "../src/player.js";
import {
  createEnvironment, deferred, evicted, expired, FakeVideo, flushPromises, networkError, notFound, problem, stream, streamIds, unavailable,
} from "./environment.js";

const uhdLimit = problem(409, "stream-limit-reached", {
  limit: 1,
  count: 1,
  rule: "one UHD stream",
  streams: [{ streamId: "other", deviceName: "Living-room TV" }],
  slotFreesInSeconds: 42,
});

async function startPlayback(options) {
  const env = createEnvironment();
  const now = { labels: { quality: "hd" } };
  const session = env.record(createSession({ ...env.options, labels: () => now.labels, ...options }));
  await session.start();
  await env.advance(5000);
  return { env, session, now, starts: () => env.sent("start").slice(1) };
}

/** Changes the labels and runs the request that this causes. */
async function changeLabels({ env, session, now }, labels) {
  now.labels = labels;
  session.update();
  await env.advance(0);
}

test("a change of the labels replaces the stream", async () => {
  const all = await startPlayback();
  const { env, session, starts } = all;
  await changeLabels(all, { quality: "uhd" });
  const [{ body, headers }] = starts();
  assert.deepEqual([body.labels, body.deviceId, body.atLimit], [{ quality: "uhd" }, "tab-1", "reject"]);
  assert.notEqual(headers["Idempotency-Key"], env.sent("start")[0].headers["Idempotency-Key"]);
  const [{ streamId, previousStreamId, labels }] = env.emitted("relabeled");
  assert.deepEqual([streamId, previousStreamId, labels], ["stream-2", "stream-1", { quality: "uhd" }]);
  assert.deepEqual([session.state, session.streamId], ["live", "stream-2"]);
  assert.deepEqual(env.emitted("state").length, 2, "the state does not change");
  await env.advance(30_000);
  assert.deepEqual(env.sent("heartbeat").map(({ url }) => url.split("/").at(-2)), ["stream-2"]);
});

test("a relabeling start names the stream that it replaces", async () => {
  const id = crypto.randomUUID();
  const env = createEnvironment();
  let quality = "hd";
  env.responses.start.push(stream(id, { status: 201 }));
  const session = createSession({ ...env.options, labels: () => ({ quality }) });
  await session.start();
  await env.advance(5000);
  quality = "uhd";
  session.update();
  await env.advance(0);
  assert.deepEqual(env.sent("start")[1].body.replaces, [id]);
});

test("equal labels in another order change nothing", async () => {
  const all = await startPlayback();
  await changeLabels(all, { quality: "uhd", channel: "7" });
  await all.env.advance(5000);
  await changeLabels(all, { channel: 7, quality: "uhd", other: undefined });
  await all.env.advance(60_000);
  assert.equal(all.starts().length, 1);
});

test("a denied change keeps the stream and its labels", async () => {
  const all = await startPlayback();
  const { env, session, starts } = all;
  env.responses.start.push(uhdLimit);
  await changeLabels(all, { quality: "uhd" });
  const [{ rule, limit, count, streams, labels, currentLabels }] = env.emitted("labelsDenied");
  assert.deepEqual([rule, limit, count, streams.length], ["one UHD stream", 1, 1, 1]);
  assert.deepEqual([labels, currentLabels], [{ quality: "uhd" }, { quality: "hd" }]);
  assert.deepEqual([session.state, session.streamId], ["live", "stream-1"]);
  assert.equal(env.emitted("denied").length, 0);
  await env.advance(120_000);
  assert.equal(starts().length, 1, "a refused change is not repeated");
  assert.equal(env.sent("heartbeat").length, 4);
});

test("after a denied change the heartbeat keeps its time", async () => {
  const all = await startPlayback();
  const { env } = all;
  env.responses.start.push(uhdLimit);
  await changeLabels(all, { quality: "uhd" });
  await env.advance(24_999);
  assert.equal(env.sent("heartbeat").length, 0);
  await env.advance(1);
  assert.equal(env.sent("heartbeat").length, 1);
});

test("retry requests the refused labels again", async () => {
  const all = await startPlayback();
  const { env, session, starts } = all;
  env.responses.start.push(uhdLimit);
  await changeLabels(all, { quality: "uhd" });
  await env.advance(1000);
  env.emitted("labelsDenied")[0].retry();
  await env.advance(0);
  assert.equal(starts().length, 2);
  assert.equal(session.streamId, "stream-2");
});

test("other labels after a denial are requested", async () => {
  const all = await startPlayback();
  const { env, starts } = all;
  env.responses.start.push(uhdLimit);
  await changeLabels(all, { quality: "uhd" });
  await changeLabels(all, { quality: "hd" });
  await env.advance(10_000);
  assert.equal(starts().length, 1, "a return to the former labels needs no request");
  await changeLabels(all, { quality: "uhd" });
  assert.equal(starts().length, 2);
});

test("a rejected change emits an error and keeps the stream", async () => {
  const all = await startPlayback();
  const { env, session, starts } = all;
  env.responses.start.push(problem(400, "invalid-request"));
  await changeLabels(all, { Quality: "uhd" });
  assert.deepEqual(env.emitted("error").map(({ code }) => code), ["invalid-request"]);
  await env.advance(60_000);
  assert.deepEqual([session.state, session.streamId, starts().length], ["live", "stream-1", 1]);
});

for (const [name, response] of [["a network error", networkError], ["503", unavailable], ["401", problem(401, "unauthorized")]]) {
  test(`a change is repeated with its key after ${name}`, async () => {
    const all = await startPlayback();
    const { env, session, starts } = all;
    env.responses.start.push(response);
    await changeLabels(all, { quality: "uhd" });
    assert.equal(session.state, "unavailable");
    await env.advance(5000);
    assert.equal(starts().length, 2);
    assert.equal(new Set(starts().map(({ headers, body }) => headers["Idempotency-Key"] + JSON.stringify(body))).size, 1);
    assert.equal(env.sent("heartbeat").length, 0, "the former stream may be replaced already");
    assert.deepEqual([session.state, env.emitted("available").length], ["live", 1]);
  });
}

test("heartbeats keep the lease while the service rejects a change", async () => {
  const all = await startPlayback();
  const { env, session, starts } = all;
  env.responses.start = Array(100).fill(unavailable);
  await changeLabels(all, { quality: "uhd" });
  await env.advance(300_000);
  assert.ok(session.leaseEndsInSeconds > 30, `${session.leaseEndsInSeconds} s`);
  assert.equal(new Set(starts().map(({ headers }) => headers["Idempotency-Key"])).size, 1);
  assert.ok(starts().length < 100, `${starts().length} starts`);
  env.responses.start = [];
  await env.advance(30_000);
  assert.deepEqual([session.streamId, env.emitted("relabeled").length], ["stream-2", 1]);
});

const replaced = problem(410, "stream-ended", { reason: "replaced", restart: "user", endedBy: { deviceName: "Phone" } });

test("a change whose response was lost is found again", async () => {
  const all = await startPlayback();
  const { env, session } = all;
  env.responses.start = [...Array(5).fill(networkError), stream("stream-2")];
  env.responses.heartbeat = Array(5).fill(replaced);
  await changeLabels(all, { quality: "uhd" });
  await env.advance(40_000);
  assert.equal(env.sent("heartbeat").length, 1);
  assert.deepEqual([session.state, session.streamId], ["live", "stream-2"]);
  assert.deepEqual([env.emitted("relabeled").length, env.emitted("ended").length], [1, 0]);
});

test("a replacement by another device during a change ends playback", async () => {
  const all = await startPlayback();
  const { env, session } = all;
  env.responses.start = [...Array(5).fill(networkError), stream("stream-2", { status: 201 })];
  env.responses.heartbeat.push(replaced);
  await changeLabels(all, { quality: "uhd" });
  await env.advance(60_000);
  assert.deepEqual(env.emitted("ended").map(({ reason, endedBy }) => [reason, endedBy]), [["replaced", { deviceName: "Phone" }]]);
  assert.deepEqual([session.state, streamIds(env.sent("stop"))], ["ended", ["stream-2"]]);
});

test("without a call of update the next request has the labels", async () => {
  const { env, now, starts } = await startPlayback();
  now.labels = { quality: "uhd" };
  await env.advance(25_000);
  assert.deepEqual([starts().length, env.sent("heartbeat").length], [1, 0]);
});

test("labels that change all the time cause few starts", async () => {
  let turn = 0;
  const { env, session, starts } = await startPlayback({ labels: () => ({ quality: `${(turn += 1)}` }) });
  for (let quarters = 0; quarters < 4 * 60; quarters += 1) {
    await env.advance(250);
    session.update();
  }
  assert.ok(starts().length > 10 && starts().length < 20, `${starts().length} starts in a minute`);
});

test("the new stream has the current content", async () => {
  let contentId = "first";
  const all = await startPlayback({ contentId: () => contentId });
  contentId = "second";
  await changeLabels(all, { quality: "uhd" });
  assert.equal(all.starts()[0].body.contentId, "second");
  await all.env.advance(30_000);
  assert.deepEqual(all.env.sent("heartbeat").map(({ body }) => body), [undefined]);
});

test("after a denied change the content is still sent", async () => {
  let contentId = "first";
  const all = await startPlayback({ contentId: () => contentId });
  all.env.responses.start.push(uhdLimit);
  contentId = "second";
  await changeLabels(all, { quality: "uhd" });
  await all.env.advance(1000);
  assert.deepEqual(all.env.sent("heartbeat").map(({ body }) => body), [{ contentId: "second" }]);
});

test("a stop during a change frees both streams", async () => {
  const all = await startPlayback();
  const { env, session } = all;
  const slow = deferred(stream("stream-2", { status: 201 }));
  env.responses.start.push(slow);
  await changeLabels(all, { quality: "uhd" });
  const stopped = session.stop();
  await flushPromises();
  await slow.deliver();
  await stopped;
  assert.deepEqual(streamIds(env.sent("stop")).sort(), ["stream-1", "stream-2"]);
});

test("an eviction during a change ends playback", async () => {
  const all = await startPlayback();
  all.env.responses.start.push(networkError, evicted);
  await changeLabels(all, { quality: "uhd" });
  await all.env.advance(5000);
  assert.deepEqual(all.env.emitted("ended").map(({ reason }) => reason), ["evicted"]);
});

test("a changed stream that expired starts again", async () => {
  const all = await startPlayback();
  const { env, session, starts } = all;
  env.responses.start.push(networkError, expired);
  await changeLabels(all, { quality: "uhd" });
  await env.advance(5000);
  assert.equal(session.state, "live");
  assert.equal(starts().length, 3);
  assert.deepEqual(starts()[2].body.labels, { quality: "uhd" });
  assert.equal(env.emitted("restarted").length, 1);
});

test("a restart after a denied change has the former labels", async () => {
  const all = await startPlayback();
  const { env, starts } = all;
  env.responses.start.push(uhdLimit);
  await changeLabels(all, { quality: "uhd" });
  env.responses.heartbeat.push(notFound);
  await env.advance(30_000);
  assert.deepEqual(starts()[1].body.labels, { quality: "hd" });
});

test("a failing function keeps the labels and is reported", async () => {
  const all = await startPlayback();
  const { env, session, now, starts } = all;
  Object.defineProperty(now, "labels", { get: () => { throw new Error("no player"); } });
  for (let turn = 0; turn < 5; turn += 1) session.update();
  await env.advance(60_000);
  assert.equal(starts().length, 0);
  assert.deepEqual(env.emitted("error").map(({ code }) => code), ["labels-failed"]);
});

test("a denied start names the rule", async () => {
  const env = createEnvironment();
  env.responses.start.push(uhdLimit);
  await env.record(createSession({ ...env.options, labels: { quality: "uhd" } })).start();
  assert.equal(env.emitted("denied")[0].rule, "one UHD stream");
});

test("a denied change does not pause the element", async () => {
  const env = createEnvironment();
  const video = new FakeVideo();
  let quality = "hd";
  attach(video, { ...env.options, labels: () => ({ quality }) });
  await video.play();
  await env.advance(5000);
  env.responses.start.push(uhdLimit);
  quality = "uhd";
  await video.dispatch("timeupdate");
  await env.advance(0);
  assert.equal(env.sent("start").length, 2);
  assert.equal(video.paused, false);
});
