// Detects when an element leaves its document, even if it is in a shadow tree or a library replaces it. Moving an element within
// one task, for example into the container of a player library, does not count as leaving.

import { report } from "./emitter.js";

/** Calls `onLeave()` once each time the element leaves. */
export function watchPresence(element, onLeave) {
  // Elements that were never in a document, for example `new Audio()`, cannot leave it.
  let present = element.isConnected === true;
  let observer;

  const disconnect = () => observer?.disconnect();

  function check() {
    const wasPresent = present;
    // In old browsers without `isConnected`, the element never counts as present, so it cannot leave.
    present = element.isConnected === true;
    if (present && !wasPresent) observeRoots();
    if (!wasPresent || present) return;
    disconnect();
    onLeave();
  }

  function observe() {
    check();
    if (present) observeRoots();
  }

  function observeRoots() {
    const Observer = element.ownerDocument?.defaultView?.MutationObserver;
    if (!Observer || !element.getRootNode) return;
    try {
      disconnect();
      observer ??= new Observer(check);
      for (let root = element.getRootNode(); root; root = root.host?.getRootNode()) {
        observer.observe(root, { childList: true, subtree: true });
      }
    } catch (error) {
      // Do not throw, because the player must still take a slot.
      report(error);
    }
  }

  return {
    /** Call this often, because an element may enter the document during playback and no event reports this. */
    check,
    /** Observes the document and all shadow trees that currently contain the element. */
    observe,
    disconnect,
  };
}
