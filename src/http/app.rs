//! From one request to one answer, around the operations: request id, bounds, deadline, problems, log line, metrics.
//! Knows no operation by name.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use poem::error::{MethodNotAllowedError, NotFoundError};
use poem::http::{HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use poem::{Body, Endpoint, Request, Response};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use super::cors::Origins;
use super::endpoints::Endpoints;
use super::places::{Places, Priority};
use super::problems::{Problem, ProblemCode};
use super::routes::Routes;
use super::to_its_end::ToItsEnd;
use super::traces::RequestTrace;
use crate::clock::Stopwatch;
use crate::metrics::Metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub struct App {
    endpoint: Arc<Endpoints>,
    routes: Routes,
    origins: Origins,
    metrics: Arc<Metrics>,
    places: Arc<Places>,
    bounds: Bounds,
    /// Answers and operations that go on though nobody may wait for them any more.
    pub tasks: TaskTracker,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub max_uri_bytes: usize,
    pub max_body_bytes: usize,
    pub max_in_flight: usize,
    pub request_timeout: Duration,
}

impl App {
    pub fn new(endpoint: Endpoints, routes: Routes, origins: Origins, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            routes,
            origins,
            places: Places::new(bounds.max_in_flight, Arc::clone(&metrics)),
            metrics,
            bounds,
            tasks: TaskTracker::new(),
        }
    }

    /// Answers always, and within the request timeout. What was begun goes on to its end even if the caller is gone
    /// or the time is up: a stop sent by a closing page must not depend on the page.
    pub async fn answer<B>(&self, request: poem::http::Request<B>) -> Response
    where
        B: hyper::body::Body<Data = hyper::body::Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let watch = Stopwatch::start();
        let request_id = Uuid::new_v4().to_string();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let route = self.routes.operation(method.as_str(), &path);
        let span = info_span!("request", request_id, route);
        let trace = RequestTrace::begin(&span, route, || self.routes.template(&path), &method, request.headers());
        let cross_origin = self.origins.headers(request.headers());
        let answered = match self.origins.preflight(&method, request.headers()) {
            Some(preflight) => Ok(preflight),
            None => self.operate(request, Priority::of(route)).instrument(span.clone()).await,
        };

        let mut response = span.in_scope(|| match answered {
            Ok(response) => response,
            Err(problem) => problem.answer(&request_id),
        });
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(cross_origin);
        let (status, seconds) = (response.status().as_u16(), watch.seconds());
        self.metrics.request(route, status, seconds);
        trace.end(response.status());
        span.in_scope(|| debug!(%method, path, status, ms = seconds * 1000.0, "answered"));
        response
    }

    async fn operate<B>(&self, request: poem::http::Request<B>, priority: Priority) -> Result<Response, Problem>
    where
        B: hyper::body::Body<Data = hyper::body::Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        check_host(&request)?;
        self.check_length(request.uri())?;
        check_escapes(request.uri().path())?;
        // Before the body, so that what will be refused need not arrive; a place is taken only when it is there.
        if !self.places.has_room(priority) {
            return Err(self.overloaded());
        }
        let path = request.uri().path().to_owned();
        let deadline = tokio::time::Instant::now() + self.bounds.request_timeout;
        let request = tokio::time::timeout_at(deadline, self.read(request)).await;
        let request = request
            .map_err(|_| Problem::new(ProblemCode::InvalidRequest, "the request body did not arrive in time"))??;

        // After the body, so that a slow one takes nobody's place.
        let place = self.places.enter(priority).ok_or_else(|| self.overloaded())?;
        let endpoint = Arc::clone(&self.endpoint);
        let operation = async move {
            let answered = AssertUnwindSafe(endpoint.call(request)).catch_unwind().await;
            drop(place);
            answered
        };
        let operation = ToItsEnd::new(operation.in_current_span(), self.tasks.clone());
        match tokio::time::timeout_at(deadline, operation).await {
            Ok(Ok(answered)) => answered.map_err(|error| self.problem(error, &path)),
            // What it said is in the log, by the hook for panics.
            Ok(Err(_)) => {
                let mut problem = Problem::new(ProblemCode::Internal, "the service failed");
                problem.cause = Some("the operation panicked".to_owned());
                Err(problem)
            }
            Err(_) => {
                Err(Problem::new(ProblemCode::StoreUnavailable, "the outcome is not known: repeat the request"))
            }
        }
    }

    fn overloaded(&self) -> Problem {
        self.metrics.overloaded.inc();
        Problem::new(ProblemCode::Overloaded, "too many requests at once: try again")
    }

    fn check_length(&self, uri: &Uri) -> Result<(), Problem> {
        let (length, max) = (uri.path_and_query().map_or(0, |path| path.as_str().len()), self.bounds.max_uri_bytes);
        if length <= max {
            return Ok(());
        }
        Err(Problem::new(
            ProblemCode::InvalidRequest,
            format!("path and query must have at most {max} bytes together"),
        ))
    }

    /// The request with its body in memory.
    async fn read<B>(&self, request: poem::http::Request<B>) -> Result<Request, Problem>
    where
        B: hyper::body::Body<Data = hyper::body::Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let max = self.bounds.max_body_bytes;
        let too_large = || Problem::new(ProblemCode::PayloadTooLarge, format!("send at most {max} bytes"));
        let (parts, body) = request.into_parts();
        // Refused before it is read, also by those who wait for "100 Continue".
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        let mut body = std::pin::pin!(Limited::new(body, max));
        let mut whole = Vec::new();
        // Copied out of each frame, not `collect`ed: a frame of one byte holds on to eight kilobytes of hyper's buffers.
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => whole.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
                Err(_) => return Err(Problem::new(ProblemCode::InvalidRequest, "the request body broke off")),
            }
        }
        let request = Request::builder().method(parts.method).uri(parts.uri).version(parts.version);
        let mut request = request.body(Body::from_vec(whole));
        *request.headers_mut() = parts.headers;
        Ok(request)
    }

    /// What the framework's refusals and the operations' own mean to a client.
    fn problem(&self, error: poem::Error, path: &str) -> Problem {
        let error = match error.downcast::<Problem>() {
            Ok(problem) => return problem,
            Err(error) => error,
        };
        if error.is::<NotFoundError>() {
            return Problem::new(ProblemCode::RouteNotFound, "see /openapi.json for the routes");
        }
        if error.is::<MethodNotAllowedError>() {
            let allow = self.routes.allow(path).unwrap_or_default();
            let mut problem = Problem::new(ProblemCode::MethodNotAllowed, format!("this route has {allow}"));
            problem.extra.allow = Some(allow);
            return problem;
        }
        if error.status() == StatusCode::BAD_REQUEST {
            return Problem::new(ProblemCode::InvalidRequest, "the request is not valid");
        }
        let mut problem = Problem::new(ProblemCode::Internal, "the service failed");
        problem.cause = Some(error.to_string());
        problem
    }
}

/// `%` must be followed by two hexadecimal digits: decoders differ in what they make of anything else.
fn check_escapes(path: &str) -> Result<(), Problem> {
    let broken = path.split('%').skip(1).any(|after| {
        let digits = after.as_bytes();
        digits.len() < 2 || !digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    if broken {
        return Err(Problem::new(ProblemCode::InvalidRequest, "the path has a broken percent escape"));
    }
    Ok(())
}

/// Whoever routes by `Host` must find the one that the client meant (RFC 9112, section 3.2).
fn check_host<B>(request: &poem::http::Request<B>) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let reason = match (request.version(), hosts.next(), hosts.next()) {
        (_, Some(_), Some(_)) => "must be sent once",
        (Version::HTTP_11, None, _) if request.uri().authority().is_none() => "must be sent",
        _ => return Ok(()),
    };
    Err(Problem::field("Host", reason))
}
