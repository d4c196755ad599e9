//! An SDK interceptor that counts and times every store request, and measures the clock skew against the store. It does
//! not change requests or responses. docs/MONITORING.md, "Metrics", describes the metrics.

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
use tracing::{info, warn};

use super::errors::{OUTCOMES, outcome};
use crate::clock::{Clock, Stopwatch};
use crate::domain::lease::Timestamp;
use crate::telemetry::clock_skew::{ClockSample, SkewEvent};
use crate::telemetry::store_metrics::{StoreMetrics, StoreRequest};

#[derive(Clone)]
pub struct MetricsInterceptor {
    metrics: StoreMetrics,
    clock: Arc<dyn Clock>,
}

/// The names of known operations, for metrics and traces.
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

/// The operations for requests of players and back ends. The others occur only at startup.
const REQUEST_OPERATIONS: [&str; 4] = ["GetItem", "Query", "TransactWriteItems", "UpdateItem"];

impl MetricsInterceptor {
    pub fn new(metrics: StoreMetrics, clock: Arc<dyn Clock>) -> Self {
        metrics.create_series(&REQUEST_OPERATIONS, &OUTCOMES);
        Self { metrics, clock }
    }
}

impl fmt::Debug for MetricsInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsInterceptor").finish_non_exhaustive()
    }
}

/// Measures the whole request, including its retries.
#[derive(Debug)]
struct RequestTimer(Stopwatch);

/// The send time of the attempt, from this host's clock.
#[derive(Debug)]
struct SentAt(Timestamp);

impl Storable for RequestTimer {
    type Storer = StoreReplace<Self>;
}

impl Storable for SentAt {
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
        state.interceptor_state().store_put(RequestTimer(Stopwatch::start()));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        state.interceptor_state().store_put(SentAt(self.clock.now()));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(parse_date);
        if let (Some(SentAt(sent)), Some(date)) = (state.load::<SentAt>(), date) {
            let sample = ClockSample { sent: *sent, received: self.clock.now(), date };
            match self.metrics.clock_skew.observe(sample, self.clock.monotonic()) {
                Some(SkewEvent::Detected(skew_ms)) => warn!(
                    event = "clock_skew_detected",
                    skew_s = skew_ms as f64 / 1000.0,
                    "clock skew against the store (positive: this host is ahead); check NTP"
                ),
                Some(SkewEvent::Resolved) => {
                    info!(event = "clock_skew_resolved", "clock skew is within bounds again");
                }
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
        let response = context.output_or_error();
        let attempts = state.load::<RequestAttempts>().map_or(0, RequestAttempts::attempts);
        self.metrics.record(StoreRequest {
            operation: operation(state),
            outcome: match &response {
                Some(Ok(_)) => "ok",
                Some(Err(error)) => outcome(error.as_operation_error()),
                None => "unknown",
            },
            duration: state.load::<RequestTimer>().map(|RequestTimer(watch)| watch.elapsed()),
            retries: attempts.saturating_sub(1),
            capacity_units: response.and_then(Result::ok).map(capacity_units),
        });
        Ok(())
    }
}

/// The operation of the request with this state, or `other`.
pub(crate) fn operation(state: &ConfigBag) -> &'static str {
    let name = state.load::<Metadata>().map(Metadata::name);
    OPERATIONS.into_iter().find(|known| Some(*known) == name).unwrap_or("other")
}

/// `None` if `text` is not an HTTP date, or is before 1970.
fn parse_date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_epoch_ms(i64::try_from(since.as_millis()).ok()?))
}

/// The consumed capacity, which every request asks DynamoDB to return. 0 if it is missing, as with some emulators.
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
