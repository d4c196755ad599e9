//! Random stream ids and waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::domain::names::StreamId;

pub(super) struct Random(Mutex<StdRng>);

impl Random {
    pub fn new(random: StdRng) -> Self {
        Self(Mutex::new(random))
    }

    pub fn stream_id(&self) -> StreamId {
        let mut bytes = [0; 16];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        StreamId::random(bytes)
    }

    /// A random duration of 1 ms to `max_ms`.
    pub fn jitter(&self, max_ms: u64) -> Duration {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(random.random_range(1..=max_ms))
    }
}
