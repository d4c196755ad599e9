// The newest grant of a session, and the requests that wait for a fresh one. A grant is the service's short-lived proof of a live
// lease. Media servers and licence servers check it.

// A grant becomes part of headers, cookies and URLs, so accept only the characters of a compact JWT.
const COMPACT_JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const MAX_LENGTH = 8192;

/** Returns undefined if the value is not a grant. */
export function readGrant(value) {
  return typeof value === "string" && value.length <= MAX_LENGTH && COMPACT_JWT.test(value) ? value : undefined;
}

/**
 * `wantedContent()` returns the content id that the player plays now. `renew()` sends a heartbeat, unless one was sent just now.
 */
export function createGrantHolder({ clock, timers, requestTimeoutMs }, { wantedContent, renew }) {
  /**
   * The latest lease. `grant` is undefined if the service has never sent one.
   * @type {{ grant: string | undefined, contentId: string | undefined, endsMs: number, wallEndsMs: number } | null}
   */
  let lease = null;
  let playing = false;
  let disposed = false;
  const waiting = new Set();

  function isFresh() {
    if (!lease) return false;
    if (lease.grant === undefined) return true;
    // Use both clocks, because either may stop while the device sleeps.
    if (clock.now() >= lease.endsMs || clock.wall() >= lease.wallEndsMs) return false;
    const wanted = wantedContent();
    return wanted === undefined || wanted === lease.contentId;
  }

  const newest = () => lease?.grant ?? null;

  function settle(waiter) {
    timers.clearTimeout(waiter.timer);
    waiting.delete(waiter);
    waiter.resolve(newest());
  }

  /** A service that is unavailable must not block media. Therefore a request waits only for a limited time during a playback. */
  function limitWait(waiter) {
    timers.clearTimeout(waiter.timer);
    waiter.timer = playing ? timers.setTimeout(() => settle(waiter), requestTimeoutMs) : undefined;
  }

  function setPlaying(isPlaying) {
    playing = isPlaying;
    if (!isPlaying) lease = null;
    waiting.forEach(limitWait);
  }

  return {
    newest,
    /**
     * Resolves with an unexpired grant for the current content. If there is none, waits for the start or the renewal. If the wait
     * exceeds `requestTimeoutS` during playback, resolves with the newest grant. Resolves with null if the service sends no grants.
     */
    fresh() {
      if (disposed || isFresh()) return Promise.resolve(newest());
      return new Promise((resolve) => {
        const waiter = { resolve, timer: undefined };
        waiting.add(waiter);
        limitWait(waiter);
        renew();
      });
    },
    /** Call this when a playback starts. */
    started: () => setPlaying(true),
    /** Call this when a playback ends. Later requests wait for the next playback, because a media server would refuse them. */
    ended: () => setPlaying(false),
    /** Call this after each response to a start or heartbeat. Returns whether the grant is a new one. */
    renewed({ grant, contentId, endsMs }) {
      const previous = newest();
      // If grants are switched off during a playback, keep the last one, and do not wait for another.
      lease = { grant: grant ?? lease?.grant, contentId, endsMs, wallEndsMs: clock.wall() + endsMs - clock.now() };
      return newest() !== previous;
    },
    /** Call this after the listeners of the `grant` event, so that they can set a cookie before the waiting requests continue. */
    deliver() {
      if (isFresh()) waiting.forEach(settle);
    },
    /** Call this when the session can never start again. */
    dispose() {
      disposed = true;
      waiting.forEach(settle);
    },
  };
}
