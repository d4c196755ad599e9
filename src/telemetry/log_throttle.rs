//! Limits how often a log line is written for one key, so that one client cannot fill the log.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quick_cache::unsync::Cache;

/// Allows at most one line per key and interval. It tracks a limited number of keys. If it drops a key, the next line for this
/// key is allowed early, and the count of its suppressed lines is lost.
pub(crate) struct LogThrottle<K> {
    interval: Duration,
    keys: Mutex<Cache<K, Window>>,
}

struct Window {
    /// When the last line was allowed.
    allowed_at: Duration,
    /// Lines suppressed since then.
    suppressed: u64,
}

impl<K: Clone + Eq + Hash> LogThrottle<K> {
    pub(crate) fn new(interval: Duration, max_keys: usize) -> Self {
        Self { interval, keys: Mutex::new(Cache::new(max_keys)) }
    }

    /// Returns the number of lines suppressed since the last allowed line, or `None` if this line must be suppressed
    /// too. `now` is the time on a monotonic clock.
    pub(crate) fn allow(&self, key: &K, now: Duration) -> Option<u64> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut window) = keys.get_mut(key) {
            if now.saturating_sub(window.allowed_at) < self.interval {
                window.suppressed += 1;
                return None;
            }
            let suppressed = window.suppressed;
            *window = Window { allowed_at: now, suppressed: 0 };
            return Some(suppressed);
        }
        keys.insert(key.clone(), Window { allowed_at: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_line_per_key_and_interval_is_allowed() {
        let throttle = LogThrottle::new(MINUTE, 10);
        assert_eq!(throttle.allow(&"ann", Duration::ZERO), Some(0));
        assert_eq!(throttle.allow(&"ann", Duration::ZERO), None);
        assert_eq!(throttle.allow(&"bob", Duration::from_secs(1)), Some(0));
        assert_eq!(throttle.allow(&"ann", MINUTE - Duration::from_millis(1)), None);
        assert_eq!(throttle.allow(&"ann", MINUTE), Some(2));
        assert_eq!(throttle.allow(&"ann", MINUTE * 2 - Duration::from_millis(1)), None);
        assert_eq!(throttle.allow(&"ann", MINUTE * 3), Some(1));
        assert_eq!(throttle.allow(&"ann", MINUTE * 5), Some(0));
    }

    #[test]
    fn number_of_tracked_keys_is_bounded() {
        let throttle = LogThrottle::new(MINUTE, 100);
        for key in 0..10_000 {
            assert_eq!(throttle.allow(&key, Duration::ZERO), Some(0));
        }
        assert!(throttle.keys.lock().unwrap().len() <= 100);
    }
}
