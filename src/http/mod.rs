//! The HTTP layer: calls the limiter for each request, and turns its results into responses.

pub mod api;
pub mod auth;
pub mod grants;
pub mod pages;
pub mod pipeline;
mod port;
pub mod server;
pub mod worker;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use self::api::health::Readiness;
use self::api::openapi::apis;
use self::api::rate_limits::RateLimits;
use self::api::route_context::AuthMode;
use self::auth::verifier::TokenVerifier;
use self::grants::authority::GrantAuthority;
use self::pages::{Pages, demo, documentation, exposition};
use self::pipeline::app::{App, Bounds};
use self::pipeline::cors::Cors;
use self::pipeline::load_shedding::InFlightLimiter;
use self::pipeline::routes::{RouteError, Routes};
use crate::limiter::Limiter;
use crate::live_streams::LiveStreams;
use crate::telemetry::Tracer;
use crate::telemetry::metrics::Metrics;

/// The dependencies of the public server. The workers share them, except for the limiter: each worker has its own, with its own
/// client of the store.
#[derive(Clone)]
pub struct AppDeps {
    pub limiter: Arc<Limiter>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    /// `None` if traces are off.
    pub tracer: Option<Tracer>,
    /// `None` disables authentication.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// `None` if grants are off.
    pub grants: Option<Arc<GrantAuthority>>,
    pub rates: Arc<RateLimits>,
    pub cors: Arc<Cors>,
    pub in_flight: Arc<InFlightLimiter>,
    pub pages: Pages,
    pub bounds: Bounds,
}

/// The public server of one worker: the API, its OpenAPI document, and the pages.
///
/// # Errors
/// The route table is incomplete or ambiguous, or the OpenAPI document cannot be written.
pub fn app(deps: AppDeps) -> Result<Arc<App>, RouteError> {
    let AppDeps { limiter, readiness, metrics, tracer, tokens, grants, rates, cors, in_flight, pages, bounds } = deps;
    let auth = tokens.map_or(AuthMode::Disabled, AuthMode::Jwt);
    let mut routed = documentation::pages(pages.swagger)?;
    if pages.demo {
        routed.extend(demo::pages());
    }
    let apis = apis(limiter, Arc::clone(&readiness), rates, auth.clone(), grants);
    let routes = Routes::new(apis, routed, Some(&metrics))?;
    let tasks = TaskTracker::new();
    let metrics = Some(metrics);
    Ok(Arc::new(App { routes, readiness, auth, cors, metrics, tracer, in_flight, bounds, tasks }))
}

/// The management server: serves metrics as text. Does not count its own requests, so that a scrape does not change the
/// metrics. Does not trace them either. `live_streams` is `None` if other processes may use the same store.
///
/// # Errors
/// The route table is incomplete or ambiguous.
pub fn management(
    metrics: Arc<Metrics>,
    live_streams: Option<Arc<LiveStreams>>,
    readiness: Arc<Readiness>,
    bounds: Bounds,
) -> Result<Arc<App>, RouteError> {
    Ok(Arc::new(App {
        routes: Routes::new((), vec![exposition::page(metrics, live_streams)], None)?,
        readiness,
        auth: AuthMode::Disabled,
        cors: Arc::default(),
        metrics: None,
        tracer: None,
        in_flight: InFlightLimiter::new(bounds.max_in_flight, &Metrics::new()),
        bounds,
        tasks: TaskTracker::new(),
    }))
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use hyper::body::Bytes;

    use super::*;

    #[tokio::test]
    async fn scrapes_are_not_counted() {
        let app = management(Arc::default(), None, Arc::default(), Bounds::SMALL).unwrap();
        for _ in 0..2 {
            let request =
                poem::http::Request::get("/metrics").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
            let mut response = app.handle(request).await;
            assert_eq!(response.status(), 200);
            let metrics = response.take_body().into_string().await.unwrap();
            assert!(
                metrics.contains("http_requests_in_flight 0") && !metrics.contains("route=\"metrics\""),
                "{metrics}"
            );
        }
    }
}
