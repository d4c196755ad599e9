//! Watches every request that the SDK sends: counts it, times it, and compares the clocks. It changes no request and
//! no answer. What the numbers mean: docs/MONITORING.md, "Metrics".

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextRef,
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsOutput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemOutput;
use aws_sdk_dynamodb::types::ConsumedCapacity;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::Output;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing::{info, warn};

use super::errors::{OUTCOMES, outcome};
use crate::clock::{Clock, Stopwatch};
use crate::domain::lease::Timestamp;
use crate::telemetry::clock_skew::{ClockSkew, DatedAnswer, SkewEvent};

/// What is counted of the store. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    requests: Family<Request, Counter>,
    seconds: Family<Operation, Histogram>,
    retries: Family<Operation, Counter>,
    capacity: Family<Operation, Counter<f64>>,
    pub clock_skew: Arc<ClockSkew>,
}

/// The SDK's interceptor that does the counting.
pub struct MetricsInterceptor {
    metrics: StoreMetrics,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// From an answer of the embedded engine to the longest operation timeout that is usual.
const BUCKETS_S: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 6.0];

/// The operations that the service uses; a label is one of these texts, or `other`.
const OPERATIONS: [&str; 8] = [
    "CreateTable",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "Query",
    "TransactWriteItems",
    "UpdateItem",
    "UpdateTimeToLive",
];

const OPERATIONS_OF_VERBS: [&str; 4] = ["GetItem", "Query", "TransactWriteItems", "UpdateItem"];

impl StoreMetrics {
    pub fn new() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            retries: Family::default(),
            capacity: Family::default(),
            clock_skew: Arc::default(),
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("store_requests", "Store requests by operation and outcome", self.requests.clone());
        registry.register(
            "store_request_duration_seconds",
            "Time of a store request, its retries included",
            self.seconds.clone(),
        );
        registry.register("store_retries", "Attempts of store requests beyond the first", self.retries.clone());
        registry.register(
            "store_consumed_capacity_units",
            "Capacity units that DynamoDB's answers report",
            self.capacity.clone(),
        );
        registry.register_collector(Box::new(DifferenceCollector(Arc::clone(&self.clock_skew))));
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricsInterceptor {
    /// What can go wrong begins at 0 here, where there is a store: a rate sees the first of its kind only then.
    pub fn new(metrics: StoreMetrics, clock: Arc<dyn Clock>) -> Self {
        for operation in OPERATIONS_OF_VERBS {
            for outcome in OUTCOMES {
                drop(metrics.requests.get_or_create(&Request { operation, outcome }));
            }
        }
        Self { metrics, clock }
    }
}

impl fmt::Debug for MetricsInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsInterceptor").finish_non_exhaustive()
    }
}

/// When the execution began.
#[derive(Debug)]
struct Begun(Stopwatch);

/// When the attempt was sent, by the host's clock.
#[derive(Debug)]
struct Sent(Timestamp);

impl Storable for Begun {
    type Storer = StoreReplace<Self>;
}

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for MetricsInterceptor {
    fn name(&self) -> &'static str {
        "MetricsInterceptor"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        state.interceptor_state().store_put(Begun(Stopwatch::start()));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        state.interceptor_state().store_put(Sent(self.clock.now()));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(date);
        if let (Some(Sent(sent)), Some(date)) = (state.load::<Sent>(), date) {
            let answer = DatedAnswer { sent: *sent, received: self.clock.now(), date };
            match self.metrics.clock_skew.observe(answer, self.clock.monotonic()) {
                Some(SkewEvent::Detected(ms)) => warn!(
                    clock_difference_s = ms as f64 / 1000.0,
                    "this host's clock is off the store's (more than 0 is ahead): set the time (NTP)"
                ),
                Some(SkewEvent::Resolved) => info!("this host's clock agrees with the store's again"),
                None => {}
            }
        }
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let name = state.load::<Metadata>().map(Metadata::name);
        let operation = OPERATIONS.into_iter().find(|known| Some(*known) == name).unwrap_or("other");
        let label = Operation { operation };
        let answer = context.output_or_error();
        let outcome = match &answer {
            Some(Ok(_)) => "ok",
            Some(Err(error)) => outcome(error.as_operation_error()),
            None => "unknown",
        };
        self.metrics.requests.get_or_create(&Request { operation, outcome }).inc();
        if let Some(Begun(watch)) = state.load::<Begun>() {
            self.metrics.seconds.get_or_create(&label).observe(watch.elapsed().as_secs_f64());
        }
        let attempts = state.load::<RequestAttempts>().map_or(0, RequestAttempts::attempts);
        self.metrics.retries.get_or_create(&label).inc_by(u64::from(attempts.saturating_sub(1)));
        if let Some(Ok(output)) = answer {
            self.metrics.capacity.get_or_create(&label).inc_by(capacity_units(output));
        }
        Ok(())
    }
}

/// An HTTP date. None for what is none, and for one before 1970.
fn date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_epoch_ms(i64::try_from(since.as_millis()).ok()?))
}

/// Every verb asks for them; 0 from what does not tell, which an emulator may do.
fn capacity_units(output: &Output) -> f64 {
    let one =
        |capacity: Option<&ConsumedCapacity>| capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0);
    if let Some(output) = output.downcast_ref::<UpdateItemOutput>() {
        one(output.consumed_capacity())
    } else if let Some(output) = output.downcast_ref::<TransactWriteItemsOutput>() {
        output.consumed_capacity().iter().map(|capacity| one(Some(capacity))).sum()
    } else if let Some(output) = output.downcast_ref::<QueryOutput>() {
        one(output.consumed_capacity())
    } else if let Some(output) = output.downcast_ref::<GetItemOutput>() {
        one(output.consumed_capacity())
    } else {
        0.0
    }
}

/// Shows the difference once it is known: a 0 before that would be a claim.
#[derive(Debug)]
struct DifferenceCollector(Arc<ClockSkew>);

impl Collector for DifferenceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(difference) = self.0.seconds() else { return Ok(()) };
        let off = self.0.seconds_off().unwrap_or(0.0);
        for (name, help, seconds) in [
            ("store_clock_difference_seconds", "This host's clock minus the store's", difference),
            ("store_clock_off_seconds", "The same when it is certainly more than a second, else 0", off),
        ] {
            let gauge = ConstGauge::new(seconds);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
