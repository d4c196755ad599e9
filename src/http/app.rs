//! From one request to one answer, around the operations: request id, bounds, deadline, problems, log line, metrics.
//! Knows no operation by name.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use poem::endpoint::BoxEndpoint;
use poem::error::{MethodNotAllowedError, NotFoundError};
use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use super::problems::{Problem, ProblemCode};
use super::routes::Routes;
use crate::clock::Stopwatch;
use crate::metrics::Metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub struct App {
    endpoint: Arc<BoxEndpoint<'static>>,
    routes: Routes,
    metrics: Arc<Metrics>,
    in_flight: Arc<Semaphore>,
    bounds: Bounds,
    /// Answers and operations that go on though nobody may wait for them any more.
    pub tasks: TaskTracker,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub max_body_bytes: usize,
    pub max_in_flight: usize,
    pub request_timeout: Duration,
}

/// A request's place, until its operation has ended, whether or not anybody still waits for it.
struct InFlight {
    metrics: Arc<Metrics>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

impl App {
    pub fn new(endpoint: impl Endpoint + 'static, routes: Routes, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        let endpoint = Arc::new(endpoint.map_to_response().boxed());
        Self {
            endpoint,
            routes,
            metrics,
            in_flight: Arc::new(Semaphore::new(bounds.max_in_flight)),
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
        let answered = self.operate(request).instrument(span.clone()).await;

        let mut response = span.in_scope(|| match answered {
            Ok(response) => response,
            Err(problem) => problem.answer(&request_id),
        });
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let (status, seconds) = (response.status().as_u16(), watch.seconds());
        self.metrics.request(route, status, seconds);
        span.in_scope(|| debug!(%method, path, status, ms = seconds * 1000.0, "answered"));
        response
    }

    async fn operate<B>(&self, request: poem::http::Request<B>) -> Result<Response, Problem>
    where
        B: hyper::body::Body<Data = hyper::body::Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        check_escapes(request.uri().path())?;
        let path = request.uri().path().to_owned();
        let deadline = tokio::time::Instant::now() + self.bounds.request_timeout;
        let request = tokio::time::timeout_at(deadline, self.read(request)).await;
        let request = request
            .map_err(|_| Problem::new(ProblemCode::InvalidRequest, "the request body did not arrive in time"))??;

        // After the body, so that a slow one takes nobody's place.
        let in_flight = self.enter(&path)?;
        let endpoint = Arc::clone(&self.endpoint);
        let operation = async move {
            let answered = endpoint.call(request).await;
            drop(in_flight);
            answered
        };
        let operation = self.tasks.spawn(operation.in_current_span());
        match tokio::time::timeout_at(deadline, operation).await {
            Ok(Ok(answered)) => answered.map_err(|error| self.problem(error, &path)),
            Ok(Err(panic)) => {
                let mut problem = Problem::new(ProblemCode::Internal, "the service failed");
                problem.cause = Some(panic.to_string());
                Err(problem)
            }
            Err(_) => {
                Err(Problem::new(ProblemCode::StoreUnavailable, "the outcome is not known: repeat the request"))
            }
        }
    }

    /// A place among the requests in flight, if there is one.
    fn enter(&self, path: &str) -> Result<InFlight, Problem> {
        // Health is asked most when there is most to do, and costs nothing.
        let permit = if path == "/health" || path.starts_with("/health/") {
            None
        } else {
            let overloaded = |_| Problem::new(ProblemCode::Overloaded, "too many requests at once: try again");
            Some(Arc::clone(&self.in_flight).try_acquire_owned().map_err(overloaded)?)
        };
        self.metrics.in_flight.inc();
        Ok(InFlight { metrics: Arc::clone(&self.metrics), _permit: permit })
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
        let body = match Limited::new(body, max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
            Err(_) => return Err(Problem::new(ProblemCode::InvalidRequest, "the request body broke off")),
        };
        let request = Request::builder().method(parts.method).uri(parts.uri).version(parts.version);
        let mut request = request.body(Body::from_bytes(body));
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
