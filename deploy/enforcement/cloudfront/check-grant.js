// CloudFront Function (viewer request, JavaScript runtime 2.0). Refuses requests for media without a valid grant. The grants must be
// signed with HS256. docs/ENFORCEMENT.md describes the set-up. The key-value store of the function has one key, `secrets`: a JSON list of
// the secrets that are accepted, such as ["new", "old"].

import cf from "cloudfront";
import crypto from "crypto";

// The settings `grants.issuer`, `grants.audience`, `grants.cookie` and `grants.query_parameter` of the service.
const ISSUER = "stream-manager";
const AUDIENCE = "media";
const COOKIE = "grant";
const QUERY_PARAMETER = "grant";
// The content follows this prefix in the path. It is `grants.content_path` of the service up to `{content}`.
const CONTENT_PREFIX = "/media/";
// Origins of the pages that play media from this distribution. They can read the refusals of this function.
const PAGE_ORIGINS = ["https://www.example.com"];

const MAX_GRANT_LENGTH = 8192;
const MAX_SECRETS = 4;
const kvs = cf.kvs();

async function handler(event) {
  const request = event.request;
  // A preflight request never contains a grant. Its response contains no media.
  if (request.method === "OPTIONS") return request;
  const grant = findGrant(request);
  const refusal = grant ? await refusalOf(grant, request.uri) : "no grant";
  if (refusal) return unauthorized(request, refusal);
  // Neither the cache key nor the origin needs the grant.
  delete request.querystring[QUERY_PARAMETER];
  delete request.cookies[COOKIE];
  delete request.headers.authorization;
  return request;
}

function findGrant(request) {
  const parameter = request.querystring[QUERY_PARAMETER];
  if (parameter && parameter.value) return parameter.value;
  const cookie = request.cookies[COOKIE];
  if (cookie && cookie.value) return cookie.value;
  const authorization = request.headers.authorization;
  const bearer = authorization ? /^bearer +([^ ]+) *$/i.exec(authorization.value) : null;
  return bearer ? bearer[1] : "";
}

/** Returns an empty string if the grant is valid for this path. */
async function refusalOf(grant, path) {
  const parts = grant.length <= MAX_GRANT_LENGTH ? grant.split(".") : [];
  if (parts.length !== 3) return "malformed grant";
  let secrets;
  try {
    secrets = await kvs.get("secrets", { format: "json" });
  } catch (error) {
    console.log("the key-value store has no list of secrets: " + error);
    return "no secrets";
  }
  if (!Array.isArray(secrets) || !isSigned(parts, secrets)) return "invalid signature";
  let claims;
  try {
    claims = JSON.parse(Buffer.from(parts[1], "base64url").toString("utf8"));
  } catch (error) {
    return "malformed claims";
  }
  if (claims.iss !== ISSUER || claims.aud !== AUDIENCE) return "other issuer or audience";
  if (typeof claims.exp !== "number" || claims.exp * 1000 <= Date.now()) return "expired";
  const content = contentOf(path);
  return content !== "" && content === claims.content ? "" : "other content";
}

/** The algorithm is always HS256, whatever the header of the grant names. */
function isSigned(parts, secrets) {
  const signed = parts[0] + "." + parts[1];
  let isValid = false;
  for (let i = 0; i < secrets.length && i < MAX_SECRETS; i++) {
    const secret = secrets[i];
    // A short secret could be guessed from a grant.
    if (typeof secret !== "string" || Buffer.from(secret).length < 32) continue;
    if (isEqual(crypto.createHmac("sha256", secret).update(signed).digest("base64url"), parts[2])) isValid = true;
  }
  return isValid && usesHs256(parts[0]);
}

function usesHs256(header) {
  try {
    return JSON.parse(Buffer.from(header, "base64url").toString("utf8")).alg === "HS256";
  } catch (error) {
    return false;
  }
}

/** Takes the same time for all values of one length. */
function isEqual(a, b) {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return difference === 0;
}

/**
 * Returns an empty string if the path is not below the prefix, or if CloudFront and the origin could read it differently: dot segments,
 * empty segments, and encoded or reversed slashes.
 */
function contentOf(path) {
  if (path.indexOf(CONTENT_PREFIX) !== 0) return "";
  const segments = path.slice(1).split("/");
  for (let i = 0; i < segments.length; i++) {
    const decoded = decodedSegment(segments[i]);
    const name = decoded.split(";")[0];
    const isLast = i === segments.length - 1;
    if (name === "." || name === ".." || (name === "" && !isLast) || /[\u0000-\u001f%\\\/?#\u007f]/.test(decoded)) return "";
  }
  const rest = path.slice(CONTENT_PREFIX.length);
  return rest.indexOf("/") > 0 ? decodedSegment(rest.slice(0, rest.indexOf("/"))) : "";
}

/** Returns a text that no path may contain if the escapes are invalid. */
function decodedSegment(segment) {
  try {
    return decodeURIComponent(segment);
  } catch (error) {
    return "%";
  }
}

function unauthorized(request, refusal) {
  const headers = {
    "cache-control": { value: "no-store" },
    "www-authenticate": { value: "Bearer" },
    vary: { value: "Origin" },
  };
  const origin = request.headers.origin ? request.headers.origin.value : "";
  // Without these headers, a page cannot read the status.
  if (PAGE_ORIGINS.indexOf(origin) >= 0) {
    headers["access-control-allow-origin"] = { value: origin };
    headers["access-control-allow-credentials"] = { value: "true" };
  }
  return { statusCode: 401, statusDescription: "Unauthorized", headers: headers, body: { encoding: "text", data: refusal } };
}
