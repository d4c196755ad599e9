//! Clocks that are wrong: off by a constant, and running a little too fast or too slow, on tokio's virtual time.

use std::time::Duration;

use stream_manager::clock::Clock;
use stream_manager::domain::lease::Timestamp;
use tokio::time::Instant;

/// When every run begins, by a clock that is right: traces show its last digits.
const EPOCH_MS: i64 = 1_800_000_100_000;

/// Before every lease's expiry, so that a read shows all that nobody ended.
pub const BEGINNING: Timestamp = Timestamp::from_epoch_ms(0);

#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    pub started: Instant,
    pub offset_ms: i64,
    pub drift_ppm: i64,
}

impl SkewedClock {
    pub fn right(started: Instant) -> Self {
        Self { started, offset_ms: 0, drift_ppm: 0 }
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.started.elapsed().as_millis() as i64;
        Timestamp::from_epoch_ms(EPOCH_MS + elapsed + self.offset_ms + elapsed * self.drift_ppm / 1_000_000)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}
