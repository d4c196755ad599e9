// Starts the media servers with the files in deploy/enforcement. Only addresses and file names are replaced.

import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start } from "../browser/engines/process.js";
import { serveHttp } from "../browser/http-server.js";
import { eventually, freePort } from "../browser/service.js";

const CONFIGURATIONS = new URL("../../deploy/enforcement/", import.meta.url);
export const MEDIA_HOST = "media.example.com";
export const PAGE = "https://www.example.com";
// Nothing listens on this port. The gateways must use the other instance.
const CLOSED_PORT = 9;

const hostOf = (url) => new URL(url).host;

/** Replaces each text, which must occur. */
function replaceAll(text, replacements) {
  return replacements.reduce((replaced, [from, to]) => {
    if (!replaced.includes(from)) throw new Error(`the configuration does not contain ${from}`);
    return replaced.replaceAll(from, to);
  }, text);
}

/** A certificate for the media server and the pages, with its key, in one file. */
async function createCertificate(folder) {
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  const names = `subjectAltName=DNS:${MEDIA_HOST},DNS:${new URL(PAGE).host}`;
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  const request = ["req", "-x509", ...curve, "-subj", `/CN=${MEDIA_HOST}`, "-addext", names, "-keyout", key, "-out", certificate];
  execFileSync("openssl", request, { stdio: "ignore" });
  const pem = join(folder, "both.pem");
  await writeFile(pem, (await readFile(certificate, "utf8")) + (await readFile(key, "utf8")));
  return { pem, ca: await readFile(certificate, "utf8") };
}

const nginxPaths = (folder) =>
  ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((path) => `${path}_temp_path ${folder}/${path};`).join("\n");

const nginxMain = (folder, servers) => `
  ${process.getuid() === 0 ? "user root;" : ""}
  daemon off; master_process off; pid ${folder}/pid; error_log stderr; events {}
  http { access_log off; ${nginxPaths(folder)} ${servers} }`;

/** Serves pages and the service at PAGE, next to the media server. */
const pageServer = ({ port, pem, pages, service }) => `
  server {
    listen 127.0.0.1:${port} ssl;
    server_name ${new URL(PAGE).host};
    ssl_certificate ${pem}; ssl_certificate_key ${pem};
    location / { proxy_pass ${pages}; }
    location /v1/ { proxy_pass ${service}; }
  }`;

const GATEWAYS = {
  async nginx({ folder, port, pem, media, service, pages, live, failOpen }) {
    let server = replaceAll(await readFile(new URL("nginx.conf", CONFIGURATIONS), "utf8"), [
      ["listen 443", `listen 127.0.0.1:${port}`],
      ["/etc/ssl/media.example.com.pem", pem],
      ["/var/log/nginx/media.log", join(folder, "access.log")],
      ["root /srv;", `root ${media};`],
      ["stream-manager-1:8080", `127.0.0.1:${CLOSED_PORT}`],
      ["stream-manager-2:8080", hostOf(service)],
    ]);
    if (live) server = replaceAll(server, [["/v1/grants/check;", "/v1/grants/check?live=true;"]]);
    if (failOpen) server = replaceAll(server, [["#fail-open ", ""]]);
    const file = join(folder, "nginx.conf");
    await writeFile(file, nginxMain(folder, server + (pages ? pageServer({ port, pem, pages, service }) : "")));
    return { command: ["nginx", "-e", "stderr", "-c", file], readLog: () => readFile(join(folder, "access.log"), "utf8") };
  },

  async haproxy({ folder, port, pem, media, keys }) {
    const origin = await serveFiles(media);
    const files = await Promise.all(keys.map(async (key, index) => {
      const file = join(folder, `grants-${index}.pem`);
      await writeFile(file, key.publicPem);
      return file;
    }));
    const file = join(folder, "haproxy.cfg");
    await writeFile(file, replaceAll(await readFile(new URL("haproxy.cfg", CONFIGURATIONS), "utf8"), [
      ["bind :443", `bind 127.0.0.1:${port}`],
      ["/etc/ssl/media.example.com.pem", pem],
      ["/etc/haproxy/grants.pem", files[0]],
      ["/etc/haproxy/grants-old.pem", files[1]],
      ["media-1:8080", hostOf(origin.url)],
    ]));
    return { command: ["haproxy", "-f", file], requests: origin.requests, stopOrigin: origin.stop };
  },

  async caddy({ folder, port, pem, media, service }) {
    const file = join(folder, "Caddyfile");
    await writeFile(file, replaceAll(await readFile(new URL("Caddyfile", CONFIGURATIONS), "utf8"), [
      ["admin off", `admin off\n\tauto_https disable_redirects\n\thttps_port ${port}\n\tdefault_bind 127.0.0.1`],
      ["/etc/ssl/media.example.com.pem", pem],
      ["root * /srv", `root * ${media}`],
      ["stream-manager-1:8080", `127.0.0.1:${CLOSED_PORT}`],
      ["stream-manager-2:8080", hostOf(service)],
    ]));
    const environment = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
    return { command: ["caddy", "run", "--config", file, "--adapter", "caddyfile"], environment };
  },
};

/** An origin that records the requests that it receives. */
async function serveFiles(root) {
  const requests = [];
  async function handle(received, response) {
    requests.push({ url: received.url, headers: received.headers });
    const read = async () => readFile(join(root, decodeURIComponent(new URL(received.url, "http://origin").pathname)));
    await read().then((content) => response.end(content), () => response.writeHead(404).end());
  }
  return { ...(await serveHttp(handle)), requests };
}

/**
 * Starts "nginx", "haproxy" or "caddy". `media` is the folder that contains `media/`. `keys` are the keys whose grants HAProxy accepts.
 * `pages` is the URL of a page server that nginx serves at PAGE.
 */
export async function startGateway(name, options) {
  const folder = await mkdtemp(join(tmpdir(), `stream-manager-${name}-`));
  const port = await freePort();
  const { pem, ca } = await createCertificate(folder);
  const { command, environment, stopOrigin, ...rest } = await GATEWAYS[name]({ folder, port, pem, ...options });
  const gateway = start(command[0], command.slice(1), environment);

  async function stop() {
    await gateway.stop();
    await stopOrigin?.();
    await rm(folder, { recursive: true, force: true });
  }

  try {
    await eventually(`${name} listens`, () => {
      gateway.check();
      return new Promise((resolve) => {
        const socket = connect(port, "127.0.0.1", () => resolve(socket.destroy() && true)).on("error", () => resolve(false));
      });
    });
  } catch (error) {
    // Otherwise the origin would keep the test process alive.
    await stop();
    throw error;
  }

  /** Sends the path unchanged. */
  async function get(path, { headers = {}, method = "GET" } = {}) {
    const sent = request({ host: "127.0.0.1", port, servername: MEDIA_HOST, ca, path, method, agent: false,
      headers: { Host: MEDIA_HOST, ...headers } });
    const [response] = await once(sent.end(), "response");
    const chunks = [];
    for await (const chunk of response) chunks.push(chunk);
    return { status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) };
  }

  return { port, get, stop, ...rest };
}
