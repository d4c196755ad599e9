// Holds the declared types to the sources: the compiler reads both and compares. Never run.

import { attach } from "../src/attach.js";
import { createSession } from "../src/session.js";

/** @type {typeof import("../src/player.d.ts")} */
export const agreed = { attach, createSession };
