// Detects that an element leaves its document, also if it is in a shadow tree or if a library replaces it. An element that
// moves within one task, for example into the container of a player library, does not leave.

/** `onLeave()` is called once for each time that the element leaves. */
export function watchPresence(element, onLeave) {
  // Elements that were never in a document, for example `new Audio()`, cannot leave it.
  let present = element.isConnected === true;
  let observer;

  function check() {
    const wasPresent = present;
    // Undefined in a browser without this property.
    present = element.isConnected === true;
    if (wasPresent && !present) onLeave();
  }

  /** Observes the document and all shadow trees that contain the element. */
  function observe() {
    const Observer = element.ownerDocument?.defaultView?.MutationObserver;
    check();
    if (!Observer || !present || !element.getRootNode) return;
    observer ??= new Observer(check);
    for (let root = element.getRootNode(); root; root = root.host?.getRootNode()) {
      observer.observe(root, { childList: true, subtree: true });
    }
  }

  return { check, observe, disconnect: () => observer?.disconnect() };
}
