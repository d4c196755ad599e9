// Checks that the sources match the declared types. This file is compiled, but never run.

import { attach } from "../src/attach.js";
import { mediaGrants } from "../src/media-grants.js";
import { createSession } from "../src/session.js";

/** @type {typeof import("../src/player.d.ts")} */
export const declared = { attach, createSession, mediaGrants };
