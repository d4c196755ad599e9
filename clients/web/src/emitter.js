// An event emitter that does not need EventTarget, which television browsers and React Native lack. An exception in a
// listener is reported and never reaches the caller of `emit`.

import { platform } from "./platform.js";

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
    const event = Object.assign({}, fields, { type });
    // Iterate over a copy, so that a listener added during this event receives only later events.
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

// `reportError` fires the page's `error` event. Platforms without it log the error, because an uncaught exception would end a
// Node.js process.
export function report(error) {
  if (typeof platform.reportError === "function") platform.reportError(error);
  else platform.console?.error(error);
}
