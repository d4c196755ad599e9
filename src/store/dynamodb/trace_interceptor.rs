//! An SDK interceptor that records the store requests of a traced request as client spans, according to the semantic
//! conventions for DynamoDB. docs/MONITORING.md, "Traces", lists their attributes. It does not change requests or responses.

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::Error;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use opentelemetry::trace::{SpanBuilder, SpanKind, SpanRef, Status, TraceContextExt};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use url::Url;

use super::errors::{self, CONDITION_FAILED};
use super::metrics_interceptor::operation;
use crate::telemetry::Tracer;

#[derive(Clone)]
pub struct TraceInterceptor {
    tracer: Tracer,
    table: StringValue,
}

impl TraceInterceptor {
    pub fn new(tracer: Tracer, table: String) -> Self {
        Self { tracer, table: Arc::<str>::from(table).into() }
    }
}

impl fmt::Debug for TraceInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceInterceptor").finish_non_exhaustive()
    }
}

/// The span of one store request with its retries. If the request is cancelled, the span ends when it is dropped.
#[derive(Debug)]
struct StoreSpan(Context);

impl Storable for StoreSpan {
    type Storer = StoreReplace<Self>;
}

impl Intercept for TraceInterceptor {
    fn name(&self) -> &'static str {
        "TraceInterceptor"
    }

    /// Starts the span. Does nothing outside of a sampled request, for example at startup.
    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let parent = Context::current();
        if !parent.span().span_context().is_sampled() {
            return Ok(());
        }
        let operation = operation(state);
        let attributes = [
            KeyValue::new("db.system.name", "aws.dynamodb"),
            KeyValue::new("db.operation.name", operation),
            KeyValue::new("db.collection.name", self.table.clone()),
            KeyValue::new("aws.dynamodb.table_names", Value::Array(Array::String(vec![self.table.clone()]))),
            // The conventions require `rpc.system`, although it is deprecated. AWS X-Ray shows `rpc.service` and
            // `rpc.method`.
            KeyValue::new("rpc.system", "aws-api"),
            KeyValue::new("rpc.service", "DynamoDB"),
            KeyValue::new("rpc.method", operation),
        ];
        let span = SpanBuilder::from_name(format!("DynamoDB.{operation}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        state.interceptor_state().store_put(StoreSpan(parent.with_span(span)));
        Ok(())
    }

    /// Records the server during the first attempt only, because all attempts use the same server.
    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_first = state.load::<RequestAttempts>().is_none_or(|attempts| attempts.attempts() == 1);
        if let Some(StoreSpan(trace)) = state.load::<StoreSpan>().filter(|_| is_first)
            && let Ok(endpoint) = Url::parse(context.request().uri())
        {
            record_server(&trace.span(), &endpoint);
        }
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(StoreSpan(trace)) = state.load::<StoreSpan>() else { return Ok(()) };
        let span = trace.span();
        if let Some(id) = context.response().and_then(|response| response.headers().get("x-amzn-requestid")) {
            span.set_attribute(KeyValue::new("aws.request_id", id.to_owned()));
        }
        if let Some(Err(error)) = context.output_or_error() {
            record_failure(&span, error);
        }
        span.end();
        Ok(())
    }
}

/// The embedded store has no server. The host in its URLs ends with `.invalid`.
fn record_server(span: &SpanRef<'_>, endpoint: &Url) {
    if let Some(host) = endpoint.host_str().filter(|host| !host.ends_with(".invalid")) {
        span.set_attribute(KeyValue::new("server.address", host.to_owned()));
        if let Some(port) = endpoint.port() {
            span.set_attribute(KeyValue::new("server.port", i64::from(port)));
        }
    }
}

/// A failed condition is a normal outcome, such as a reached limit or an ended lease, and does not mark the span as failed.
fn record_failure(span: &SpanRef<'_>, error: &OrchestratorError<Error>) {
    let response = error.as_operation_error();
    let code = response.and_then(errors::code).map(str::to_owned);
    if let Some(code) = &code {
        span.set_attribute(KeyValue::new("db.response.status_code", code.clone()));
    }
    if errors::outcome(response) != CONDITION_FAILED {
        let error_type = code.map_or_else(|| StringValue::from(without_code(error)), StringValue::from);
        span.set_attribute(KeyValue::new("error.type", error_type));
        span.set_status(Status::error(""));
    }
}

/// The `error.type` of a failure without an error code of DynamoDB.
fn without_code(error: &OrchestratorError<Error>) -> &'static str {
    match error.as_connector_error() {
        _ if error.is_timeout_error() => "timeout",
        Some(connection) if connection.is_timeout() => "timeout",
        Some(_) => "connection_error",
        None => "_OTHER",
    }
}
