// Detects that an element leaves its document, also if it is in a shadow tree or if a library replaces it. An element that
// moves within one task, for example into the container of a player library, does not leave.

import { report } from "./emitter.js";

/** `onLeave()` is called once for each time that the element leaves. */
export function watchPresence(element, onLeave) {
  // Elements that were never in a document, for example `new Audio()`, cannot leave it.
  let present = element.isConnected === true;
  let observer;

  const disconnect = () => observer?.disconnect();

  function check() {
    const wasPresent = present;
    // Undefined in a browser without this property.
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
      // Playback must be counted all the same.
      report(error);
    }
  }

  return {
    /** Call this often. An element may enter the document while it plays, and there is no event for this. */
    check,
    /** Observes the document and all shadow trees that contain the element now. */
    observe,
    disconnect,
  };
}
