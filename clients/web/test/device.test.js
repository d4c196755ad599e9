// Tests of the default device ids: each tab has its own id, and keeps it across reloads.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createDevices } from "../src/device.js";
import { createSession } from "../src/player.js";
import { createEnvironment, createPage, flushPromises, networkError } from "./environment.js";

function createStorage(items = {}) {
  return { items, getItem: (key) => items[key] ?? null, setItem: (key, value) => (items[key] = value) };
}

/** A fake BroadcastChannel class that connects all tabs of an environment. */
function createChannelClass() {
  const open = new Set();
  return class Channel {
    onmessage = null;
    constructor() {
      open.add(this);
    }
    postMessage(data) {
      for (const other of open) if (other !== this) queueMicrotask(() => open.has(other) && other.onmessage?.({ data }));
    }
    close() {
      open.delete(this);
    }
  };
}

function openTab(env, Channel, storage = createStorage()) {
  const page = createPage();
  const devices = createDevices({ page, timers: env.options.timers, storage, Channel });
  return { devices, page, storage, copy: () => createStorage({ ...storage.items }) };
}

async function claim(env, { devices }) {
  const claimed = devices.claim();
  await env.advance(1000);
  return claimed;
}

test("a reloaded tab keeps its device id", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  const before = openTab(env, Channel);
  const { id } = await claim(env, before);
  await before.page.window.dispatch("pagehide", { persisted: false });
  const after = openTab(env, Channel, before.storage);
  assert.equal((await claim(env, after)).id, id);
});

test("two new tabs get different ids without waiting", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  const one = await openTab(env, Channel).devices.claim();
  const two = await openTab(env, Channel).devices.claim();
  assert.notEqual(one.id, two.id);
});

test("a reload keeps the id while other tabs are open", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  await claim(env, openTab(env, Channel));
  const before = openTab(env, Channel);
  const { id } = await claim(env, before);
  await before.page.window.dispatch("pagehide", { persisted: false });
  assert.equal((await claim(env, openTab(env, Channel, before.storage))).id, id);
});

test("a duplicated tab stores a new id", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  const original = openTab(env, Channel);
  const { id } = await claim(env, original);
  const copy = openTab(env, Channel, original.copy());
  // The reply of the original tab ends the wait, so the test need not advance the clock.
  const copied = await copy.devices.claim();
  assert.notEqual(copied.id, id);
  assert.ok(Object.values(copy.storage.items).includes(copied.id));
  assert.ok(Object.values(original.storage.items).includes(id));
});

test("a late conflict changes the id for the next playback", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  const original = openTab(env, Channel);
  const { id } = await claim(env, original);
  await original.page.window.dispatch("pagehide", { persisted: false });
  const slow = new Channel();
  let question;
  slow.onmessage = ({ data }) => (question = data);
  const copy = openTab(env, Channel, original.copy());
  const first = await claim(env, copy);
  assert.equal(first.id, id);
  slow.postMessage({ id, taken: true, to: question.from });
  await flushPromises();
  first.release();
  assert.notEqual((await copy.devices.claim()).id, id);
});

test("tabs restored together with one id get different ids", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  const original = openTab(env, Channel);
  const { id } = await claim(env, original);
  await original.page.window.dispatch("pagehide", { persisted: false });
  const claims = [1, 2, 3].map(() => openTab(env, Channel, original.copy()).devices.claim());
  await env.advance(1000);
  const ids = (await Promise.all(claims)).map((each) => each.id);
  assert.equal(new Set(ids).size, 3);
  assert.ok(ids.includes(id));
});

test("a page in the back/forward cache releases its id", async () => {
  const env = createEnvironment();
  const Channel = createChannelClass();
  const first = openTab(env, Channel);
  const { id } = await claim(env, first);
  await first.page.window.dispatch("pagehide", { persisted: true });
  const second = openTab(env, Channel, first.storage);
  assert.equal((await claim(env, second)).id, id);
  await second.page.window.dispatch("pagehide", { persisted: false });
  await first.page.window.dispatch("pageshow", { persisted: true });
  assert.notEqual((await claim(env, openTab(env, Channel, first.copy()))).id, id);
});

test("players of one page have different ids, also after reload", async () => {
  const env = createEnvironment();
  const page = openTab(env, undefined);
  const [one, two] = [await page.devices.claim(), await page.devices.claim()];
  assert.notEqual(one.id, two.id);
  one.release();
  assert.equal((await page.devices.claim()).id, one.id);
  const reloaded = openTab(env, undefined, page.storage);
  assert.deepEqual([(await claim(env, reloaded)).id, (await claim(env, reloaded)).id], [one.id, two.id]);
});

test("broken or missing storage still gives a device id", async () => {
  const env = createEnvironment();
  const throws = () => {
    throw new Error("SecurityError");
  };
  const forbidden = createPage();
  Object.defineProperty(forbidden.window, "sessionStorage", { get: throws });
  const ids = [];
  for (const options of [
    { page: null },
    { page: createPage() },
    { page: forbidden },
    { page: null, storage: { getItem: throws, setItem: throws }, Channel: throws },
    { page: null, storage: createStorage({ "stream-manager.device": "<broken>" }) },
  ]) {
    const { id } = await createDevices({ timers: env.options.timers, ...options }).claim();
    assert.match(id, /^[0-9a-f-]{36}$/);
    ids.push(id);
  }
  assert.equal(new Set(ids).size, ids.length);
});

test("a session releases its device id on stop", async () => {
  const env = createEnvironment();
  const { devices } = openTab(env, undefined);
  const create = () => createSession({ ...env.options, deviceId: undefined, devices });
  const [one, two] = [create(), create()];
  await Promise.all([one.start(), two.start()]);
  assert.equal(env.requests[0].body.deviceId, one.deviceId);
  assert.equal(two.deviceId, `${one.deviceId}.2`);
  const { deviceId } = one;
  await one.stop();
  await one.start();
  assert.equal(one.deviceId, deviceId);
});

test("a stop before the device id is known sends nothing", async () => {
  const env = createEnvironment();
  const stored = createStorage({ "stream-manager.device": "00000000-0000-4000-8000-000000000000" });
  const { devices } = openTab(env, createChannelClass(), stored);
  const session = createSession({ ...env.options, deviceId: undefined, devices });
  const started = session.start();
  session.wake();
  await session.stop();
  await env.advance(1000);
  assert.equal(await started, "idle");
  assert.equal(env.requests.length, 0);
});

test("a wake-up before the device id is known sends nothing", async () => {
  const env = createEnvironment();
  const devices = { claim: () => new Promise(() => {}) };
  const session = createSession({ ...env.options, deviceId: undefined, devices });
  session.start();
  env.sleep(3600_000, { monotonic: false });
  await env.advance(20_000);
  session.wake();
  await flushPromises();
  assert.equal(env.requests.length, 0);
});

test("without a page the device id survives retries", async () => {
  const env = createEnvironment();
  const session = createSession({ ...env.options, page: null, deviceId: undefined });
  env.responses.start.push(networkError);
  await session.start();
  await env.advance(1000);
  await flushPromises();
  const [first, second] = env.sent("start");
  assert.match(first.body.deviceId, /^[0-9a-f-]{36}/);
  assert.deepEqual(first.body, second.body);
});
