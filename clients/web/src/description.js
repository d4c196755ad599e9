// Reads the options that describe a playback: device name, content, labels, streams to replace, and the policy at the limit.
// All of them except the policy may be functions.

// The service cuts these texts to 256 bytes. Cut them here too, because a request body must not exceed 16 KiB.
const MAX_TEXT_LENGTH = 1000;
const MAX_REPLACES = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Calls `onFailure(code, error)` when an option cannot be read. Repeated failures of the same option cause only one call. */
export function createDescription(settings, onFailure) {
  const failing = new Set();

  function read(name, code, convert) {
    const option = settings[name];
    try {
      const value = convert(typeof option === "function" ? option() : option);
      failing.delete(name);
      return value;
    } catch (error) {
      if (!failing.has(name)) onFailure(code, error);
      failing.add(name);
      return undefined;
    }
  }

  const contentId = () => read("contentId", "content-id-failed", text);

  return {
    contentId,
    /** Undefined fields are not sent. */
    startBody: (deviceId, replaces) => ({
      deviceId,
      deviceName: read("deviceName", "device-name-failed", text),
      contentId: contentId(),
      labels: read("labels", "labels-failed", (value) => value ?? undefined),
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

function text(value) {
  if (value == null || value === "") return undefined;
  // The cut may split a surrogate pair. Remove its first half.
  return String(value).slice(0, MAX_TEXT_LENGTH).replace(/[\ud800-\udbff]$/, "");
}
