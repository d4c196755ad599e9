//! Per-request context: the ids, the log span, metrics, the trace and common response headers.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::context::FutureExt;
use poem::Response;
use poem::http::request::Parts;
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::{Instrument, Level, Span, debug, debug_span, error, error_span, info_span, warn};
use uuid::Uuid;

use crate::clock::Stopwatch;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::pipeline::request_span::RequestSpan;
use crate::http::pipeline::routes::Route;
use crate::telemetry::Tracer;
use crate::telemetry::metrics::RouteMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum length of a client's request id in the log.
const MAX_CLIENT_REQUEST_ID_BYTES: usize = 128;

pub(crate) struct RequestContext {
    log: LogContext,
    metrics: Option<Arc<RouteMetrics>>,
    watch: Stopwatch,
    cors_headers: Vec<(HeaderName, HeaderValue)>,
    /// Method and path. `None` unless `debug` logging is enabled.
    debug_info: Option<Box<(Method, String)>>,
}

/// Identifies a request in the log and in its trace.
#[derive(Clone)]
pub(crate) struct LogContext {
    request_id: Uuid,
    client_request_id: Option<Arc<str>>,
    route: &'static str,
    /// For log lines only.
    span: Span,
    /// `None` if the request is not traced.
    trace: Option<RequestSpan>,
}

impl RequestContext {
    /// Without a `tracer`, the request is not traced.
    pub(crate) fn new(
        route: &Route,
        request: &Parts,
        cors_headers: Vec<(HeaderName, HeaderValue)>,
        tracer: Option<&Tracer>,
    ) -> Self {
        let watch = Stopwatch::start();
        let request_id = Uuid::new_v4();
        let client_request_id = client_request_id(&request.headers);
        let client_id = client_request_id.as_deref();
        let span = if route.logs_at_info {
            info_span!("request", %request_id, client_request_id = client_id, route = route.name)
        } else {
            debug_span!("request", %request_id, client_request_id = client_id, route = route.name)
        };
        let trace = tracer.map(|tracer| RequestSpan::start(tracer, route, request, request_id));
        let debug_info = || Box::new((request.method.clone(), request.uri.path().to_owned()));
        let debug_info = tracing::enabled!(Level::DEBUG).then(debug_info);
        let log = LogContext { request_id, client_request_id, route: route.name, span, trace };
        Self { log, metrics: route.metrics.clone(), watch, cors_headers, debug_info }
    }

    /// A context without spans or CORS headers, for a request whose routing panicked.
    pub(crate) fn minimal(route: &Route) -> Self {
        let log = LogContext {
            request_id: Uuid::new_v4(),
            client_request_id: None,
            route: route.name,
            span: Span::none(),
            trace: None,
        };
        Self {
            log,
            metrics: route.metrics.clone(),
            watch: Stopwatch::start(),
            cors_headers: Vec::new(),
            debug_info: None,
        }
    }

    pub(crate) fn log(&self) -> &LogContext {
        &self.log
    }

    pub(crate) fn deadline(&self, timeout: Duration) -> Instant {
        Instant::from_std(self.watch.at(timeout))
    }

    /// Converts the outcome to a response, adds the common headers, and updates logs, metrics and traces.
    pub(crate) fn finish(self, outcome: Result<Response, Problem>) -> Response {
        let _trace = self.log.trace.as_ref().map(RequestSpan::attach);
        let mut buffer = Uuid::encode_buffer();
        let request_id = &*self.log.request_id.hyphenated().encode_lower(&mut buffer);
        let mut response = match outcome {
            Ok(response) => response,
            Err(problem) => self.log.span_for(&problem).in_scope(|| problem.into_response(request_id)),
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in self.cors_headers {
            // Appends instead of replacing, because a document already has a `Vary` header.
            headers.append(name, value);
        }
        let (status, seconds) = (response.status(), self.watch.elapsed().as_secs_f64());
        if let Some(metrics) = &self.metrics {
            metrics.observe(status.as_u16(), seconds);
        }
        if let Some(trace) = &self.log.trace {
            trace.end(status);
        }
        if let Some(debug_info) = self.debug_info {
            let (method, path) = *debug_info;
            let status = status.as_u16();
            self.log.span.in_scope(|| debug!(%method, path, status, ms = seconds * 1000.0, "response"));
        }
        response
    }
}

impl LogContext {
    /// Calls `f` in the log span and the trace of the request, so that the log lines and store requests of `f` belong to them.
    pub(crate) fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        let _trace = self.trace.as_ref().map(RequestSpan::attach);
        self.span.in_scope(f)
    }

    /// Like [`Self::in_scope`], for a future.
    pub(crate) fn instrument<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let trace = self.trace.as_ref().map(|trace| trace.context().clone());
        future.instrument(self.span.clone()).with_context(trace.unwrap_or_default())
    }

    /// Logs the failure of a handler that completes after the client has received the timeout response.
    pub(crate) fn late_failure(&self, problem: &Problem) {
        if !problem.should_log() {
            return;
        }
        let (code, status) = (problem.code.code(), problem.code.status());
        let cause = problem.cause.as_deref().unwrap_or(&problem.detail);
        self.span_for(problem).in_scope(|| match problem.code {
            ProblemCode::Internal => {
                error!(
                    event = "request_failed",
                    code,
                    cause,
                    status,
                    late = true,
                    "request failed after its timeout"
                );
            }
            _ => {
                warn!(event = "request_failed", code, cause, status, late = true, "request failed after its timeout")
            }
        });
    }

    /// The span for logging `problem`. Failures log the request id even if the request span is disabled.
    fn span_for(&self, problem: &Problem) -> Span {
        if self.span.is_disabled() && problem.should_log() {
            let client_request_id = self.client_request_id.as_deref();
            return error_span!("request", request_id = %self.request_id, client_request_id, route = self.route);
        }
        self.span.clone()
    }
}

/// The client's own request id, cut to 128 bytes. Each byte that is not visible ASCII becomes `?`, so that the value
/// cannot contain line breaks, control characters or text that looks like other fields.
fn client_request_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let id = headers.get(REQUEST_ID)?.as_bytes();
    let id = id.iter().take(MAX_CLIENT_REQUEST_ID_BYTES);
    let id: String = id.map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect();
    (!id.is_empty()).then(|| id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_request_ids_are_bounded_and_cleaned() {
        for (header, expected) in [
            (&b"Root=1-67891233-abcdef"[..], Some("Root=1-67891233-abcdef".to_owned())),
            (b"a b\tc", Some("a?b?c".to_owned())),
            (b"\xe2\x80\xa8\xff", Some("????".to_owned())),
            (b"", None),
            (&[b'x'; 200], Some("x".repeat(128))),
        ] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(header).unwrap())]);
            assert_eq!(client_request_id(&headers).as_deref(), expected.as_deref());
        }
        assert_eq!(client_request_id(&HeaderMap::new()), None);
    }
}
