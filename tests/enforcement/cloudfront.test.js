// Tests the CloudFront Function under Node.js, with stand-ins for the modules `cloudfront` and `crypto` that have only the documented
// methods, and in njs. Also checks the limits of CloudFront Functions: size, syntax and globals.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import crypto from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import vm from "node:vm";
import { ambiguousPaths } from "./paths.js";
import { claimsOf, createKey, refusedGrants, SECRET, signEs256, signHs256 } from "./grants.js";

const { parse } = createRequire(new URL("../../target/enforcement/", import.meta.url))("acorn");
const SOURCE = await readFile(new URL("../../deploy/enforcement/cloudfront/check-grant.js", import.meta.url), "utf8");
const MAX_SIZE = 10 * 1024;
const PAGE = "https://www.example.com";
const SEGMENT = "/media/movie/1.m4s";
const GRANT = signHs256(claimsOf("movie"));

// Syntax that JavaScript runtime 2.0 documents: ES 5.1, `const`, `let`, `async`, `await`, arrow functions, template literals and `**`.
const SYNTAX = new Set(
  `Program ImportDeclaration ImportDefaultSpecifier VariableDeclaration VariableDeclarator FunctionDeclaration FunctionExpression
  ArrowFunctionExpression BlockStatement ReturnStatement IfStatement ForStatement ForInStatement WhileStatement DoWhileStatement
  BreakStatement ContinueStatement SwitchStatement SwitchCase ThrowStatement TryStatement CatchClause ExpressionStatement EmptyStatement
  LabeledStatement AssignmentExpression BinaryExpression LogicalExpression UnaryExpression UpdateExpression ConditionalExpression
  CallExpression NewExpression MemberExpression AwaitExpression ThisExpression SequenceExpression ArrayExpression ObjectExpression
  Property Identifier Literal TemplateLiteral TemplateElement`.split(/\s+/),
);
// Globals that the function uses. All of them are documented for JavaScript runtime 2.0.
const GLOBALS = { Buffer, Date, JSON, Array, decodeURIComponent, console: { log: () => {} } };

/** The documented part of the modules. */
function modulesWith(stored) {
  const kvs = { get: async (key, { format } = {}) => {
    if (!(key in stored)) throw new Error(`${key} does not exist`);
    return format === "json" ? JSON.parse(stored[key]) : stored[key];
  } };
  const createHmac = (algorithm, key) => {
    const hmac = crypto.createHmac(algorithm, key);
    const wrapper = { update: (data) => (hmac.update(data), wrapper), digest: (encoding) => hmac.digest(encoding) };
    return wrapper;
  };
  return { cloudfront: { kvs: () => kvs }, crypto: { createHmac } };
}

async function load(stored = { secrets: JSON.stringify([SECRET]) }) {
  // Only these globals exist in the context, apart from the built-in objects of the language.
  const context = vm.createContext({ ...GLOBALS });
  const modules = modulesWith(stored);
  const body = SOURCE.replace(/^import (\w+) from "(\w+)";$/gm, "const $1 = modules.$2;");
  return vm.runInContext(`(function (modules) { "use strict"; ${body}; return handler; })`, context)(modules);
}

function requestOf({ uri = SEGMENT, query = {}, cookies = {}, headers = {}, method = "GET" } = {}) {
  const wrap = (values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { value }]));
  return { method, uri, querystring: wrap(query), cookies: wrap(cookies), headers: wrap(headers) };
}

async function run(fields, stored) {
  const handler = await load(stored);
  return handler({ version: "1.0", request: requestOf(fields) });
}

const statusOf = async (fields, stored) => (await run(fields, stored)).statusCode ?? 200;

test("the function has at most 10 KB", () => {
  assert.ok(Buffer.byteLength(SOURCE) <= MAX_SIZE, `${Buffer.byteLength(SOURCE)} bytes`);
});

test("the function has only documented syntax", () => {
  const tree = parse(SOURCE, { ecmaVersion: 2019, sourceType: "module", locations: true });
  (function visit(node) {
    if (Array.isArray(node)) return node.forEach(visit);
    if (typeof node?.type !== "string") return;
    assert.ok(SYNTAX.has(node.type), `${node.type} in line ${node.loc.start.line}`);
    // `catch` without a binding is ES 2019. Shorthand properties are ES 6.
    if (node.type === "CatchClause") assert.ok(node.param, `line ${node.loc.start.line}`);
    if (node.type === "Property") assert.ok(!node.shorthand && !node.computed && !node.method, `line ${node.loc.start.line}`);
    // The documentation excludes `async` arguments and closures.
    if (/Expression$/.test(node.type)) assert.ok(!node.async, `line ${node.loc.start.line}`);
    Object.values(node).forEach(visit);
  })(tree);
});

for (const [name, fields] of [
  ["the query", { query: { grant: GRANT } }],
  ["a cookie", { cookies: { grant: GRANT } }],
  ["Authorization", { headers: { authorization: `Bearer ${GRANT}` } }],
]) {
  test(`a valid grant in ${name} passes and is removed`, async () => {
    const request = await run({ ...fields, headers: { ...fields.headers, range: "bytes=0-1" } });
    assert.equal(request.uri, SEGMENT);
    assert.deepEqual([Object.keys(request.querystring), Object.keys(request.cookies), Object.keys(request.headers)], [[], [], ["range"]]);
  });
}

test("a request without a grant is refused", async () => {
  const response = await run({ headers: { origin: PAGE } });
  assert.equal(response.statusCode, 401);
  assert.equal(response.headers["cache-control"].value, "no-store");
  assert.equal(response.headers["access-control-allow-origin"].value, PAGE);
});

test("other pages cannot read the refusal", async () => {
  const response = await run({ headers: { origin: "https://other.example" } });
  assert.equal(response.headers["access-control-allow-origin"], undefined);
});

const key = createKey();
const refused = refusedGrants({
  content: "movie",
  valid: (claims) => signHs256(claims),
  forged: (claims) => signHs256(claims, "another secret that is long enough too"),
  confused: signEs256(claimsOf("movie"), key),
});
for (const [name, grant] of Object.entries({
  ...refused,
  "with HS512 in its header": signHs256(claimsOf("movie"), SECRET, { alg: "HS512" }),
  "with more than 8192 characters": signHs256(claimsOf("movie", { x: "x".repeat(8192) })),
})) {
  test(`a grant ${name} is refused`, async () => {
    assert.equal(await statusOf({ query: { grant } }), 401);
  });
}

for (const uri of ambiguousPaths("movie", "other")) {
  test(`${uri} is refused`, async () => {
    assert.equal(await statusOf({ uri, query: { grant: GRANT } }), 401);
  });
}

test("encoded content ids are decoded", async () => {
  const grant = signHs256(claimsOf("é b"));
  assert.equal(await statusOf({ uri: "/media/%C3%A9%20b/1.m4s", query: { grant } }), 200);
});

test("a preflight request passes", async () => {
  assert.equal(await statusOf({ method: "OPTIONS" }), 200);
});

test("all listed secrets are accepted", async () => {
  const old = "the former secret that is long enough too";
  const stored = { secrets: JSON.stringify([SECRET, old]) };
  assert.equal(await statusOf({ query: { grant: GRANT } }, stored), 200);
  assert.equal(await statusOf({ query: { grant: signHs256(claimsOf("movie"), old) } }, stored), 200);
});

for (const secrets of [undefined, "[]", "{}", '[""]', '["short"]', "[null]", '"text"', "no JSON"]) {
  test(`with the secrets ${secrets} every grant is refused`, async () => {
    for (const secret of [SECRET, "", "short"]) {
      const grant = signHs256(claimsOf("movie"), secret);
      assert.equal(await statusOf({ query: { grant } }, secrets === undefined ? {} : { secrets }), 401);
    }
  });
}

test("the function runs in njs", async () => {
  const folder = await mkdtemp(join(tmpdir(), "stream-manager-njs-"));
  try {
    await writeFile(join(folder, "cloudfront"), `export default { kvs: () => ({ get: async () => [${JSON.stringify(SECRET)}] }) };`);
    const grants = [GRANT, ...Object.values(refused)];
    const events = grants.map((grant) => ({ request: requestOf({ query: { grant } }) }));
    // The command of Debian's njs crashes if `await` is in a loop.
    const main = `const statuses = []; let pending = 0; const events = ${JSON.stringify(events)};
      events.forEach((event, index) => { pending += 1; handler(event).then((response) => {
        statuses[index] = response.statusCode || 200;
        if ((pending -= 1) === 0) console.log(JSON.stringify(statuses));
      }); });`;
    await writeFile(join(folder, "main.js"), `${SOURCE}\n${main}`);
    const output = execFileSync("njs", ["-p", folder, join(folder, "main.js")], { encoding: "utf8" });
    assert.deepEqual(JSON.parse(output), [200, ...Object.keys(refused).map(() => 401)]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
