// Tests that playback ends when the element leaves its document.

import assert from "node:assert/strict";
import { test } from "node:test";
import { attach } from "../src/player.js";
import { createEnvironment, FakeVideo, flushPromises } from "./environment.js";

/** A fake document. `changed(root)` notifies the observers of this root, by default the document. */
function createDocument() {
  const observers = new Map();
  class MutationObserver {
    constructor(onChange) {
      this.onChange = onChange;
    }
    observe(root) {
      observers.set(root, this.onChange);
    }
    disconnect() {
      for (const [root, onChange] of observers) if (onChange === this.onChange) observers.delete(root);
    }
  }
  const document = { defaultView: { MutationObserver }, host: undefined };
  const changed = (root = document) => (observers.get(root)?.(), flushPromises());
  return { document, changed, observers };
}

async function startPlayback({ shadow = false, ...options } = {}) {
  const env = createEnvironment();
  const page = createDocument();
  const shadowRoot = { host: { getRootNode: () => page.document } };
  const video = Object.assign(new FakeVideo(), {
    isConnected: true,
    ownerDocument: page.document,
    getRootNode: () => (shadow ? shadowRoot : page.document),
  });
  const attached = env.record(attach(video, { ...env.options, ...options }));
  await video.play();
  return { env, page, video, attached, session: attached.session, shadowRoot };
}

test("a removed element is paused and frees its slot", async () => {
  const { env, page, video, session } = await startPlayback();
  video.isConnected = false;
  await page.changed();
  assert.equal(video.paused, true);
  assert.equal(session.state, "idle");
  assert.equal(env.sent("stop").length, 1);
});

test("an element that is removed while paused frees its slot", async () => {
  const { env, page, video } = await startPlayback();
  await video.pause();
  video.isConnected = false;
  await page.changed();
  assert.equal(env.sent("stop").length, 1);
  await env.advance(600_000);
  assert.equal(env.sent("stop").length, 1);
});

test("other changes of the page keep the slot", async () => {
  const { env, page, session } = await startPlayback();
  for (let turn = 0; turn < 5; turn += 1) await page.changed();
  assert.equal(session.state, "live");
  assert.equal(env.sent("stop").length, 0);
});

test("an element in a shadow tree is observed there too", async () => {
  for (const inShadow of [true, false]) {
    const { page, video, session, shadowRoot } = await startPlayback({ shadow: true });
    video.isConnected = false;
    await page.changed(inShadow ? shadowRoot : page.document);
    assert.equal(session.state, "idle");
  }
});

test("without observers the pause of a removed element frees the slot", async () => {
  const { env, page, video } = await startPlayback();
  page.observers.clear();
  video.isConnected = false;
  await video.pause();
  assert.equal(env.sent("stop").length, 1);
});

test("an element that was never in a document keeps its slot", async () => {
  const env = createEnvironment();
  const video = Object.assign(new FakeVideo(), { isConnected: false, ownerDocument: createDocument().document });
  const { session } = attach(video, env.options);
  await video.play();
  await video.pause();
  assert.equal(session.state, "live");
});

test("an element that returns to the document plays again", async () => {
  const { page, video, session } = await startPlayback();
  video.isConnected = false;
  await page.changed();
  video.isConnected = true;
  await video.play();
  assert.equal(session.streamId, "stream-2");
  video.isConnected = false;
  await page.changed();
  assert.equal(session.state, "idle");
});

for (const type of ["playing", "timeupdate"]) {
  test(`${type} observes an element that entered the document`, async () => {
    const env = createEnvironment();
    const page = createDocument();
    const video = Object.assign(new FakeVideo(), { isConnected: false, ownerDocument: page.document, getRootNode: () => page.document });
    const { session } = attach(video, env.options);
    await video.play();
    video.isConnected = true;
    await video.dispatch(type);
    assert.equal(session.state, "live");
    video.isConnected = false;
    await page.changed();
    assert.equal(session.state, "idle");
    assert.equal(video.paused, true);
  });
}

test("an element that left is not observed", async () => {
  const { page, video } = await startPlayback();
  video.isConnected = false;
  await page.changed();
  assert.equal(page.observers.size, 0);
});

test("a moved element is observed only in its new tree", async () => {
  const { page, video } = await startPlayback();
  const { document, observers } = createDocument();
  video.getRootNode = () => document;
  await video.dispatch("playing");
  assert.deepEqual([...page.observers.keys(), ...observers.keys()], [document]);
});

test("detach disconnects the observer", async () => {
  const { page, attached } = await startPlayback();
  assert.equal(page.observers.size, 1);
  await attached.detach();
  assert.equal(page.observers.size, 0);
});
