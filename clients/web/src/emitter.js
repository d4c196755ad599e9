// An event emitter without DOM types, because television browsers and React Native lack EventTarget. An exception in
// a listener never reaches the code that emits.

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
    // Iterate over a copy: a listener that is added during this event receives only later events.
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

// Use the page's error handling if there is one. Throwing would end a Node process.
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else globalThis.console?.error(error);
}
