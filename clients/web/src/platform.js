/** The global object. Browsers before 2019 do not have `globalThis`, but all have `self`. */
export const platform = typeof globalThis === "undefined" ? self : globalThis;
