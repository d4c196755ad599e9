// The service away, slow, overloaded or refusing a token: playing goes on until the lease ends, and tries go on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession } from "../src/player.js";
import { createWorld, flush, full, later, noNetwork, problem, respond, silence, stream, unavailable } from "./world.js";

async function playing(options, worldOptions) {
  const world = createWorld(worldOptions);
  const session = world.listen(createSession({ ...world.options, ...options }));
  await session.start();
  return { world, session };
}

const unauthorized = problem(401, "unauthorized");
const gaps = (calls) => calls.slice(1).map(({ atMs }, index) => atMs - calls[index].atMs);

for (const [name, answer, code] of [
  ["503", unavailable, "store-unavailable"],
  ["500", problem(500, "internal"), "internal"],
  ["502 of a proxy", respond(502), "http-502"],
  ["no network", noNetwork, "no-answer"],
  ["a platform that throws at once", () => { throw new TypeError("no network stack"); }, "no-answer"],
]) {
  test(`${name}: the start is repeated with the same key and body, and says so once`, async () => {
    const world = createWorld();
    const session = world.listen(createSession(world.options));
    world.next.start.push(answer, answer, answer);
    assert.equal(await session.start(), "unavailable");
    await world.advance(60_000);
    assert.equal(session.state, "live");
    const starts = world.sent("start");
    assert.equal(starts.length, 4);
    assert.equal(new Set(starts.map(({ headers }) => headers["Idempotency-Key"])).size, 1);
    assert.deepEqual(starts[0].body, starts[3].body);
    assert.deepEqual(world.heard("unavailable").map((event) => event.code), [code]);
    assert.equal(world.heard("available").length, 1);
    assert.equal(world.heard("started").length, 1);
  });
}

for (const [name, answer] of [
  ["an ingress' plain 404", respond(404)],
  ["the 403 page of a captive portal", respond(403, undefined, { "content-type": "text/html" })],
  ["JSON of somebody else", respond(400, { error: "no such path" })],
]) {
  test(`${name} in place of the service's answer to a start is no answer: it is tried again`, async () => {
    const world = createWorld();
    const session = world.listen(createSession(world.options));
    world.next.start.push(answer, answer);
    assert.equal(await session.start(), "unavailable");
    await world.advance(999);
    assert.equal(world.sent("start").length, 1);
    await world.advance(10_000);
    assert.equal(session.state, "live");
    assert.equal(world.sent("start").length, 3);
    assert.equal(world.heard("error").length, 0);
  });
}

test('"stop": a stream that was given up on is stopped, once', async () => {
  const { world, session } = await playing({ onUnavailable: "stop" });
  world.next.heartbeat.push(...Array(50).fill(unavailable));
  await world.advance(90_000);
  assert.equal(session.state, "ended");
  assert.deepEqual(world.sent("stop").map(({ url }) => url.split("/").at(-1)), ["stream-1"]);
});

test("tries back off from one second up to the heartbeat interval", async () => {
  const { world } = await playing({}, { random: () => 1 });
  world.next.heartbeat.push(...Array(9).fill(unavailable));
  await world.advance(300_000);
  const waits = gaps(world.sent("heartbeat")).slice(0, 8);
  assert.deepEqual(waits, [2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
});

test("the back-off is scattered, and never below a second", async () => {
  const { world } = await playing({}, { random: () => 0 });
  world.next.heartbeat.push(...Array(9).fill(unavailable));
  await world.advance(300_000);
  assert.deepEqual(gaps(world.sent("heartbeat")).slice(0, 6), [1000, 2000, 4000, 8000, 15_000, 15_000]);
});

test("a heartbeat that is answered again starts the back-off afresh", async () => {
  const { world, session } = await playing();
  world.next.heartbeat.push(unavailable, unavailable, stream("stream-1"), unavailable);
  await world.advance(33_000);
  assert.equal(session.state, "live");
  await world.advance(31_000);
  assert.deepEqual(gaps(world.sent("heartbeat")), [1000, 2000, 30_000, 1000]);
});

test("Retry-After is waited for, also when the page wakes up", async () => {
  const { world, session } = await playing();
  world.next.heartbeat.push(problem(429, "too-many-requests", {}, { "retry-after": "12" }));
  await world.advance(30_000);
  assert.equal(session.state, "unavailable");
  await world.advance(5000);
  await world.page.window.dispatch("online");
  await world.advance(6999);
  assert.equal(world.sent("heartbeat").length, 1);
  await world.advance(1);
  assert.equal(world.sent("heartbeat").length, 2);
});

test("a Retry-After of days is bounded, and one that is a date counts for nothing", async () => {
  const { world } = await playing();
  world.next.heartbeat.push(
    problem(503, "overloaded", {}, { "retry-after": "999999" }),
    problem(503, "overloaded", {}, { "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT" }),
  );
  await world.advance(333_000);
  assert.deepEqual(gaps(world.sent("heartbeat")), [300_000, 2000]);
});

test("a request without an answer is given up after its time limit", async () => {
  const { world, session } = await playing({ requestTimeoutS: 5 });
  world.next.heartbeat.push(silence);
  await world.advance(34_999);
  assert.equal(session.state, "live");
  await world.advance(1);
  assert.equal(session.state, "unavailable");
  assert.equal(world.heard("unavailable")[0].code, "timeout");
  assert.equal(world.sent("heartbeat")[0].signal.aborted, true);
});

test("the time limit holds also where fetch cannot be aborted, and its late answer changes nothing", async () => {
  const { world, session } = await playing({ onUnavailable: "stop" });
  const late = later(full);
  world.next.heartbeat.push(late);
  await world.advance(41_000);
  assert.equal(session.state, "live");
  await late.arrive();
  assert.equal(session.state, "live");
  assert.equal(world.heard("denied").length, 0);
});

test("an older answer never undoes what a newer one said", async () => {
  const { world, session } = await playing();
  const old = later(stream("stream-1", { leaseS: 5, intervalS: 2 }));
  world.next.heartbeat.push(old);
  await world.advance(35_000);
  world.sleep(20_000);
  await world.page.document.dispatch("visibilitychange");
  assert.equal(world.sent("heartbeat").length, 2);
  assert.equal(session.leaseEndsInSeconds, 90);
  await old.arrive();
  assert.equal(session.leaseEndsInSeconds, 90);
  await world.advance(29_000);
  assert.equal(world.sent("heartbeat").length, 2);
});

test("the lease is counted from when the request was sent, not from its answer", async () => {
  const { world, session } = await playing();
  const slow = later(stream("stream-1"));
  world.next.heartbeat.push(slow);
  await world.advance(38_000);
  await slow.arrive();
  assert.equal(session.leaseEndsInSeconds, 82);
});

test('"stop": playing ends exactly when the last acknowledged lease does', async () => {
  const { world, session } = await playing({ onUnavailable: "stop" });
  world.next.heartbeat.push(stream("stream-1", { leaseS: 87 }), ...Array(50).fill(unavailable));
  await world.advance(116_999);
  assert.equal(session.state, "unavailable");
  assert.equal(world.heard("unavailable")[0].leaseEndsInSeconds, 57);
  await world.advance(1);
  assert.equal(session.state, "ended");
  assert.deepEqual(world.heard("ended").map(({ reason }) => reason), ["unavailable"]);
  await flush();
  const { length } = world.calls;
  await world.advance(600_000);
  assert.equal(world.calls.length, length);
});

test('"continue": playing and trying go on past the lease, and a heartbeat settles it', async () => {
  const { world, session } = await playing({ onUnavailable: "continue" });
  world.next.heartbeat.push(...Array(20).fill(noNetwork));
  await world.advance(200_000);
  assert.equal(session.state, "unavailable");
  assert.equal(world.heard("ended").length, 0);
  await world.advance(200_000);
  assert.equal(session.state, "live");
});

test('"stop": a start that nobody ever answers may play for its own time', async () => {
  const world = createWorld();
  const session = world.listen(createSession({ ...world.options, onUnavailable: "stop", unansweredStartS: 40 }));
  world.next.start.push(...Array(50).fill(noNetwork));
  await session.start();
  await world.advance(39_999);
  assert.equal(session.state, "unavailable");
  await world.advance(1);
  assert.equal(session.state, "ended");
});

test("401 gets a fresh token and repeats the request at once, unnoticed", async () => {
  const asked = [];
  const token = async (about) => (asked.push(about), `token-${asked.length}`);
  const { world, session } = await playing({ token });
  world.next.heartbeat.push(unauthorized);
  await world.advance(30_000);
  assert.deepEqual(asked, [{ rejected: undefined }, { rejected: "token-1" }]);
  const beats = world.sent("heartbeat");
  assert.deepEqual(beats.map(({ headers }) => headers.Authorization), ["Bearer token-1", "Bearer token-2"]);
  assert.equal(beats[0].atMs, beats[1].atMs);
  assert.equal(session.state, "live");
  assert.equal(world.heard("unavailable").length, 0);
});

test("a token is asked for once while it works", async () => {
  let asked = 0;
  const { world } = await playing({ token: () => `token-${++asked}` });
  await world.advance(300_000);
  assert.equal(asked, 1);
});

test("a fresh token that is refused too is not repeated at once but with back-off", async () => {
  let asked = 0;
  const { world, session } = await playing({ token: () => `token-${++asked}`, onUnavailable: "stop" });
  world.next.heartbeat.push(...Array(4).fill(unauthorized));
  await world.advance(30_000);
  assert.equal(world.sent("heartbeat").length, 2);
  assert.equal(session.state, "unavailable");
  await world.advance(1000);
  assert.equal(world.sent("heartbeat").length, 3);
  await world.advance(6000);
  assert.equal(session.state, "live");
  world.next.heartbeat.push(unauthorized);
  await world.advance(30_000);
  assert.equal(session.state, "live");
});

test("a token that is a string is not repeated at once", async () => {
  const { world, session } = await playing({ token: "fixed" });
  world.next.heartbeat.push(unauthorized);
  await world.advance(30_000);
  assert.equal(world.sent("heartbeat").length, 1);
  assert.equal(world.heard("unavailable")[0].code, "unauthorized");
  await world.advance(1000);
  assert.equal(session.state, "live");
});

test("a token function that fails or hangs is a service without an answer", async () => {
  const world = createWorld();
  const tokens = [
    () => Promise.reject(new Error("signed out")),
    () => {
      throw new Error("no SDK");
    },
    () => new Promise(() => {}),
    () => "good",
  ];
  const session = world.listen(createSession({ ...world.options, token: () => tokens.shift()() }));
  assert.equal(await session.start(), "unavailable");
  await world.advance(60_000);
  assert.equal(session.state, "live");
  assert.equal(world.sent("start").length, 1);
  assert.equal(world.sent("start")[0].headers.Authorization, "Bearer good");
});

test("requests that need a token at the same time ask for it once", async () => {
  let asked = 0;
  const { world, session } = await playing({ token: async () => `token-${++asked}` });
  world.next.heartbeat.push(unauthorized);
  world.next.evict.push(unauthorized);
  world.sleep(31_000);
  session.wake();
  assert.equal(await session.stopOther("other"), true);
  await flush();
  assert.equal(asked, 2);
  assert.equal(session.state, "live");
});

test("a refusal that comes late does not throw away the token that has replaced the refused one", async () => {
  let asked = 0;
  const { world, session } = await playing({ token: async () => `token-${++asked}` });
  const late = later(unauthorized);
  world.next.heartbeat.push(late);
  await world.advance(30_000);
  world.next.evict.push(unauthorized);
  assert.equal(await session.stopOther("other"), true);
  await late.arrive();
  assert.equal(world.sent("heartbeat")[1].headers.Authorization, "Bearer token-2");
  assert.equal(asked, 2);
  assert.equal(session.state, "live");
});
