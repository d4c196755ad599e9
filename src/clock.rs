//! Time: the only file that reads a clock. Everything below the limiter gets `now` as a parameter.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::lease::Timestamp;

pub trait Clock: Send + Sync {
    /// By the calendar; may jump either way when somebody sets it.
    fn now(&self) -> Timestamp;

    /// Since some moment in the past; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

/// Measures how long something took; never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the host's clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_epoch_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
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
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the host's clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// When this much time will have passed.
    pub fn at(&self, passed: Duration) -> Instant {
        self.0 + passed
    }
}
