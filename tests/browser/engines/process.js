// Starts a program that a test needs.

import { spawn } from "node:child_process";
import { once } from "node:events";

/** `check()` throws an error with the program's output if the program has exited. `stop()` ends the program. */
export function start(command, parameters, env = {}) {
  const child = spawn(command, parameters, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let exited = false;
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
  child.on("error", (error) => ((exited = true), (output += error)));
  child.on("exit", () => (exited = true));
  // If a test fails before it stops the program, Node.js must not wait for the program, and must end it at exit.
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
