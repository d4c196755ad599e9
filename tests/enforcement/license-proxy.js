// A licence proxy for Clear Key. It asks the service about the grant of each licence request, as docs/ENFORCEMENT.md describes.

import { KEY, KEY_ID } from "./encrypted.js";

const base64url = (bytes) => bytes.toString("base64url");

/** `content` is the content of the key. `requests` records the grants and the statuses of the responses. */
export function createLicenseProxy({ service, content }) {
  const requests = [];

  async function handle(request, response) {
    const { authorization } = request.headers;
    const url = `${service}/v1/grants/check?content=${content}&live=true`;
    const checked = await fetch(url, { headers: authorization ? { Authorization: authorization } : {} });
    const status = checked.status === 204 ? 200 : checked.status;
    requests.push({ authorization, status });
    response.writeHead(status, { "Content-Type": "application/json" });
    const keys = [{ kty: "oct", kid: base64url(KEY_ID), k: base64url(KEY) }];
    response.end(status === 200 ? JSON.stringify({ keys, type: "temporary" }) : "");
  }

  return { handle, requests };
}
