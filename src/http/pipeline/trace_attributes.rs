//! What a request's span tells a collector beyond the log's fields: OpenTelemetry's attributes for HTTP, and the caller's
//! trace. Set from outside the span's fields, so that they stand in no line of the log. Nothing when traces are off.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use poem::http::{HeaderMap, Method, StatusCode};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// `operation` names the span; `template` gives the path as the OpenAPI document has it. Returns whether the span is traced.
pub fn begin(
    span: &Span,
    operation: &'static str,
    template: Option<&'static str>,
    method: &Method,
    headers: &HeaderMap,
) -> bool {
    if span.is_disabled() {
        return false;
    }
    let parent = if headers.contains_key(TRACEPARENT) { caller(headers) } else { Context::new() };
    // Before the span is entered: then it has a trace already. Fails when nobody exports it.
    if span.set_parent(parent).is_err() {
        return false;
    }
    // Anybody can make up a method.
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];
    let method = if known.contains(method) { method.as_str().to_owned() } else { "_OTHER".to_owned() };
    span.set_attribute("http.request.method", method);
    if let Some(template) = template {
        span.set_attribute("http.route", template);
    }
    span.context().span().update_name(operation);
    true
}

/// Of a span that is traced.
pub fn end(span: &Span, status: StatusCode) {
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_attribute("error.type", status.as_str().to_owned());
        span.set_status(Status::error(""));
    }
}

fn caller(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

struct Headers<'a>(&'a HeaderMap);

/// `traceparent` alone: `tracestate` is a free text of the caller's, which would be sent on.
impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = (key == TRACEPARENT).then(|| self.0.get(key)).flatten()?;
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}
