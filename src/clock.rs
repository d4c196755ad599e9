//! Clocks. Only this file reads the time; the stores and the domain get `now` as a parameter.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::lease::Timestamp;

pub trait Clock: Send + Sync {
    /// The wall-clock time. It can jump forwards and backwards when the host's clock is adjusted.
    fn now(&self) -> Timestamp;

    /// The time since a fixed moment in the past. It never decreases.
    fn monotonic(&self) -> Duration;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock for tests: it changes only when a test advances it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

/// Measures a duration with the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "only this file reads the host's clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_epoch_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        static START: LazyLock<Stopwatch> = LazyLock::new(Stopwatch::start);
        START.elapsed()
    }
}

impl ManualClock {
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.epoch_ms()))
    }

    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_epoch_ms(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now().epoch_ms()).unwrap_or(0))
    }
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "only this file reads the host's clock")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The start time plus `duration`.
    pub(crate) fn at(&self, duration: Duration) -> Instant {
        self.0 + duration
    }
}
