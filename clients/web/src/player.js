// The package's entry: what an application may import. Works unbuilt, as a module. No behaviour lives here.
export { attach } from "./attach.js";
export { createSession } from "./session.js";
