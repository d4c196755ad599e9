//! From a request to what answers it: the bounds, the body, a place, and the operation. Knows no operation by name.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Bytes};
use poem::error::NotFoundError;
use poem::http::request::Parts;
use poem::http::{StatusCode, Uri, Version, header};
use poem::{Body, Request, Response};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::{AuthMode, PathParams, RouteContext};
use crate::http::pipeline::context::RequestContext;
use crate::http::pipeline::cors::Origins;
use crate::http::pipeline::detach::{self, RunToCompletion};
use crate::http::pipeline::load_shedding::{Places, Priority};
use crate::http::pipeline::routes::{Operation, Routes};
use crate::telemetry::metrics::Metrics;

pub struct App {
    routes: Routes,
    access: AuthMode,
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
    pub fn new(
        routes: Routes,
        access: AuthMode,
        origins: Origins,
        metrics: Arc<Metrics>,
        bounds: Bounds,
    ) -> Arc<Self> {
        Arc::new(Self {
            routes,
            access,
            origins,
            places: Places::new(bounds.max_in_flight, Arc::clone(&metrics)),
            metrics,
            bounds,
            tasks: TaskTracker::new(),
        })
    }

    /// Answers always, and within the request timeout. What was begun goes on to its end even if the caller is gone
    /// or the time is up: a stop sent by a closing page must not depend on the page.
    pub fn answer<B>(self: &Arc<Self>, request: poem::http::Request<B>) -> RunToCompletion
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let found = self.routes.find(&parts.method, parts.uri.path());
        let operation = found.as_ref().ok().map(|(operation, _)| &**operation);
        let route = operation.map_or(&self.routes.other, |operation| &operation.metrics);
        let priority = operation.map_or(Priority::Asking, |operation| operation.priority);
        let cross_origin = self.origins.headers(&parts.headers);
        let exchange = RequestContext::begin(Arc::clone(route), operation, &parts, cross_origin);
        let deadline = exchange.deadline(self.bounds.request_timeout);
        let operation: detach::Operation = match self.origins.preflight(&parts.method, &parts.headers) {
            Some(preflight) => Box::pin(std::future::ready(Ok(preflight))),
            None => match self.check(&parts, priority) {
                Err(problem) => Box::pin(std::future::ready(Err(problem))),
                Ok(()) => Box::pin(Arc::clone(self).operate(parts, body, found, priority, deadline)),
            },
        };
        RunToCompletion::new(operation, exchange, deadline, &self.tasks)
    }

    /// Before the body, so that what will be refused need not arrive.
    fn check(&self, parts: &Parts, priority: Priority) -> Result<(), Problem> {
        check_host(parts)?;
        self.check_length(&parts.uri)?;
        check_escapes(parts.uri.path())?;
        if self.places.has_room(priority) { Ok(()) } else { Err(self.overloaded()) }
    }

    async fn operate<B>(
        self: Arc<Self>,
        parts: Parts,
        body: B,
        found: Result<(Arc<Operation>, PathParams), Problem>,
        priority: Priority,
        deadline: Instant,
    ) -> Result<Response, Problem>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = if body.is_end_stream() {
            Body::empty()
        } else {
            let read = tokio::time::timeout_at(deadline, self.read(body)).await;
            let late = |_| Problem::new(ProblemCode::InvalidRequest, "the request body did not arrive in time");
            Body::from_vec(read.map_err(late)??)
        };
        // After the body, so that a slow one takes nobody's place.
        let place = self.places.enter(priority).ok_or_else(|| self.overloaded())?;
        let (operation, parameters) = found?;
        let mut request = Request::builder().method(parts.method).uri(parts.uri).version(parts.version).body(body);
        *request.headers_mut() = parts.headers;
        request.set_data(RouteContext { access: self.access.clone(), parameters });
        let answered = AssertUnwindSafe(operation.endpoint.call(request)).catch_unwind().await;
        drop(place);
        match answered {
            Ok(answered) => answered.map_err(problem),
            // What it said is in the log, by the hook for panics.
            Err(_) => {
                let mut problem = Problem::new(ProblemCode::Internal, "the service failed");
                problem.cause = Some("the operation panicked".to_owned());
                Err(problem)
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

    /// The body in memory.
    async fn read<B>(&self, body: B) -> Result<Vec<u8>, Problem>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let max = self.bounds.max_body_bytes;
        let too_large = || Problem::new(ProblemCode::PayloadTooLarge, format!("send at most {max} bytes"));
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
        Ok(whole)
    }
}

/// What the framework's refusals and the operations' own mean to a client.
fn problem(error: poem::Error) -> Problem {
    let error = match error.downcast::<Problem>() {
        Ok(problem) => return problem,
        Err(error) => error,
    };
    if error.is::<NotFoundError>() {
        return Problem::new(ProblemCode::RouteNotFound, "see /openapi.json for the routes");
    }
    if error.status() == StatusCode::BAD_REQUEST {
        return Problem::new(ProblemCode::InvalidRequest, "the request is not valid");
    }
    let mut problem = Problem::new(ProblemCode::Internal, "the service failed");
    problem.cause = Some(error.to_string());
    problem
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
fn check_host(request: &Parts) -> Result<(), Problem> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let reason = match (request.version, hosts.next(), hosts.next()) {
        (_, Some(_), Some(_)) => "must be sent once",
        (Version::HTTP_11, None, _) if request.uri.authority().is_none() => "must be sent",
        _ => return Ok(()),
    };
    Err(Problem::field("Host", reason))
}
