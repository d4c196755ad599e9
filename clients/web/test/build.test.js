// Tests the syntax, the exports and the size of the builds in dist. old-chromium.test.js runs the builds in old browsers. `npm test`
// creates the builds before it runs the tests, because the test files run in parallel.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { gzipSync } from "node:zlib";
import { parse } from "acorn";

const root = new URL("../", import.meta.url);
const read = (name) => readFile(new URL(name, root), "utf8");

for (const [name, ecmaVersion, sourceType] of [
  ["player.js", 2017, "module"],
  ["player.script.js", 2015, "script"],
]) {
  test(`${name} has only syntax of ES${ecmaVersion}`, async () => {
    parse(await read(`dist/${name}`), { ecmaVersion, sourceType });
  });
}

test("the script build sets one global", async () => {
  const context = createContext({ setTimeout, clearTimeout, fetch: async () => ({ status: 409 }) });
  runInContext(await read("dist/player.script.js"), context);
  assert.deepEqual(Object.keys(context).sort(), ["StreamManager", "clearTimeout", "fetch", "setTimeout"]);
  assert.deepEqual(Object.keys(context.StreamManager).sort(), ["attach", "createSession", "mediaGrants"]);
  const session = context.StreamManager.createSession({ baseUrl: "https://streams.test", userName: "ann", deviceId: "tv" });
  assert.equal(await session.start(), "denied");
});

test("the README states the compressed size", async () => {
  const { length } = gzipSync(await read("dist/player.js"));
  const stated = Number(/compressed size of (\d+(?:\.\d)?) KB/.exec(await read("README.md"))[1]);
  assert.ok(length <= stated * 1000 && length > (stated - 0.6) * 1000, `${length} bytes, not ${stated} KB`);
});
