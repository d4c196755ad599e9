// Limits the time that players may play without a lease. All playbacks of a user in a page share this time until one of them
// gets a lease. Otherwise a page that creates a new player for each content could always play without a lease.

// Used until the lease duration of the service is known.
const DEFAULT_LEASE_MS = 90_000;

// Keyed by page and user.
const graceOfPages = new WeakMap();

/** If there is no page, only the playbacks of one session share the time without a lease. */
export function graceOf({ page, streamsUrl, unansweredStartMs }) {
  const used = usedTime(page, streamsUrl);
  const fullMs = () => unansweredStartMs ?? used.leaseMs;

  return {
    fullMs,
    leftMs: () => Math.max(fullMs() - used.ms, 0),
    /** Call this when a playback closes without a valid lease. `leftMs` is the remaining time without a lease. */
    setLeft(leftMs) {
      used.ms = Math.max(used.ms, fullMs() - Math.max(leftMs, 0));
    },
    /** Call this when the service grants a lease of this duration. */
    setLease(leaseMs) {
      used.leaseMs = leaseMs;
      used.ms = 0;
    },
    /** Call this when the service denies or ends a stream. The next playback then has the full time. */
    reset() {
      used.ms = 0;
    },
  };
}

function usedTime(page, streamsUrl) {
  const created = () => ({ ms: 0, leaseMs: DEFAULT_LEASE_MS });
  if (!page) return created();
  if (!graceOfPages.has(page.window)) graceOfPages.set(page.window, new Map());
  const ofUsers = graceOfPages.get(page.window);
  if (!ofUsers.has(streamsUrl)) ofUsers.set(streamsUrl, created());
  return ofUsers.get(streamsUrl);
}
