// Adds the grant to the requests of a player library for media and licences. The requests wait until the session has a grant that is
// valid for the current content, so that a player which keeps the rule never sends a request without one.

import { platform } from "./platform.js";

const WAYS = ["query", "header", "cookie"];
// Value of shaka.net.NetworkingEngine.RequestType.LICENSE.
const SHAKA_LICENSE = 2;

/** @type {typeof import("./player.d.ts").mediaGrants} */
export function mediaGrants(session, options) {
  const { origins, send = "query", license = "header", name = "grant", cookie = {} } = options ?? {};
  if (!Array.isArray(origins) || origins.length === 0) throw new TypeError("origins: must be a list of origins");
  for (const [option, value] of [["send", send], ["license", license]]) {
    if (!WAYS.includes(value)) throw new TypeError(`${option}: must be "query", "header" or "cookie"`);
  }
  const allowed = origins.map((origin) => new URL(origin).origin);
  const page = options.page ?? platform;

  /** Whether the request may carry the grant. Other hosts, for example of advertisements, must not receive it. */
  function isAllowed(url) {
    try {
      return allowed.includes(new URL(url, page.location?.href).origin);
    } catch {
      return false;
    }
  }

  function withGrant(url, way, grant) {
    const unchanged = { url, headers: {}, credentials: false };
    if (grant === null || !isAllowed(url)) return unchanged;
    if (way === "query") return { url: withParameter(url, name, grant), headers: {}, credentials: false };
    if (way === "header") return { url, headers: { Authorization: `Bearer ${grant}` }, credentials: false };
    return { url, headers: {}, credentials: true };
  }

  async function request(url, way = send) {
    return withGrant(url, way, isAllowed(url) ? await session.freshGrant() : null);
  }

  async function setUpXhr(xhr, method, url, way) {
    const changed = await request(url, way);
    // hls.js opens the request only if this function has not opened it.
    xhr.open(method, changed.url, true);
    for (const header of Object.keys(changed.headers)) xhr.setRequestHeader(header, changed.headers[header]);
    if (changed.credentials) xhr.withCredentials = true;
  }

  async function shaka(type, sent) {
    const all = await Promise.all(sent.uris.map((url) => request(url, type === SHAKA_LICENSE ? license : send)));
    sent.uris = all.map(({ url }) => url);
    for (const { headers, credentials } of all) {
      Object.assign(sent.headers, headers);
      if (credentials) sent.allowCrossSiteCredentials = true;
    }
  }

  async function dash(sent) {
    const { url, headers, credentials } = await request(sent.url);
    return Object.assign(sent, { url, headers: Object.assign({}, sent.headers, headers) }, credentials && { credentials: "include" });
  }

  async function dashLicense(sent) {
    const { url, headers, credentials } = await request(sent.url, license);
    Object.assign(sent, { url, headers: Object.assign({}, sent.headers, headers) }, credentials && { withCredentials: true });
  }

  // video.js does not wait for a promise.
  function vhs(sent) {
    const { url, headers, credentials } = withGrant(sent.uri, send, session.grant);
    const changed = { uri: url, headers: Object.assign({}, sent.headers, headers) };
    return Object.assign({}, sent, changed, credentials && { withCredentials: true });
  }

  const { domain, path = "/" } = cookie;
  const secure = page.location?.protocol === "https:" ? "; Secure" : "";
  const attributes = `; Path=${path}${domain ? `; Domain=${domain}` : ""}; SameSite=Lax${secure}`;
  function setCookie({ grant, expiresInSeconds }) {
    page.document.cookie = `${name}=${grant}; Max-Age=${Math.ceil(expiresInSeconds)}${attributes}`;
  }
  const removeListeners = [];
  if (send === "cookie" || license === "cookie") {
    if (session.grant) setCookie({ grant: session.grant, expiresInSeconds: session.leaseEndsInSeconds });
    removeListeners.push(
      session.on("grant", setCookie),
      session.on("state", ({ state }) => {
        if (["idle", "denied", "ended"].includes(state)) setCookie({ grant: "", expiresInSeconds: 0 });
      }),
    );
  }

  return {
    request,
    hls: (xhr, url) => setUpXhr(xhr, "GET", url, send),
    hlsLicense: (xhr, url) => setUpXhr(xhr, "POST", url, license),
    shaka,
    dash,
    dashLicense,
    vhs,
    stop() {
      for (const remove of removeListeners) remove();
    },
  };
}

/** Replaces an earlier grant, because some libraries repeat a request with the changed URL. */
function withParameter(url, name, value) {
  const [address, fragment] = splitAt(url, "#");
  const [base, query] = splitAt(address, "?");
  const kept = query.slice(1).split("&").filter((part) => part !== "" && part.split("=")[0] !== name);
  return `${base}?${kept.concat(`${name}=${value}`).join("&")}${fragment}`;
}

function splitAt(text, character) {
  const index = text.indexOf(character);
  return index < 0 ? [text, ""] : [text.slice(0, index), text.slice(index)];
}
