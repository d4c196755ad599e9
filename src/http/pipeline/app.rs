//! The request pipeline: match the route, check the head, read the body, acquire an in-flight permit, call the endpoint.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::{Body as HttpBody, Bytes};
use poem::error::NotFoundError;
use poem::http::request::Parts;
use poem::http::{StatusCode, Uri, header};
use poem::{Body, Request, Response};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::http::api::health::Readiness;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::{AuthMode, PathParams, RouteContext};
use crate::http::pipeline::body::{self, BodyPolicy};
use crate::http::pipeline::context::RequestContext;
use crate::http::pipeline::cors::Cors;
use crate::http::pipeline::detach::{HandlerFuture, RunToCompletion};
use crate::http::pipeline::host;
use crate::http::pipeline::load_shedding::InFlightLimiter;
use crate::http::pipeline::routes::{Route, Routes};
use crate::telemetry::Tracer;
use crate::telemetry::metrics::Metrics;

pub struct App {
    pub(crate) routes: Routes,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) auth: AuthMode,
    pub(crate) cors: Arc<Cors>,
    /// `None` if requests and connections are not counted.
    pub(crate) metrics: Option<Arc<Metrics>>,
    /// `None` if requests are not traced.
    pub(crate) tracer: Option<Tracer>,
    pub(crate) in_flight: Arc<InFlightLimiter>,
    pub(crate) bounds: Bounds,
    /// Requests in flight, including handlers that continue after their response. A graceful shutdown waits for them.
    pub tasks: TaskTracker,
}

/// Limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum length of path and query together.
    pub max_uri_bytes: usize,
    pub max_body_bytes: usize,
    pub max_in_flight: usize,
    pub request_timeout: Duration,
}

#[cfg(test)]
impl Bounds {
    /// For tests that send one small request at a time.
    pub(crate) const SMALL: Self =
        Self { max_uri_bytes: 100, max_body_bytes: 100, max_in_flight: 1, request_timeout: Duration::from_secs(1) };
}

/// The next step after the checks of a request's head.
enum Next {
    Respond(Result<Response, Problem>),
    Dispatch(Arc<Route>, PathParams),
}

impl App {
    /// Always returns a response within the request timeout. The endpoint runs to completion even if the client
    /// disconnects or the timeout expires.
    pub fn handle<B>(
        self: &Arc<Self>,
        request: poem::http::Request<B>,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let prepared = catch_unwind(AssertUnwindSafe(|| self.prepare(&parts)));
        let (context, next) = prepared.unwrap_or_else(|_| {
            (RequestContext::minimal(self.routes.not_found()), Next::Respond(Err(panicked("routing panicked"))))
        });
        let deadline = context.deadline(self.bounds.request_timeout);
        let handler: HandlerFuture = match next {
            Next::Respond(outcome) => Box::pin(std::future::ready(outcome)),
            Next::Dispatch(route, params) => {
                let dispatched = Arc::clone(self).dispatch(parts, body, route, params, deadline);
                let caught = AssertUnwindSafe(dispatched).catch_unwind();
                Box::pin(caught.map(|outcome| outcome.unwrap_or_else(|_| Err(panicked("the handler panicked")))))
            }
        };
        RunToCompletion::new(handler, context, deadline, &self.tasks)
    }

    fn prepare(&self, parts: &Parts) -> (RequestContext, Next) {
        let (route, params) = self.routes.find(&parts.method, parts.uri.path());
        let tracer = self.tracer.as_ref().filter(|_| !route.is_health_check());
        let context = RequestContext::new(route, parts, self.cors.headers(&parts.headers), tracer);
        if let Err(problem) = host::check(parts) {
            return (context, Next::Respond(Err(problem)));
        }
        if let Some(preflight) = self.cors.preflight(&parts.method, &parts.headers) {
            return (context, Next::Respond(Ok(preflight)));
        }
        match self.check_head(parts, route) {
            Ok(()) => (context, Next::Dispatch(Arc::clone(route), params)),
            Err(problem) => (context, Next::Respond(Err(problem))),
        }
    }

    /// Checks a request's head. An invalid request is rejected before its body is read.
    fn check_head(&self, parts: &Parts, route: &Route) -> Result<(), Problem> {
        self.check_length(&parts.uri)?;
        check_escapes(parts.uri.path())?;
        if self.in_flight.has_capacity(route.priority) { Ok(()) } else { Err(self.overloaded()) }
    }

    async fn dispatch<B>(
        self: Arc<Self>,
        parts: Parts,
        body: B,
        route: Arc<Route>,
        path_params: PathParams,
        deadline: Instant,
    ) -> Result<Response, Problem>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = if body.is_end_stream() {
            Body::empty()
        } else {
            Body::from_vec(self.read_body(&parts, body, route.body_policy, deadline).await?)
        };
        // The permit is acquired after the body is read, so that slow clients do not hold permits.
        let _permit = self.in_flight.try_acquire(route.priority).ok_or_else(|| self.overloaded())?;
        let mut request = Request::builder().method(parts.method).uri(parts.uri).version(parts.version).body(body);
        *request.headers_mut() = parts.headers;
        request.set_data(RouteContext { auth: self.auth.clone(), path_params });
        route.endpoint.call(request).await.map_err(to_problem)
    }

    async fn read_body<B>(
        &self,
        parts: &Parts,
        body: B,
        policy: BodyPolicy,
        deadline: Instant,
    ) -> Result<Vec<u8>, Problem>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let max_bytes = self.bounds.max_body_bytes;
        match policy {
            BodyPolicy::Validated => {
                body::read(body, max_bytes, parts.headers.contains_key(header::EXPECT), deadline).await
            }
            // Leaves half of the request timeout for the operation.
            BodyPolicy::Optional => {
                Ok(body::read_optional(body, max_bytes, deadline - self.bounds.request_timeout / 2).await)
            }
        }
    }

    fn overloaded(&self) -> Problem {
        if let Some(metrics) = &self.metrics {
            metrics.overloaded.inc();
        }
        Problem::new(ProblemCode::Overloaded, "too many requests in flight: retry")
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
}

/// The problem for a panic. The panic hook has already logged the panic's message, which the client must not receive.
fn panicked(cause: &str) -> Problem {
    let mut problem = Problem::new(ProblemCode::Internal, "the service failed");
    problem.cause = Some(cause.to_owned());
    problem
}

/// Converts an endpoint's error to a problem. Operations already return problems, but poem and poem-openapi return their
/// own errors.
fn to_problem(error: poem::Error) -> Problem {
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

/// Each `%` must be followed by two hexadecimal digits, because decoders differ in how they treat an invalid escape.
fn check_escapes(path: &str) -> Result<(), Problem> {
    let invalid = path.split('%').skip(1).any(|after| {
        let digits = after.as_bytes();
        digits.len() < 2 || !digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    if invalid {
        return Err(Problem::new(ProblemCode::InvalidRequest, "the path has an invalid percent escape"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::Empty;
    use tracing::Subscriber;
    use tracing::span::{Attributes, Id};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// Panics when the first span is created. That happens while the request is routed.
    #[derive(Default)]
    struct PanicOnce(AtomicBool);

    impl<S: Subscriber> Layer<S> for PanicOnce {
        fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            assert!(self.0.swap(true, Ordering::Relaxed), "a secret");
        }
    }

    #[tokio::test]
    async fn a_panic_in_routing_is_a_500_problem() {
        let routes = Routes::new((), Vec::new(), None).unwrap();
        let app = Arc::new(App {
            routes,
            readiness: Arc::default(),
            auth: AuthMode::Disabled,
            cors: Arc::default(),
            metrics: None,
            tracer: None,
            in_flight: InFlightLimiter::new(Bounds::SMALL.max_in_flight, &Metrics::new()),
            bounds: Bounds::SMALL,
            tasks: TaskTracker::new(),
        });
        let request = || poem::http::Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(PanicOnce::default()));
        let mut response = app.handle(request()).await;
        assert_eq!((response.status().as_u16(), response.headers().contains_key("x-request-id")), (500, true));
        let body = response.take_body().into_string().await.unwrap();
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("secret"), "{body}");
        assert_eq!(app.handle(request()).await.status(), 404);
    }
}
