//! Counts and logs the events that are dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    queue_full: AtomicU64,
    write_failed: AtomicU64,
}

impl Losses {
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let throttle = LogThrottle::new(LOG_INTERVAL, 2);
        Self { metrics, clock, throttle, queue_full: AtomicU64::new(0), write_failed: AtomicU64::new(0) }
    }

    /// The sink is slower than the requests, or does not accept data.
    pub fn add_queue_full(&self, events: u64) {
        self.metrics.events.dropped.queue_full.inc_by(events);
        let total = self.queue_full.fetch_add(events, Ordering::Relaxed) + events;
        self.log("queue_full", total, None);
    }

    /// The sink returned an error.
    pub fn add_write_failed(&self, events: u64, error: &io::Error) {
        self.metrics.events.dropped.write_failed.inc_by(events);
        let total = self.write_failed.fetch_add(events, Ordering::Relaxed) + events;
        self.log("write_failed", total, Some(error));
    }

    fn log(&self, reason: &'static str, total: u64, error: Option<&io::Error>) {
        if self.throttle.allow(&reason, self.clock.monotonic()).is_some() {
            warn!(event = "events_dropped", reason, total, error = error.map(field::display), "events dropped");
        }
    }
}
