//! Counts and logs the events that are dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{field, warn};

use crate::clock::Clock;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;

/// At most one line per reason and interval.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The writer and all senders share it.
pub(super) struct Losses {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    throttle: LogThrottle<&'static str>,
}

impl Losses {
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { metrics, clock, throttle: LogThrottle::new(LOG_INTERVAL, 2) }
    }

    /// The sink is slower than the requests, or does not accept data.
    pub fn add_queue_full(&self, events: u64) {
        let dropped = &self.metrics.events.dropped.queue_full;
        dropped.inc_by(events);
        self.log("queue_full", dropped.get(), None);
    }

    /// The sink returned an error.
    pub fn add_write_failed(&self, events: u64, error: &io::Error) {
        let dropped = &self.metrics.events.dropped.write_failed;
        dropped.inc_by(events);
        self.log("write_failed", dropped.get(), Some(error));
    }

    fn log(&self, reason: &'static str, total: u64, error: Option<&io::Error>) {
        if self.throttle.allow(&reason, self.clock.monotonic()).is_some() {
            warn!(event = "events_dropped", reason, total, error = error.map(field::display), "events dropped");
        }
    }
}
