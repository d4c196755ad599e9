// Listeners for page lifecycle events. These events show that the page may have slept or been offline. A throttled timer
// would show this much later.

// Each interrupt in Firefox aborts one listener. Closing a tab may cause two interrupts, because Firefox shuts down the tab's process
// and hides the tab at the same moment. Four listeners leave a margin.
const PAGE_HIDE_LISTENERS = 4;

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

/**
 * Returns several listeners that call `hide()` when the page unloads. When a tab is closed, Firefox shuts down the tab's process
 * and aborts the script that runs at this moment. This script is usually the first listener. Later listeners still run, so each
 * call of `hide()` must complete the work of an aborted call.
 */
export function pageHideListeners({ window }, hide) {
  // Create a separate function for each listener, because the browser adds the same function only once.
  return Array.from({ length: PAGE_HIDE_LISTENERS }, () => [window, "pagehide", () => hide()]);
}

/** Adds each `[target, type, listener]`. The returned function removes them all. */
export function addListeners(listeners) {
  for (const [target, type, listener] of listeners) target.addEventListener(type, listener);
  return () => {
    for (const [target, type, listener] of listeners) target.removeEventListener(type, listener);
  };
}
