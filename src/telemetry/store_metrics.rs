//! Metrics of the requests to DynamoDB or the embedded engine, and of the clock skew against the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::clock_skew::ClockSkew;
use super::per_worker::{Counter, Histogram};

/// Clones share their values.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    retries: Family<OperationLabels, Counter>,
    capacity: Family<OperationLabels, counter::Counter<f64>>,
    pub clock_skew: Arc<ClockSkew>,
}

/// One request to the store, with all its attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreRequest {
    pub operation: &'static str,
    pub outcome: &'static str,
    pub duration: Option<Duration>,
    /// Attempts after the first.
    pub retries: u32,
    /// `None` if the request failed.
    pub capacity_units: Option<f64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Buckets from the fastest responses of the embedded store up to the default operation timeout.
const BUCKETS_S: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 6.0];

impl StoreMetrics {
    pub(super) fn new() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(&BUCKETS_S)),
            retries: Family::default(),
            capacity: Family::default(),
            clock_skew: Arc::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("store_requests", "Store requests by operation and outcome", self.requests.clone());
        let seconds = self.seconds.clone();
        registry.register("store_request_duration_seconds", "Time of a store request with its retries", seconds);
        registry.register("store_retries", "Attempts of store requests after the first", self.retries.clone());
        let capacity = self.capacity.clone();
        registry.register("store_consumed_capacity_units", "Capacity units that DynamoDB reports", capacity);
        registry.register_collector(Box::new(ClockSkewCollector(Arc::clone(&self.clock_skew))));
    }

    /// Creates the request counters with the value 0. PromQL's `rate()` would miss the first event of a series that starts at 1.
    pub(crate) fn create_series(&self, operations: &[&'static str], outcomes: &[&'static str]) {
        for &operation in operations {
            for &outcome in outcomes {
                drop(self.requests.get_or_create(&RequestLabels { operation, outcome }));
            }
        }
    }

    pub(crate) fn record(&self, request: StoreRequest) {
        let StoreRequest { operation, outcome, duration, retries, capacity_units } = request;
        let labels = OperationLabels { operation };
        self.requests.get_or_create(&RequestLabels { operation, outcome }).inc();
        if let Some(duration) = duration {
            self.seconds.get_or_create(&labels).observe(duration.as_secs_f64());
        }
        self.retries.get_or_create(&labels).inc_by(u64::from(retries));
        if let Some(units) = capacity_units {
            self.capacity.get_or_create(&labels).inc_by(units);
        }
    }
}

/// Exports the clock skew once it is known. Before that, the value 0 would be wrong.
#[derive(Debug)]
struct ClockSkewCollector(Arc<ClockSkew>);

impl Collector for ClockSkewCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(seconds) = self.0.seconds() else { return Ok(()) };
        let seconds_off = self.0.seconds_off().unwrap_or(0.0);
        for (name, help, seconds) in [
            ("store_clock_difference_seconds", "This host's clock minus the store's", seconds),
            ("store_clock_off_seconds", "The same if it is certainly more than a second, else 0", seconds_off),
        ] {
            let gauge = ConstGauge::new(seconds);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
