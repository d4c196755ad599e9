// The device id that a player has if it is given none: one a tab, also over reloads, and never two tabs' at once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createDevices } from "../src/device.js";
import { createSession } from "../src/player.js";
import { createPage, createWorld, flush, noNetwork } from "./world.js";

function createStorage(items = {}) {
  return { items, getItem: (key) => items[key] ?? null, setItem: (key, value) => (items[key] = value) };
}

/** One BroadcastChannel for all tabs of a world. */
function createAir() {
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

function tab(world, Channel, storage = createStorage()) {
  const page = createPage();
  const devices = createDevices({ page, timers: world.options.timers, storage, Channel });
  return { devices, page, storage, copy: () => createStorage({ ...storage.items }) };
}

async function claim(world, { devices }) {
  const claimed = devices.claim();
  await world.advance(1000);
  return claimed;
}

test("a reloaded tab has its id again", async () => {
  const world = createWorld();
  const Air = createAir();
  const before = tab(world, Air);
  const { id } = await claim(world, before);
  await before.page.window.dispatch("pagehide", { persisted: false });
  const after = tab(world, Air, before.storage);
  assert.equal((await claim(world, after)).id, id);
});

test("two tabs are two devices, and neither waits", async () => {
  const world = createWorld();
  const Air = createAir();
  const one = await tab(world, Air).devices.claim();
  const two = await tab(world, Air).devices.claim();
  assert.notEqual(one.id, two.id);
});

test("a reloaded tab keeps its id while other tabs, with others, are open", async () => {
  const world = createWorld();
  const Air = createAir();
  await claim(world, tab(world, Air));
  const before = tab(world, Air);
  const { id } = await claim(world, before);
  await before.page.window.dispatch("pagehide", { persisted: false });
  assert.equal((await claim(world, tab(world, Air, before.storage))).id, id);
});

test("a duplicated tab takes an id of its own and keeps it", async () => {
  const world = createWorld();
  const Air = createAir();
  const original = tab(world, Air);
  const { id } = await claim(world, original);
  const copy = tab(world, Air, original.copy());
  // Without any time: an answer ends the wait.
  const copied = await copy.devices.claim();
  assert.notEqual(copied.id, id);
  assert.ok(Object.values(copy.storage.items).includes(copied.id));
  assert.ok(Object.values(original.storage.items).includes(id));
});

test("a tab that hears only later that its id is another's changes it for its next playback", async () => {
  const world = createWorld();
  const Air = createAir();
  const original = tab(world, Air);
  const { id } = await claim(world, original);
  await original.page.window.dispatch("pagehide", { persisted: false });
  const slow = new Air();
  let asked;
  slow.onmessage = ({ data }) => (asked = data);
  const copy = tab(world, Air, original.copy());
  const first = await claim(world, copy);
  assert.equal(first.id, id);
  slow.postMessage({ id, taken: true, to: asked.from });
  await flush();
  first.release();
  assert.notEqual((await copy.devices.claim()).id, id);
});

test("tabs that are restored at the same moment with one id end with one each", async () => {
  const world = createWorld();
  const Air = createAir();
  const original = tab(world, Air);
  const { id } = await claim(world, original);
  await original.page.window.dispatch("pagehide", { persisted: false });
  const both = [1, 2, 3].map(() => tab(world, Air, original.copy()).devices.claim());
  await world.advance(1000);
  const ids = (await Promise.all(both)).map((each) => each.id);
  assert.equal(new Set(ids).size, 3);
  assert.ok(ids.includes(id));
});

test("a page kept for the back button does not answer for its tab, and does again when it is back", async () => {
  const world = createWorld();
  const Air = createAir();
  const first = tab(world, Air);
  const { id } = await claim(world, first);
  await first.page.window.dispatch("pagehide", { persisted: true });
  const second = tab(world, Air, first.storage);
  assert.equal((await claim(world, second)).id, id);
  await second.page.window.dispatch("pagehide", { persisted: false });
  await first.page.window.dispatch("pageshow", { persisted: true });
  assert.notEqual((await claim(world, tab(world, Air, first.copy()))).id, id);
});

test("two players of one page are two devices, the same two after a reload", async () => {
  const world = createWorld();
  const page = tab(world, undefined);
  const [one, two] = [await page.devices.claim(), await page.devices.claim()];
  assert.notEqual(one.id, two.id);
  one.release();
  assert.equal((await page.devices.claim()).id, one.id);
  const reloaded = tab(world, undefined, page.storage);
  assert.deepEqual([(await claim(world, reloaded)).id, (await claim(world, reloaded)).id], [one.id, two.id]);
});

test("where storage or channel are missing, forbidden or broken there is still an id", async () => {
  const world = createWorld();
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
    const { id } = await createDevices({ timers: world.options.timers, ...options }).claim();
    assert.match(id, /^[0-9a-f-]{36}$/);
    ids.push(id);
  }
  assert.equal(new Set(ids).size, ids.length);
});

test("a session without a device id starts as its tab's, and gives it back when it stops", async () => {
  const world = createWorld();
  const { devices } = tab(world, undefined);
  const create = () => createSession({ ...world.options, deviceId: undefined, devices });
  const [one, two] = [create(), create()];
  await Promise.all([one.start(), two.start()]);
  assert.equal(world.calls[0].body.deviceId, one.deviceId);
  assert.equal(two.deviceId, `${one.deviceId}.2`);
  const { deviceId } = one;
  await one.stop();
  await one.start();
  assert.equal(one.deviceId, deviceId);
});

test("a stop before the device id is known sends nothing", async () => {
  const world = createWorld();
  const stored = createStorage({ "stream-manager.device": "00000000-0000-4000-8000-000000000000" });
  const { devices } = tab(world, createAir(), stored);
  const session = createSession({ ...world.options, deviceId: undefined, devices });
  const started = session.start();
  session.wake();
  await session.stop();
  await world.advance(1000);
  assert.equal(await started, "idle");
  assert.equal(world.calls.length, 0);
});

test("nothing is sent before the device id is known, also not on waking up", async () => {
  const world = createWorld();
  const devices = { claim: () => new Promise(() => {}) };
  const session = createSession({ ...world.options, deviceId: undefined, devices });
  session.start();
  world.sleep(3600_000, { monotonic: false });
  await world.advance(20_000);
  session.wake();
  await flush();
  assert.equal(world.calls.length, 0);
});

test("sessions of one process without a page are different devices that stay the same over retries", async () => {
  const world = createWorld();
  const session = createSession({ ...world.options, page: null, deviceId: undefined });
  world.next.start.push(noNetwork);
  await session.start();
  await world.advance(1000);
  await flush();
  const [first, second] = world.sent("start");
  assert.match(first.body.deviceId, /^[0-9a-f-]{36}/);
  assert.deepEqual(first.body, second.body);
});
