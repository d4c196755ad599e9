// Reads the options that describe a playback: device name, content, labels, streams to replace, and the policy at the limit.
// All of them except the policy may be functions.

// The service cuts these texts to 256 bytes. Cut them here too, because a request body must not exceed 16 KiB.
const MAX_TEXT_LENGTH = 1000;
const MAX_REPLACES = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Calls `onFailure(code, error)` when an option cannot be read. Repeated failures of the same option cause only one call. */
export function createDescription(settings, onFailure) {
  const failing = new Set();

  function read(name, code, convert, fallback = undefined) {
    const option = settings[name];
    try {
      const value = convert(typeof option === "function" ? option() : option);
      failing.delete(name);
      return value;
    } catch (error) {
      if (!failing.has(name)) onFailure(code, error);
      failing.add(name);
      return fallback;
    }
  }

  const contentId = () => read("contentId", "content-id-failed", text);
  let latestLabels;
  // If the function fails, keep the latest labels. Without labels, the rules of the service would not apply.
  const labels = () => (latestLabels = read("labels", "labels-failed", labelsOf, latestLabels));

  return {
    contentId,
    labels,
    /** Undefined fields are not sent. */
    startBody: (deviceId, replaces, labels) => ({
      deviceId,
      deviceName: read("deviceName", "device-name-failed", text),
      contentId: contentId(),
      labels,
      atLimit: text(settings.atLimit),
      replaces: replaces === undefined ? read("replaces", "replaces-failed", idsOf) : idsOf(replaces),
    }),
  };
}

/**
 * Returns at most 10 ids. Ignores all values that are not valid ids, for example undefined, because the service would reject a
 * start that contains them.
 */
function idsOf(value) {
  const ids = (Array.isArray(value) ? value : [value]).filter((id) => typeof id === "string" && UUID.test(id));
  return ids.length > 0 ? ids.slice(0, MAX_REPLACES) : undefined;
}

/** Returns a copy with sorted names, so that equal labels have equal JSON. Ignores labels without a value. */
function labelsOf(value) {
  if (value == null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) throw new TypeError("labels: must be an object");
  const names = Object.keys(value).filter((name) => value[name] != null && value[name] !== "").sort();
  return names.length > 0 ? names.reduce((all, name) => Object.assign(all, { [name]: String(value[name]) }), {}) : undefined;
}

function text(value) {
  if (value == null || value === "") return undefined;
  // The cut may split a surrogate pair. Remove its first half.
  return String(value).slice(0, MAX_TEXT_LENGTH).replace(/[\ud800-\udbff]$/, "");
}
