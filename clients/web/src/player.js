// The public API of the package. It can be imported without a build.
export { attach } from "./attach.js";
export { mediaGrants } from "./media-grants.js";
export { createSession } from "./session.js";
