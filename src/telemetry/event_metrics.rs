//! Metrics of events.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::per_worker::Counter;

/// The series exist also if events are off.
pub struct EventMetrics {
    pub(crate) written: Counter,
    pub(crate) dropped: DroppedCounters,
}

/// Dropped events by reason.
pub(crate) struct DroppedCounters {
    pub queue_full: Counter,
    pub write_failed: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl EventMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (written, dropped) = (Counter::default(), Family::<ReasonLabels, Counter>::default());
        registry.register("events_written", "Events written to the sink", written.clone());
        registry.register("events_dropped", "Events lost, by reason", dropped.clone());
        let counter = |reason| dropped.get_or_create_owned(&ReasonLabels { reason });
        Self {
            written,
            dropped: DroppedCounters { queue_full: counter("queue_full"), write_failed: counter("write_failed") },
        }
    }
}
