// What a player sends about itself: device name, content, labels, and the policy of its start. These options may be
// functions.

// The service cuts these texts to 256 bytes. A body with longer ones could exceed its maximum of 16 KiB.
const MAX_TEXT_LENGTH = 1000;
const MAX_REPLACES = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** `onFailure(code, error)` is called when an option cannot be read, but not again until it succeeds. */
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
    /** Fields that are undefined are not sent. */
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
 * Keeps at most 10 ids. Ignores values that are no ids, because the service would reject the start, and because an application
 * may pass an id that it does not have.
 */
function idsOf(value) {
  const ids = (Array.isArray(value) ? value : [value]).filter((id) => typeof id === "string" && UUID.test(id));
  return ids.length > 0 ? ids.slice(0, MAX_REPLACES) : undefined;
}

function text(value) {
  if (value == null || value === "") return undefined;
  // Do not leave half of a surrogate pair at the end.
  return String(value).slice(0, MAX_TEXT_LENGTH).replace(/[\ud800-\udbff]$/, "");
}
