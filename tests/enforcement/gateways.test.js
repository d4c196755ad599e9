// Tests the media servers with the files in deploy/enforcement: which requests they refuse, and what their responses contain.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually, startService } from "../browser/service.js";
import { claimsOf, createKey, refusedGrants, signEs256, signHs256 } from "./grants.js";
import { PAGE, startGateway } from "./gateways.js";
import { ambiguousPaths } from "./paths.js";

const GATEWAYS = (process.env.GATEWAYS ?? "nginx haproxy caddy").split(" ");
const OWN = "movie 7";
const SEGMENT = "/media/movie%207/1.m4s";
const CONTENT = "a segment";

const key = createKey();
const oldKey = createKey();
let folder;
let settings;
let service;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "stream-manager-media-"));
  for (const content of [OWN, "other"]) {
    await mkdir(join(folder, "media", content), { recursive: true });
    await writeFile(join(folder, "media", content, "1.m4s"), CONTENT);
  }
  const keyFile = join(folder, "key.pem");
  await writeFile(keyFile, key.privatePem);
  settings = { GRANTS__ALGORITHM: "ES256", GRANTS__KEY_FILE: keyFile, GRANTS__CONTENT_PATH: "/media/{content}/" };
  service = await startService(settings);
});

after(async () => {
  await service?.stop();
  await rm(folder, { recursive: true, force: true });
});

const optionsOf = (url = service.url) => ({ media: folder, service: url, keys: [key, oldKey] });

/** Takes a slot and returns the stream with its grant. */
async function start(on = service, contentId = OWN) {
  const url = `${on.url}/v1/users/ann-${process.pid}/streams`;
  const body = JSON.stringify({ deviceId: "tv", contentId });
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  const stream = await response.json();
  return { ...stream, evict: () => fetch(`${url}/${stream.streamId}?evict=true`, { method: "DELETE" }) };
}

for (const name of GATEWAYS) {
  describe(name, () => {
    let gateway;
    before(async () => (gateway = await startGateway(name, optionsOf())));
    after(() => gateway?.stop());

    const withQuery = (grant, path = SEGMENT) => gateway.get(`${path}?grant=${grant}`);

    test("the service's own grant opens its content", async () => {
      const { grant } = await start();
      for (const [path, headers] of [
        [`${SEGMENT}?grant=${grant}`, {}],
        [`${SEGMENT}?a=b&grant=${grant}&c`, {}],
        [SEGMENT, { Cookie: `a=b; grant=${grant}` }],
        [SEGMENT, { Authorization: `Bearer ${grant}` }],
      ]) {
        const { status, body } = await gateway.get(path, { headers });
        assert.deepEqual([status, body.toString()], [200, CONTENT], path);
      }
      assert.equal((await withQuery(grant, "/media/other/1.m4s")).status, 401);
      assert.equal((await withQuery((await start(service, "other")).grant, "/media/other/1.m4s")).status, 200);
    });

    test("a request without a grant is refused", async () => {
      for (const path of [SEGMENT, `${SEGMENT}?grant=`, `${SEGMENT}?other=1`]) assert.equal((await gateway.get(path)).status, 401);
    });

    const refused = refusedGrants({
      content: OWN,
      kid: key.kid,
      valid: (claims) => signEs256(claims, key),
      forged: (claims) => signEs256(claims, { ...createKey(), kid: key.kid }),
      // The public key is no secret. A verifier that takes the algorithm from the grant would use it as the secret of an HMAC.
      confused: signHs256(claimsOf(OWN), key.publicPem, { alg: "HS256", typ: "JWT", kid: key.kid }),
    });

    test("a grant that the test signs is valid", async () => {
      assert.equal((await withQuery(signEs256(claimsOf(OWN), key))).status, 200, "otherwise the tests below would show nothing");
    });

    for (const [description, grant] of Object.entries(refused)) {
      test(`a grant ${description} is refused`, async () => {
        for (const headers of [{ Cookie: `grant=${grant}` }, { Authorization: `Bearer ${grant}` }]) {
          assert.equal((await gateway.get(SEGMENT, { headers })).status, 401);
        }
        assert.equal((await withQuery(grant)).status, 401);
      });
    }

    test("ambiguous paths are refused", async () => {
      const grant = signEs256(claimsOf(OWN), key);
      for (const path of ambiguousPaths("movie%207", "other")) {
        const { status, body } = await withQuery(grant, path);
        // A gateway may refuse a malformed path itself, or have no media outside the folder.
        const refusals = path.startsWith("/media/") ? [400, 401] : [400, 401, 404];
        assert.ok(refusals.includes(status), `${path}: ${status}`);
        assert.notEqual(body.toString(), CONTENT, path);
      }
    });

    test("headers of the client cannot replace the path", async () => {
      const grant = signEs256(claimsOf(OWN), key);
      for (const header of ["X-Original-URI", "X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL"]) {
        const { status } = await gateway.get(`/media/other/1.m4s?grant=${grant}`, { headers: { [header]: SEGMENT } });
        assert.equal(status, 401, header);
      }
    });

    test("the query of the client cannot replace the path", async () => {
      const grant = signEs256(claimsOf(OWN), key);
      for (const query of ["content=movie%207", "content=movie%207&live=false", "live=false"]) {
        assert.equal((await gateway.get(`/media/other/1.m4s?grant=${grant}&${query}`)).status, 401, query);
      }
    });

    test("the page of the player can read every response", async () => {
      const grant = signEs256(claimsOf(OWN), key);
      for (const [path, expected] of [[`${SEGMENT}?grant=${grant}`, 200], [SEGMENT, 401]]) {
        const { status, headers } = await gateway.get(path, { headers: { Origin: PAGE } });
        const cors = [headers["access-control-allow-origin"], headers["access-control-allow-credentials"]];
        assert.deepEqual([status, ...cors], [expected, PAGE, "true"]);
        assert.match(headers.vary, /origin/i);
      }
    });

    test("other pages cannot read responses", async () => {
      const grant = signEs256(claimsOf(OWN), key);
      for (const path of [`${SEGMENT}?grant=${grant}`, SEGMENT]) {
        const { headers } = await gateway.get(path, { headers: { Origin: "https://other.example" } });
        assert.equal(headers["access-control-allow-origin"] ?? "", "");
      }
    });

    test("a preflight request needs no grant", async () => {
      const headers = { Origin: PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization" };
      const response = await gateway.get(SEGMENT, { method: "OPTIONS", headers });
      assert.deepEqual([response.status, response.headers["access-control-allow-origin"]], [204, PAGE]);
      assert.match(response.headers["access-control-allow-headers"], /authorization/i);
    });
  });
}

describe("nginx without stream-manager", { skip: !GATEWAYS.includes("nginx") }, () => {
  for (const [failOpen, expected] of [[false, 500], [true, 200]]) {
    test(`media gets ${expected} ${failOpen ? "with" : "without"} fail-open`, async () => {
      const stopped = await startService(settings);
      const gateway = await startGateway("nginx", { ...optionsOf(stopped.url), failOpen });
      try {
        const { grant } = await start(stopped);
        assert.equal((await gateway.get(SEGMENT)).status, 401);
        await stopped.stop();
        assert.equal((await gateway.get(`${SEGMENT}?grant=${grant}`)).status, expected);
      } finally {
        await gateway.stop();
      }
    });
  }
});

test("nginx with live=true refuses media soon after an eviction", { skip: !GATEWAYS.includes("nginx") }, async () => {
  const gateway = await startGateway("nginx", { ...optionsOf(), live: true });
  try {
    const { grant, evict } = await start();
    const status = async () => (await gateway.get(`${SEGMENT}?grant=${grant}`)).status;
    assert.equal(await status(), 200);
    await evict();
    // The service remembers a live lease for one second.
    await eventually("the media is refused", async () => (await status()) === 401, 3000);
  } finally {
    await gateway.stop();
  }
});

test("nginx does not log grants", { skip: !GATEWAYS.includes("nginx") }, async () => {
  const gateway = await startGateway("nginx", optionsOf());
  try {
    const { grant } = await start();
    await gateway.get(`${SEGMENT}?grant=${grant}`);
    await eventually("the request is logged", async () => /"GET \/media\/movie 7\/1\.m4s" 200/.test(await gateway.readLog()));
    assert.ok(!(await gateway.readLog()).includes(grant));
  } finally {
    await gateway.stop();
  }
});

describe("HAProxy", { skip: !GATEWAYS.includes("haproxy") }, () => {
  let gateway;
  before(async () => (gateway = await startGateway("haproxy", optionsOf())));
  after(() => gateway?.stop());

  test("grants of an earlier key are accepted", async () => {
    const grant = signEs256(claimsOf(OWN), oldKey);
    assert.equal((await gateway.get(`${SEGMENT}?grant=${grant}`)).status, 200);
  });

  test("the origin does not receive the grant", async () => {
    const grant = signEs256(claimsOf(OWN), key);
    await gateway.get(`${SEGMENT}?a=b&grant=${grant}&c=d`, { headers: { Authorization: `Bearer ${grant}` } });
    const { url, headers } = gateway.requests.at(-1);
    assert.deepEqual([url, headers.authorization], [`${SEGMENT}?a=b&c=d`, undefined]);
    for (const [cookie, rest] of [[`a=b; grant=${grant}; c=d`, "a=b; c=d"], [`grant=${grant}; c=d`, "c=d"], [`grant=${grant}`, undefined]]) {
      await gateway.get(SEGMENT, { headers: { Cookie: cookie } });
      assert.equal(gateway.requests.at(-1).headers.cookie, rest);
    }
    for (const [query, rest] of [[`?grant=${grant}`, ""], [`?grant=${grant}&a=b`, "?a=b"], [`?grant=${grant}&grant=x`, ""]]) {
      await gateway.get(SEGMENT + query);
      assert.equal(gateway.requests.at(-1).url, SEGMENT + rest);
    }
  });
});
