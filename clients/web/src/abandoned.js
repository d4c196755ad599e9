// Pending outcomes of starts that were abandoned before their response, keyed by user and device. A new start of the same device waits
// for the pending outcome. Otherwise both starts would run at the same time, and the service would keep the stream that it commits
// last, which may be the stream of the older start.

const outcomes = new Map();

export function abandonStart(key, outcome) {
  outcomes.set(key, outcome);
  void outcome.then(() => outcomes.get(key) === outcome && outcomes.delete(key));
}

/** The pending outcome, if any. It resolves at the latest when the abandoned start times out. */
export const abandonedStart = (key) => outcomes.get(key);
