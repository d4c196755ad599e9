// Starts the service's binary for a test, on a free port and with the given settings, and calls its API.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const BINARY = process.env.SERVICE ?? new URL("../../target/debug/stream-manager", import.meta.url).pathname;
// Long enough even if the machine is ten times slower than usual. Only a test that fails waits this long.
const TIMEOUT_MS = 30_000;

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Waits until `condition()` returns true. The error after a timeout contains the last value that it returned. */
export async function eventually(description, condition, timeoutMs = TIMEOUT_MS) {
  const endMs = Date.now() + timeoutMs;
  let last;
  do {
    last = await condition();
    if (last === true) return;
    await sleep(50);
  } while (Date.now() < endMs);
  throw new Error(`${description}: not within ${timeoutMs} ms; last value ${JSON.stringify(last)}`);
}

/** For tests in which a lease expires. Other tests use a lease of 30 s, which does not expire even on a busy machine. */
export const SHORT_LEASE = { LEASE__DURATION_S: 10 };

/** `settings` are environment variables without the prefix `STREAM_MANAGER__`. */
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
  const readyOrExited = () => fetch(`${url}/health/ready`).then(({ ok }) => ok || child.exitCode !== null, () => child.exitCode !== null);
  await eventually("the service is ready", readyOrExited);
  if (child.exitCode !== null) throw new Error(`${BINARY} exited with ${child.exitCode}: ${output}`);

  async function stop(signal = "SIGTERM") {
    child.kill(signal);
    await exited;
  }

  return { url, port, stop, ...createApi(url) };
}

/** The API calls that tests make directly, without a player. */
function createApi(url) {
  const streamsUrl = (user) => `${url}/v1/users/${encodeURIComponent(user)}/streams`;
  const headers = (token) => (token ? { Authorization: `Bearer ${token}` } : {});

  async function streams(user, token) {
    return (await (await fetch(streamsUrl(user), { headers: headers(token) })).json()).streams;
  }

  return {
    streams,
    count: async (user, token) => (await streams(user, token)).length,
    /** `[status, reason]`: 404 after a stop, 410 after an eviction or expiry. */
    async streamStatus(user, streamId, token) {
      const response = await fetch(`${streamsUrl(user)}/${streamId}`, { headers: headers(token) });
      return [response.status, (await response.json()).reason];
    },
    async start(user, deviceName) {
      const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ deviceName }) };
      const response = await fetch(streamsUrl(user), init);
      return { status: response.status, ...(await response.json()) };
    },
    evict: (user, streamId) => fetch(`${streamsUrl(user)}/${streamId}?evict=true`, { method: "DELETE" }),
  };
}
