//! Clocks with an offset and a drift, based on tokio's virtual time.

use std::time::Duration;

use stream_manager::clock::Clock;
use stream_manager::domain::lease::Timestamp;
use tokio::time::Instant;

/// The true time at which every run begins. Traces contain only its last digits.
const EPOCH_MS: i64 = 1_800_000_100_000;

/// A time before every expiry. A read at this time also returns expired leases.
pub const BEFORE_ALL: Timestamp = Timestamp::from_epoch_ms(0);

#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    pub started: Instant,
    pub offset_ms: i64,
    pub drift_ppm: i64,
}

impl SkewedClock {
    pub fn correct(started: Instant) -> Self {
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
