// Events without a DOM, since televisions and React Native have no EventTarget. Knows nothing of streams, and
// never lets a listener's failure reach whoever emits.

export function createEmitter() {
  const listeners = new Map();

  function off(type, listener) {
    listeners.get(type)?.delete(listener);
  }

  function on(type, listener) {
    if (!listeners.has(type)) listeners.set(type, new Set());
    listeners.get(type).add(listener);
    return () => off(type, listener);
  }

  function emit(type, fields) {
    const event = { ...fields, type };
    // A copy: whoever is added by a listener hears from the next event on.
    for (const listener of [...(listeners.get(type) ?? [])]) {
      try {
        const result = listener(event);
        if (typeof result?.then === "function") result.then(undefined, report);
      } catch (error) {
        report(error);
      }
    }
  }

  return { on, off, emit };
}

// The page's own error handling, where there is one; throwing would end a Node process.
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else globalThis.console?.error(error);
}
