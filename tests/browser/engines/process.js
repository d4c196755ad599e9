// Starts a program that a test needs.

import { spawn } from "node:child_process";
import { once } from "node:events";

/** `check()` throws with the program's output if it has exited. `stop()` ends it. */
export function start(command, parameters, env = {}) {
  const child = spawn(command, parameters, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let exited = false;
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
  child.on("error", (error) => ((exited = true), (output += error)));
  child.on("exit", () => (exited = true));
  // A test that fails before it stops the program must neither wait for it nor leave it behind.
  for (const handle of [child, child.stdout, child.stderr]) handle.unref();
  process.once("exit", () => child.kill("SIGKILL"));

  return {
    child,
    check() {
      if (exited) throw new Error(`${command} exited with ${child.exitCode}: ${output}`);
    },
    async stop(signal = "SIGKILL") {
      if (exited) return;
      child.ref();
      child.kill(signal);
      await once(child, "exit");
    },
  };
}
