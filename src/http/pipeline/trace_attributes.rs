//! Sets OpenTelemetry's HTTP attributes and the caller's trace context on a request's span. The attributes are not fields
//! of the `tracing` span, so that log lines do not repeat them. No-op if trace export is off.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use poem::http::{HeaderMap, Method, StatusCode};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// Names the span after the route. `template` is the path in the OpenAPI document. Returns whether the span is exported.
pub(crate) fn begin(
    span: &Span,
    route: &'static str,
    template: Option<&str>,
    method: &Method,
    headers: &HeaderMap,
) -> bool {
    if span.is_disabled() {
        return false;
    }
    let parent = if headers.contains_key(TRACEPARENT) { parent_context(headers) } else { Context::new() };
    // Must precede the first `enter`, which assigns the trace id. Fails if no exporter is configured.
    if span.set_parent(parent).is_err() {
        return false;
    }
    // A client can invent methods. Unknown methods share one value, so that the number of values is bounded.
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];
    let method = if known.contains(method) { method.as_str().to_owned() } else { "_OTHER".to_owned() };
    span.set_attribute("http.request.method", method);
    if let Some(template) = template {
        span.set_attribute("http.route", template.to_owned());
    }
    span.context().span().update_name(route);
    true
}

/// Call it only if [`begin`] returned true.
pub(crate) fn end(span: &Span, status: StatusCode) {
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_attribute("error.type", status.as_str().to_owned());
        span.set_status(Status::error(""));
    }
}

fn parent_context(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceparentOnly(headers))
}

/// Hides the `tracestate` header, because it is free text from the caller that the exporter would forward.
struct TraceparentOnly<'a>(&'a HeaderMap);

impl Extractor for TraceparentOnly<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = (key == TRACEPARENT).then(|| self.0.get(key)).flatten()?;
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}
