// Page lifecycle events. They show that the page may have slept or been offline, long before a throttled timer would.

/** Calls `wake()` at each such event, until the returned function is called. Without a page it does nothing. */
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
