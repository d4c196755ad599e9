// Tests the player against a running service, in real time. STREAM_MANAGER_URL is the URL of the service. Without it, the
// tests are skipped. Each test uses a random user name. A short lease, such as 10 s, makes the tests fast.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";

const baseUrl = process.env.STREAM_MANAGER_URL;
const skip = baseUrl ? false : "STREAM_MANAGER_URL is not set";

function setUp() {
  const userName = `tester/${crypto.randomUUID()} ü`;
  const streams = `${baseUrl}/v1/users/${encodeURIComponent(userName)}/streams`;
  const create = (options) => createSession({ baseUrl, userName, ...options });
  const count = async () => (await (await fetch(`${streams}/count`)).json()).count;
  const limitTo = (limit) =>
    fetch(streams.replace(/streams$/, "limit"), {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ limit }),
    });
  return { create, count, limitTo, streams };
}

const once = (session, type) => new Promise((resolve) => session.on(type, resolve));

test("heartbeats keep a stream past its first lease", { skip, timeout: 300_000 }, async () => {
  const { create, count } = setUp();
  const session = create({ deviceName: "Node", contentId: "movie-7" });
  assert.equal(await session.start(), "live");
  assert.equal(await count(), 1);
  let renewedS = 0;
  const leaseS = session.leaseEndsInSeconds;
  while (renewedS <= leaseS) renewedS += (await once(session, "renewed")).stream.heartbeatIntervalSeconds;
  assert.equal(await count(), 1);
  await session.stop();
  assert.equal(await count(), 0);
});

test("a denied device starts after it stops another stream", { skip, timeout: 300_000 }, async () => {
  const { create, count, limitTo } = setUp();
  await limitTo(1);
  await create({ deviceId: "tab" }).start();
  const reloaded = create({ deviceId: "tab" });
  assert.equal(await reloaded.start(), "live");
  assert.equal(await count(), 1);

  const other = create({ deviceId: "tv", deviceName: "Living-room TV" });
  const denied = once(other, "denied");
  assert.equal(await other.start(), "denied");
  const { limit, streams, stopOther, retry } = await denied;
  assert.equal(limit, 1);
  assert.equal(streams[0].streamId, reloaded.streamId);
  const ended = once(reloaded, "ended");
  assert.equal(await stopOther(streams[0].streamId), true);
  assert.equal(await retry(), "live");
  assert.equal((await ended).reason, "evicted");
  assert.equal(reloaded.state, "ended");
  await other.stop();
});

test("an evicted session receives the device that evicted it", { skip, timeout: 300_000 }, async () => {
  const { create, limitTo } = setUp();
  await limitTo(1);
  const first = create({ deviceId: "a" });
  await first.start();
  const ended = once(first, "ended");
  const second = create({ deviceId: "b", deviceName: "Kitchen tablet", atLimit: "evictOldest" });
  assert.equal(await second.start(), "live");
  const { endedBy } = await ended;
  assert.deepEqual(endedBy, { streamId: second.streamId, deviceName: "Kitchen tablet" });
  await second.stop();
});

test("an evicted session receives the message of the eviction", { skip, timeout: 300_000 }, async () => {
  const { create, streams } = setUp();
  const session = create({ deviceId: "tv" });
  await session.start();
  const ended = once(session, "ended");
  const message = "Your plan ended: zahle 3 € 🙂";
  const response = await fetch(streams.replace(/streams$/, "evictions"), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ streamIds: [session.streamId], message }),
  });
  assert.equal(response.status, 200);
  const { reason, endedBy } = await ended;
  assert.deepEqual([reason, endedBy], ["evicted", { message }]);
  assert.equal(session.state, "ended");
});

for (const call of ["start", "retry"]) {
  test(`${call} with replaces takes over the stream of another device`, { skip, timeout: 300_000 }, async () => {
    const { create, count, limitTo } = setUp();
    await limitTo(1);
    const phone = create({ deviceId: "phone" });
    await phone.start();
    const ended = once(phone, "ended");
    const tv = create({ deviceId: "tv", deviceName: "Living-room TV" });
    if (call === "retry") assert.equal(await tv.start(), "denied");
    assert.equal(await tv[call]({ replaces: [phone.streamId] }), "live");
    const { reason, endedBy } = await ended;
    assert.deepEqual([reason, endedBy], ["replaced", { streamId: tv.streamId, deviceName: "Living-room TV" }]);
    assert.equal(await count(), 1);
    await tv.stop();
  });
}

test("the service accepts texts of any length", { skip, timeout: 300_000 }, async () => {
  const text = "東京 👩🏽‍🚀 ".repeat(5000);
  const session = setUp().create({ deviceId: "tv", deviceName: text, contentId: text });
  assert.equal(await session.start(), "live");
  await session.stop();
});

test("a stream stopped by another client restarts silently", { skip, timeout: 300_000 }, async () => {
  const { create, count, streams } = setUp();
  const session = create();
  await session.start();
  const restarted = once(session, "restarted");
  await fetch(`${streams}/${session.streamId}/stop`, { method: "POST" });
  assert.equal((await restarted).streamId, session.streamId);
  assert.equal(await count(), 1);
  await session.stop({ unload: true });
});

test("an invalid device id fails the start with an error", { skip, timeout: 300_000 }, async () => {
  const session = setUp().create({ deviceId: "x".repeat(129) });
  const error = once(session, "error");
  assert.equal(await session.start(), "failed");
  assert.equal((await error).code, "invalid-request");
  await session.stop();
});
