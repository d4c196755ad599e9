// Labels of a playback, and their changes. A change of labels is a start that replaces the current stream. If the service denies it,
// the current stream continues with its former labels.

import { randomUuid } from "./uuid.js";

/** Compares labels. The option returns them with sorted names. */
const textOf = (labels) => JSON.stringify(labels ?? {});

/** `description` reads the options of the playback. */
export function createLabels(description) {
  /** Labels of the latest lease. */
  let current;
  /** Labels that the service refused, as text. They are not requested again until the option has returned other labels. */
  let refused;
  /**
   * The change whose outcome is unknown. `replacement` is the response to a heartbeat that reported that the stream was replaced,
   * perhaps by this change.
   * @type {any}
   */
  let change = null;

  /** Labels to use now: those of the option, unless they were refused. */
  function wanted() {
    const labels = description.labels();
    if (refused !== undefined && textOf(labels) === refused) return current;
    refused = undefined;
    return labels;
  }

  return {
    wanted,
    /** Call this when a start is sent. A pending change then has no effect, because the stream that it changes was lost. */
    started(labels) {
      current = labels;
      change = null;
    },
    change: () => change,
    /**
     * The change to send now, if any. When the lease must be renewed, only the first attempt is sent. Later ones wait for a heartbeat,
     * because an overloaded service rejects starts before heartbeats.
     */
    changeToSend(isRenewalDue) {
      if (!change || (change.isSent && isRenewalDue && !change.replacement)) return null;
      change.isSent = true;
      return change;
    },
    /** Call this when a heartbeat reports that the stream was replaced. Returns whether a pending change may be the reason. */
    mayHaveReplaced(replacement) {
      if (change) change.replacement = replacement;
      return change !== null;
    },
    isChangeDue: () => textOf(wanted()) !== textOf(current),
    /** Begins a change if one is due. Returns whether one has begun. */
    beginChange({ deviceId, streamId }) {
      const labels = wanted();
      if (change || textOf(labels) === textOf(current)) return false;
      const fields = description.startBody(deviceId, [streamId], labels);
      // A change of the quality must never evict another stream, because the viewer of that stream would see its playback end.
      const body = JSON.stringify(Object.assign(fields, { atLimit: "reject" }));
      change = { labels, contentId: fields.contentId, key: randomUuid(), body };
      return true;
    },
    /**
     * Ends the pending change after its response, and returns the event to emit. `denial` has the fields of a denial, and `update()` is
     * the session's method.
     */
    settle(p, outcome, denial, update) {
      const { labels, contentId } = change;
      change = null;
      if (outcome.kind === "ok") {
        const previousStreamId = p.streamId;
        current = labels;
        p.replaced(contentId);
        p.leaseGranted(outcome);
        return ["relabeled", { streamId: p.streamId, stream: outcome.stream, previousStreamId, labels }];
      }
      refused = textOf(labels);
      p.changeRefused();
      const { status, code, detail, requestId } = outcome;
      if (outcome.kind !== "denied") return ["error", { status, code, detail, requestId }];
      const retry = () => {
        refused = undefined;
        update();
      };
      return ["labelsDenied", Object.assign({}, denial, { labels, currentLabels: current, retry })];
    },
  };
}
