// The service's real binary, as a test wants it: on a port of its own, with the settings it needs, stopped by its process id.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const BINARY = process.env.SERVICE ?? new URL("../../target/debug/stream-manager", import.meta.url).pathname;
const READY_WITHIN_MS = 15_000;

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Until `condition()` is true, or what it returned last is part of the failure. */
export async function until(what, condition, withinMs = 8000) {
  const endMs = Date.now() + withinMs;
  let last;
  do {
    last = await condition();
    if (last === true) return;
    await sleep(50);
  } while (Date.now() < endMs);
  throw new Error(`${what}: not within ${withinMs} ms, but ${JSON.stringify(last)}`);
}

/** For what a lease that runs out does. Else it is so long that a busy machine does not let it run out. */
export const BRIEF = { LEASE__DURATION_S: 3 };

/** `settings` are those of the environment without their prefix, as in `BRIEF`. */
export async function startService({ port, ...settings } = {}) {
  port ??= await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = { PATH: process.env.PATH };
  const all = {
    STORE__KIND: "memory",
    SERVER__BIND: `127.0.0.1:${port}`,
    SERVER__MANAGEMENT_BIND: "127.0.0.1:0",
    SERVER__DEREGISTRATION_S: 0,
    SERVER__DRAIN_S: 0,
    LOG__FILTER: "warn",
    LEASE__DURATION_S: 30,
    LEASE__HEARTBEAT_INTERVAL_S: 1,
    ...settings,
  };
  for (const [name, value] of Object.entries(all)) env[`STREAM_MANAGER__${name}`] = String(value);
  const child = spawn(BINARY, { env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
  const exited = once(child, "exit");
  const ready = () => fetch(`${url}/health/ready`).then(({ ok }) => ok || child.exitCode !== null, () => child.exitCode !== null);
  await until("the service is ready", ready, READY_WITHIN_MS);
  if (child.exitCode !== null) throw new Error(`${BINARY} ended with ${child.exitCode}: ${output}`);

  async function stop(signal = "SIGTERM") {
    child.kill(signal);
    await exited;
  }

  return { url, port, stop, ...callsOf(url) };
}

/** What a test asks of the service beside the page. */
function callsOf(url) {
  const streamsOf = (user) => `${url}/v1/users/${encodeURIComponent(user)}/streams`;
  const headers = (token) => (token ? { Authorization: `Bearer ${token}` } : {});

  async function streams(user, token) {
    return (await (await fetch(streamsOf(user), { headers: headers(token) })).json()).streams;
  }

  return {
    streams,
    count: async (user, token) => (await streams(user, token)).length,
    /** 404 after a stop, 410 after an eviction or when the lease ran out. */
    async fate(user, streamId, token) {
      const response = await fetch(`${streamsOf(user)}/${streamId}`, { headers: headers(token) });
      return [response.status, (await response.json()).reason];
    },
    async start(user, deviceName) {
      const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ deviceName }) };
      const response = await fetch(streamsOf(user), init);
      return { status: response.status, ...(await response.json()) };
    },
    evict: (user, streamId) => fetch(`${streamsOf(user)}/${streamId}?evict=true`, { method: "DELETE" }),
  };
}
