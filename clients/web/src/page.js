// Tells a session when the page may have slept or been cut off, so that it need not wait for its timer. Does nothing
// where there is no page, and holds no state.

/** Calls `wake()` until the returned function is called. */
export function watchPage(page, wake) {
  if (!page) return () => {};
  const { window, document } = page;
  const watched = [
    [window, "online", () => wake()],
    [window, "pageshow", () => wake()],
    [document, "resume", () => wake()],
    [document, "visibilitychange", () => document.visibilityState !== "hidden" && wake()],
  ];
  return listenAll(watched);
}

/** Adds each `[target, type, listener]`; the returned function takes them all away. */
export function listenAll(watched) {
  for (const [target, type, listener] of watched) target.addEventListener(type, listener);
  return () => {
    for (const [target, type, listener] of watched) target.removeEventListener(type, listener);
  };
}
