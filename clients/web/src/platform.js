/** The global object. Browsers from before 2019 do not have `globalThis`, but all browsers have `self`. */
export const platform = typeof globalThis === "undefined" ? self : globalThis;
