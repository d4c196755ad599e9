//! One request and its answer, around what is asked: its id, what is logged, counted and traced of it, and what every answer
//! bears.

use std::sync::Arc;
use std::time::Duration;

use poem::Response;
use poem::http::request::Parts;
use poem::http::{HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::{Level, Span, debug, debug_span, error_span, info_span};
use uuid::Uuid;

use crate::clock::Stopwatch;
use crate::http::api::problems::Problem;
use crate::http::pipeline::routes::Operation;
use crate::http::pipeline::trace_attributes;
use crate::telemetry::metrics::RouteMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub struct RequestContext {
    route: Arc<RouteMetrics>,
    request_id: Uuid,
    watch: Stopwatch,
    cross_origin: Vec<(HeaderName, HeaderValue)>,
    span: Span,
    traced: bool,
    /// Method and path, where they are logged.
    asked: Option<Box<(Method, String)>>,
}

impl RequestContext {
    /// `operation`: none when there is none of this method and path.
    pub fn begin(
        route: Arc<RouteMetrics>,
        operation: Option<&Operation>,
        request: &Parts,
        cross_origin: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let watch = Stopwatch::start();
        let request_id = Uuid::new_v4();
        let span = if operation.is_some_and(|operation| operation.tells) {
            info_span!("request", %request_id, route = route.route())
        } else {
            debug_span!("request", %request_id, route = route.route())
        };
        let template = operation.map(|operation| operation.template);
        let traced = trace_attributes::begin(&span, route.route(), template, &request.method, &request.headers);
        let asked = || Box::new((request.method.clone(), request.uri.path().to_owned()));
        let asked = tracing::enabled!(Level::DEBUG).then(asked);
        Self { route, request_id, watch, cross_origin, span, traced, asked }
    }

    /// In which everything happens that is done for this request.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// When it must have an answer.
    pub fn deadline(&self, within: Duration) -> Instant {
        Instant::from_std(self.watch.at(within))
    }

    /// Ends it: the outcome with what every answer bears, logged and counted.
    pub fn answer(self, outcome: Result<Response, Problem>) -> Response {
        let mut id = Uuid::encode_buffer();
        let id = &*self.request_id.hyphenated().encode_lower(&mut id);
        let mut response = match outcome {
            Ok(response) => response,
            Err(problem) => self.span_of(&problem).in_scope(|| problem.answer(id)),
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(self.cross_origin);
        let (status, seconds) = (response.status(), self.watch.elapsed().as_secs_f64());
        self.route.answered(status.as_u16(), seconds);
        if self.traced {
            trace_attributes::end(&self.span, status);
        }
        if let Some(asked) = self.asked {
            let (method, path) = *asked;
            let status = status.as_u16();
            self.span.in_scope(|| debug!(%method, path, status, ms = seconds * 1000.0, "answered"));
        }
        response
    }

    /// A failure is told of with the request's id, also where nothing else would have been.
    fn span_of(&self, problem: &Problem) -> Span {
        if self.span.is_disabled() && problem.should_log() {
            return error_span!("request", request_id = %self.request_id, route = self.route.route());
        }
        self.span.clone()
    }
}
