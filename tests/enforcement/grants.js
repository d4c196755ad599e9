// Keys and grants of the tests. Grants that the service would never issue are signed here.

import { createHash, createHmac, generateKeyPairSync, sign } from "node:crypto";

const ISSUER = "stream-manager";
const AUDIENCE = "media";
export const SECRET = "a secret of the tests that is long enough";

/** A key pair for ES256. `privatePem` is PKCS#8. `kid` is the thumbprint of RFC 7638, as the service uses it. */
export function createKey() {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { crv, kty, x, y } = publicKey.export({ format: "jwk" });
  return {
    privateKey,
    kid: createHash("sha256").update(JSON.stringify({ crv, kty, x, y })).digest("base64url"),
    privatePem: privateKey.export({ type: "pkcs8", format: "pem" }),
    publicPem: publicKey.export({ type: "spki", format: "pem" }),
  };
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export function claimsOf(content, fields = {}) {
  const nowS = Math.floor(Date.now() / 1000);
  const jti = "4b1f3a52-6f0e-4f0b-9d5b-6a3e3f0c9a11";
  return { iss: ISSUER, aud: AUDIENCE, sub: "ann", jti, iat: nowS - 10, exp: nowS + 60, content, ...fields };
}

export function signEs256(claims, { privateKey, kid }) {
  const header = { alg: "ES256", typ: "JWT", kid };
  const signed = `${encode(header)}.${encode(claims)}`;
  return `${signed}.${sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
}

export function signHs256(claims, secret = SECRET, header = { alg: "HS256", typ: "JWT" }) {
  const signed = `${encode(header)}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Changes the last claims of a grant without a new signature. */
function tamper(grant, fields) {
  const [header, claims, signature] = grant.split(".");
  const changed = { ...JSON.parse(Buffer.from(claims, "base64url")), ...fields };
  return [header, encode(changed), signature].join(".");
}

const unsigned = (claims, kid) => `${encode({ alg: "none", typ: "JWT", kid })}.${encode(claims)}.`;

/**
 * Returns grants that must be refused, by their description. `valid(claims)` signs claims correctly, and `forged(claims)` with another
 * key. `confused` is a grant with another algorithm. `kid` is the id of the right key.
 */
export function refusedGrants({ valid, forged, confused, kid, content }) {
  const claims = claimsOf(content);
  const nowS = Math.floor(Date.now() / 1000);
  const grant = valid(claims);
  const withoutExpiry = { ...claims };
  delete withoutExpiry.exp;
  return {
    "for other content": valid(claimsOf("other")),
    "without content": valid(claimsOf(undefined)),
    "that has expired": valid(claimsOf(content, { exp: nowS - 1 })),
    "that expires now": valid(claimsOf(content, { exp: nowS })),
    "without expiry": valid(withoutExpiry),
    "of another issuer": valid(claimsOf(content, { iss: "https://other.example" })),
    "for another audience": valid(claimsOf(content, { aud: "other" })),
    "signed with another key": forged(claims),
    "with another algorithm": confused,
    "without algorithm": unsigned(claims, kid),
    "with changed claims": tamper(valid(claimsOf("other")), { content }),
    "without signature": grant.replace(/[^.]*$/, ""),
    "with half a signature": grant.slice(0, -40),
    "that is no token": "grant",
    "with four parts": `${grant}.x`,
  };
}
