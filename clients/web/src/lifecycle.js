// Listeners for page lifecycle events. These events show that the page may have slept or been offline. A throttled timer
// would show this much later.

/** Calls `wake()` at each of these events. The returned function removes the listeners. Does nothing without a page. */
export function onPageWake(page, wake) {
  if (!page) return () => {};
  const { window, document } = page;
  return addListeners([
    [window, "online", wake],
    [window, "pageshow", wake],
    [document, "resume", wake],
    [document, "visibilitychange", () => document.visibilityState !== "hidden" && wake()],
  ]);
}

/** Adds each `[target, type, listener]`. The returned function removes them all. */
export function addListeners(listeners) {
  for (const [target, type, listener] of listeners) target.addEventListener(type, listener);
  return () => {
    for (const [target, type, listener] of listeners) target.removeEventListener(type, listener);
  };
}
