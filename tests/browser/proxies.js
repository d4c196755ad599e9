// Starts gateways in front of the service and the page server, so that both have the same origin.

import { connect } from "node:net";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start } from "./engines/process.js";
import { eventually, freePort } from "./service.js";

const hostOf = (url) => new URL(url).host;

const COMMANDS = {
  nginx: (file) => ["nginx", ["-e", "stderr", "-c", file]],
  haproxy: (file) => ["haproxy", ["-f", file]],
};

const SETTINGS = {
  nginx: ({ folder, port, service, pages }) => `
    daemon off;
    master_process off;
    pid ${folder}/pid;
    events {}
    http {
      access_log off;
      client_body_temp_path ${folder}/body;
      proxy_temp_path ${folder}/proxy;
      fastcgi_temp_path ${folder}/fastcgi;
      uwsgi_temp_path ${folder}/uwsgi;
      scgi_temp_path ${folder}/scgi;
      server {
        listen 127.0.0.1:${port};
        location /v1/ { proxy_pass ${service}; }
        location / { proxy_pass ${pages}; }
      }
    }
  `,
  haproxy: ({ port, service, pages }) => `
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend players
  bind 127.0.0.1:${port}
  use_backend service if { path_beg /v1/ }
  default_backend pages
backend service
  server service ${hostOf(service)}
backend pages
  server pages ${hostOf(pages)}
`,
};

/** Starts "nginx" or "haproxy" with its default settings. */
export async function startProxy(name, { service, pages }) {
  const folder = await mkdtemp(join(tmpdir(), `stream-manager-${name}-`));
  const port = await freePort();
  const file = join(folder, "settings");
  await writeFile(file, SETTINGS[name]({ folder, port, service: service.url, pages: pages.url }));
  const proxy = start(...COMMANDS[name](file));
  await eventually(`${name} listens`, () => {
    proxy.check();
    return new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(socket.destroy() && true)).on("error", () => resolve(false));
    });
  });

  async function stop() {
    await proxy.stop();
    await rm(folder, { recursive: true, force: true });
  }

  return { url: `http://127.0.0.1:${port}`, stop };
}
