// What a player sends about itself: device name, content, labels, and the policy of its start. These options may be
// functions.

/** `onFailure(code, error)` is called when the function of an option throws, but not again until it succeeds. */
export function createDescription(settings, onFailure) {
  const failing = new Set();

  function read(name, code) {
    const option = settings[name];
    if (typeof option !== "function") return option;
    try {
      const value = option();
      failing.delete(name);
      return value;
    } catch (error) {
      if (!failing.has(name)) onFailure(code, error);
      failing.add(name);
      return undefined;
    }
  }

  const contentId = () => text(read("contentId", "content-id-failed"));

  return {
    contentId,
    /** Fields that are undefined are not sent. */
    startBody: (deviceId, replaces = read("replaces", "replaces-failed")) => ({
      deviceId,
      deviceName: text(read("deviceName", "device-name-failed")),
      contentId: contentId(),
      labels: read("labels", "labels-failed") ?? undefined,
      atLimit: text(settings.atLimit),
      replaces: idsOf(replaces),
    }),
  };
}

/** Ignores missing ids, so that an application can pass an id that it may not have. */
function idsOf(value) {
  const ids = (Array.isArray(value) ? value : [value]).filter((id) => typeof id === "string" && id !== "");
  return ids.length > 0 ? ids : undefined;
}

function text(value) {
  return value == null || value === "" ? undefined : String(value);
}
