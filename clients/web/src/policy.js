// Decides when a playback without a lease must end (`onUnavailable`, `onRefused`).

/** Whether the service rejected the request, as opposed to sending no valid response. */
function isRefused({ kind }) {
  return kind === "error" || kind === "unauthorized";
}

export function createPolicy({ clock, onUnavailable, onRefused }) {
  function stopsWithoutLease(failure) {
    const policy = isRefused(failure) ? (onRefused ?? (failure.kind === "unauthorized" ? "stop" : "continue")) : onUnavailable;
    return policy === "stop";
  }

  return {
    /**
     * Time when a timer ends the playback. Infinity if no request has failed since the last success, or if the policy is "continue".
     * Also Infinity if the latest request was sent at or after `endsMs`, because the playback then ends only if this request fails.
     */
    deadlineMs(p) {
      return p.failure && stopsWithoutLease(p.failure) && !p.sentAfterEnd() ? p.endsMs : Infinity;
    },
    mustEnd(p) {
      return p.failure !== null && clock.now() >= p.endsMs && stopsWithoutLease(p.failure) && !p.sleptPastEnd();
    },
    /** The fields of the `ended` event. */
    endFields(failure) {
      const { status, code, detail } = failure;
      return { reason: isRefused(failure) ? "refused" : "unavailable", endedBy: undefined, status, code, detail };
    },
  };
}
