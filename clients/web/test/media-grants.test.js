// Tests how grants get into the requests of player libraries. tests/enforcement runs the real libraries.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSession, mediaGrants } from "../src/player.js";
import { createEnvironment, evicted, flushPromises } from "./environment.js";

const ORIGIN = "https://media.test";
const SEGMENT = `${ORIGIN}/media/movie/1.m4s`;
const GRANT = "header.g1.signature";
const BEARER = { Authorization: `Bearer ${GRANT}` };

function setUp(options) {
  const env = createEnvironment();
  let issued = 0;
  env.nextGrant = () => `header.g${(issued += 1)}.signature`;
  const session = createSession(env.options);
  const cookies = [];
  const document = { set cookie(value) { cookies.push(value); } };
  const page = { document, location: { href: "https://www.test/watch", protocol: "https:" } };
  const media = mediaGrants(session, { origins: [ORIGIN], page, ...options });
  return { env, session, media, cookies };
}

async function startPlayback(options) {
  const all = setUp(options);
  await all.session.start();
  return all;
}

class FakeXhr {
  headers = {};
  open(method, url) {
    Object.assign(this, { method, url });
  }
  setRequestHeader(name, value) {
    if (!this.url) throw new Error("not opened");
    this.headers[name] = value;
  }
}

for (const [url, expected] of [
  [SEGMENT, `${SEGMENT}?grant=${GRANT}`],
  [`${SEGMENT}?a=1&b`, `${SEGMENT}?a=1&b&grant=${GRANT}`],
  [`${SEGMENT}?grant=old&a=1#t=5`, `${SEGMENT}?a=1&grant=${GRANT}#t=5`],
  [`${SEGMENT}?`, `${SEGMENT}?grant=${GRANT}`],
]) {
  test(`the query of ${url.slice(ORIGIN.length)} gets the grant`, async () => {
    const { media } = await startPlayback();
    assert.deepEqual(await media.request(url), { url: expected, headers: {}, credentials: false });
  });
}

test("header and cookie leave the URL unchanged", async () => {
  const { media } = await startPlayback();
  assert.deepEqual(await media.request(SEGMENT, "header"), { url: SEGMENT, headers: BEARER, credentials: false });
  assert.deepEqual(await media.request(SEGMENT, "cookie"), { url: SEGMENT, headers: {}, credentials: true });
});

const OTHER_URLS = ["https://ads.test/1.ts", "https://media.test.evil/1.ts", "http://media.test/1.ts", "https://media.test@evil/1.ts", "data:,x", "/local"];
for (const url of OTHER_URLS) {
  test(`${url} gets no grant and does not wait`, async () => {
    const { media } = setUp();
    for (const send of ["query", "header", "cookie"]) {
      assert.deepEqual(await media.request(url, send), { url, headers: {}, credentials: false });
    }
  });
}

test("relative URLs have the origin of the page", async () => {
  const { media } = await startPlayback({ origins: ["https://www.test"] });
  assert.equal((await media.request("/media/movie/1.m4s")).url, `/media/movie/1.m4s?grant=${GRANT}`);
});

test("hls.js gets an opened request with the grant", async () => {
  const { media } = await startPlayback({ send: "header" });
  const xhr = new FakeXhr();
  await media.hls(xhr, SEGMENT);
  assert.deepEqual([xhr.method, xhr.url, xhr.headers], ["GET", SEGMENT, BEARER]);
  const license = new FakeXhr();
  await media.hlsLicense(license, `${ORIGIN}/license`);
  assert.deepEqual([license.method, license.headers], ["POST", BEARER]);
});

test("a request of hls.js waits until the session starts", async () => {
  const { session, media } = setUp();
  const xhr = new FakeXhr();
  const done = media.hls(xhr, SEGMENT);
  await flushPromises();
  assert.equal(xhr.url, undefined);
  await session.start();
  await done;
  assert.equal(xhr.url, `${SEGMENT}?grant=${GRANT}`);
});

test("Shaka sends media by query and licences by header", async () => {
  const { media } = await startPlayback();
  const segment = { uris: [SEGMENT, "https://ads.test/1"], headers: {} };
  await media.shaka(1, segment);
  assert.deepEqual(segment, { uris: [`${SEGMENT}?grant=${GRANT}`, "https://ads.test/1"], headers: {} });
  const license = { uris: [`${ORIGIN}/license`], headers: { a: "b" } };
  await media.shaka(2, license);
  assert.deepEqual(license, { uris: [`${ORIGIN}/license`], headers: { a: "b", ...BEARER } });
});

test("dash.js gets the changed request back", async () => {
  const { media } = await startPlayback({ send: "cookie" });
  const sent = { url: SEGMENT, headers: { Range: "bytes=0-9" }, credentials: "omit" };
  assert.equal(await media.dash(sent), sent);
  assert.deepEqual(sent, { url: SEGMENT, headers: { Range: "bytes=0-9" }, credentials: "include" });
  const license = { url: `${ORIGIN}/license`, headers: null, withCredentials: false };
  await media.dashLicense(license);
  assert.deepEqual(license, { url: `${ORIGIN}/license`, headers: BEARER, withCredentials: false });
});

test("video.js gets the newest grant without waiting", async () => {
  const { session, media } = setUp();
  assert.equal(media.vhs({ uri: SEGMENT }).uri, SEGMENT);
  await session.start();
  assert.equal(media.vhs({ uri: "https://ads.test/1.ts" }).uri, "https://ads.test/1.ts");
  assert.deepEqual(media.vhs({ uri: SEGMENT, timeout: 5 }), { uri: `${SEGMENT}?grant=${GRANT}`, timeout: 5, headers: {} });
});

test("the cookie follows the grants and ends with playback", async () => {
  const { env, cookies } = await startPlayback({ send: "cookie", cookie: { domain: "test", path: "/media/" } });
  const attributes = "; Path=/media/; Domain=test; SameSite=Lax; Secure";
  await env.advance(30_000);
  env.responses.heartbeat.push(evicted);
  await env.advance(30_000);
  assert.deepEqual(cookies, [
    `grant=${GRANT}; Max-Age=90${attributes}`,
    `grant=header.g2.signature; Max-Age=90${attributes}`,
    `grant=; Max-Age=0${attributes}`,
  ]);
});

test("a session that already plays sets its cookie", async () => {
  const { session } = await startPlayback();
  const cookies = [];
  const page = { document: { set cookie(value) { cookies.push(value); } }, location: { protocol: "http:" } };
  const media = mediaGrants(session, { origins: [ORIGIN], send: "cookie", page });
  assert.deepEqual(cookies, [`grant=${GRANT}; Max-Age=90; Path=/; SameSite=Lax`]);
  media.stop();
  await session.stop();
  assert.equal(cookies.length, 1);
});

test("only cookies add listeners", async () => {
  const { cookies } = await startPlayback();
  assert.deepEqual(cookies, []);
});

const INVALID = [{ origins: [] }, { origins: "https://media.test" }, { origins: ["media.test"] }, { send: "body" }, { license: "none" }];
for (const options of INVALID) {
  test(`${JSON.stringify(options)} is an error`, () => {
    assert.throws(() => setUp(options), TypeError);
  });
}
