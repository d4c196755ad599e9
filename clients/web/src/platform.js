/**
 * The global object. Browsers before 2019 do not have `globalThis`.
 * @type {any}
 */
export const platform = globalObject();

function globalObject() {
  if (typeof self !== "undefined") return self;
  // Node has only `global`.
  // @ts-ignore
  return typeof global !== "undefined" ? global : {};
}
