//! Per-request context: the request id, the log span, metrics, tracing and common response headers.

use std::sync::Arc;
use std::time::Duration;

use poem::Response;
use poem::http::request::Parts;
use poem::http::{HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::{Level, Span, debug, debug_span, error, error_span, info_span, warn};
use uuid::Uuid;

use crate::clock::Stopwatch;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::pipeline::routes::Route;
use crate::http::pipeline::trace_attributes;
use crate::telemetry::metrics::RouteMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) struct RequestContext {
    log: LogContext,
    metrics: Option<Arc<RouteMetrics>>,
    watch: Stopwatch,
    cors_headers: Vec<(HeaderName, HeaderValue)>,
    traced: bool,
    /// Method and path. `None` unless `debug` logging is enabled.
    debug_info: Option<Box<(Method, String)>>,
}

/// Identifies a request in the log.
#[derive(Clone)]
pub(crate) struct LogContext {
    request_id: Uuid,
    route: &'static str,
    span: Span,
}

impl RequestContext {
    pub(crate) fn new(route: &Route, request: &Parts, cors_headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        let watch = Stopwatch::start();
        let request_id = Uuid::new_v4();
        let span = if route.logs_at_info {
            info_span!("request", %request_id, route = route.name)
        } else {
            debug_span!("request", %request_id, route = route.name)
        };
        let template = route.template.as_deref();
        let traced = trace_attributes::begin(&span, route.name, template, &request.method, &request.headers);
        let debug_info = || Box::new((request.method.clone(), request.uri.path().to_owned()));
        let debug_info = tracing::enabled!(Level::DEBUG).then(debug_info);
        let log = LogContext { request_id, route: route.name, span };
        Self { log, metrics: route.metrics.clone(), watch, cors_headers, traced, debug_info }
    }

    /// A context without a span or CORS headers, for a request whose routing panicked.
    pub(crate) fn minimal(route: &Route) -> Self {
        let log = LogContext { request_id: Uuid::new_v4(), route: route.name, span: Span::none() };
        Self {
            log,
            metrics: route.metrics.clone(),
            watch: Stopwatch::start(),
            cors_headers: Vec::new(),
            traced: false,
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
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(self.cors_headers);
        let (status, seconds) = (response.status(), self.watch.elapsed().as_secs_f64());
        if let Some(metrics) = &self.metrics {
            metrics.observe(status.as_u16(), seconds);
        }
        if self.traced {
            trace_attributes::end(&self.log.span, status);
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
    /// The span in which the handler runs.
    pub(crate) fn span(&self) -> &Span {
        &self.span
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
            return error_span!("request", request_id = %self.request_id, route = self.route);
        }
        self.span.clone()
    }
}
