// Tests that exceptions of the application or the platform are reported. A player that plays without a slot after an exception always
// emits an event.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach, createSession } from "../src/player.js";
import { createEnvironment, FakeVideo, flushPromises } from "./environment.js";

const broken = () => {
  throw new Error("broken");
};
/** `String()` throws a TypeError for this value. */
const unprintable = Object.create(null);

const BROKEN_PLATFORMS = [
  ["random numbers", { random: broken }],
  ["timers", { timers: { setTimeout: broken, clearTimeout() {} } }],
  ["clock", { clock: { now: broken } }],
];

for (const [name, options] of BROKEN_PLATFORMS) {
  test(`with broken ${name}, the session emits an error`, async () => {
    const env = createEnvironment();
    const session = env.record(createSession({ ...env.options, ...options }));
    await session.start();
    expectException(env, session);
  });

  test(`with broken ${name}, the play event emits an error`, async (t) => {
    t.mock.method(console, "error", () => {});
    const env = createEnvironment();
    const video = new FakeVideo();
    const { session } = env.record(attach(video, { ...env.options, ...options }));
    await video.play();
    expectException(env, session);
  });
}

function expectException(env, session) {
  assert.equal(env.emitted("error")[0].code, "exception");
  assert.match(env.emitted("error")[0].detail, /broken/);
  assert.equal(session.state, "failed");
}

test("an element whose document cannot be observed takes a slot", async (t) => {
  const reported = t.mock.method(console, "error", () => {});
  const env = createEnvironment();
  const ownerDocument = { defaultView: { MutationObserver: class { disconnect() {} } } };
  const video = Object.assign(new FakeVideo(), { isConnected: true, ownerDocument, getRootNode: broken });
  const { session } = attach(video, env.options);
  await video.play();
  assert.equal(session.state, "live");
  assert.equal(reported.mock.callCount() > 0, true);
});

test("a denial pauses the element although the clock fails", async (t) => {
  t.mock.method(console, "error", () => {});
  const env = createEnvironment();
  let failing = false;
  const now = () => (failing ? broken() : env.nowMs);
  const video = new FakeVideo();
  const attached = env.record(attach(video, { ...env.options, clock: { now } }));
  attached.on("denied", () => (failing = false));
  attached.session.on("state", ({ state }) => (failing = state === "denied"));
  env.responses.start.push(async () => ({ status: 409 }));
  await video.play();
  assert.equal(video.paused, true);
});

test("an exception that ends playback frees all resources", async () => {
  const env = createEnvironment();
  const released = [];
  let timersFail = false;
  const timers = {
    setTimeout: (...call) => (timersFail ? broken() : env.options.timers.setTimeout(...call)),
    clearTimeout: env.options.timers.clearTimeout,
  };
  const devices = { claim: async () => ({ id: "tab", release: () => released.push("tab") }) };
  const session = env.record(createSession({ ...env.options, deviceId: undefined, devices, timers }));
  await session.start();
  const listeners = () => env.page.window.listeners("online") + env.page.document.listeners("visibilitychange");
  assert.equal(listeners(), 2);
  timersFail = true;
  env.sleep(31_000);
  session.wake();
  await flushPromises();
  assert.equal(session.state, "failed");
  assert.equal(listeners(), 0);
  assert.deepEqual(released, ["tab"]);
});

for (const [option, code] of [["contentId", "content-id-failed"], ["deviceName", "device-name-failed"]]) {
  for (const [name, value] of [["a value", unprintable], ["a result", () => unprintable]]) {
    test(`${name} of ${option} that is not text is omitted`, async () => {
      const env = createEnvironment();
      const session = env.record(createSession({ ...env.options, [option]: value }));
      await session.start();
      assert.doesNotThrow(session.update);
      assert.equal(session.state, "live");
      assert.deepEqual(env.emitted("error").map((event) => event.code), [code]);
      assert.deepEqual(env.sent("start")[0].body, { deviceId: "tab-1" });
    });
  }
}
