//! The HTTP layer: calls the limiter for each request, and turns its results into responses.

pub mod api;
pub mod auth;
pub mod pages;
pub mod pipeline;
pub mod server;

use std::sync::Arc;

use self::api::health::Readiness;
use self::api::openapi::apis;
use self::api::rate_limits::RateLimits;
use self::api::route_context::AuthMode;
use self::auth::verifier::TokenVerifier;
use self::pages::{Pages, demo, documentation, exposition};
use self::pipeline::app::{App, Bounds};
use self::pipeline::cors::Cors;
use self::pipeline::routes::{RouteError, Routes};
use crate::limiter::Limiter;
use crate::live_streams::LiveStreams;
use crate::telemetry::Tracer;
use crate::telemetry::metrics::Metrics;

/// The dependencies of the public server.
pub struct AppDeps {
    pub limiter: Arc<Limiter>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    /// `None` if traces are off.
    pub tracer: Option<Tracer>,
    /// `None` disables authentication.
    pub tokens: Option<Arc<TokenVerifier>>,
    pub rates: RateLimits,
    pub cors: Cors,
    pub pages: Pages,
    pub bounds: Bounds,
}

/// The public server: the API, its OpenAPI document, and the pages.
///
/// # Errors
/// The route table is incomplete or ambiguous, or the OpenAPI document cannot be written.
pub fn app(deps: AppDeps) -> Result<Arc<App>, RouteError> {
    let AppDeps { limiter, readiness, metrics, tracer, tokens, rates, cors, pages, bounds } = deps;
    let auth = tokens.map_or(AuthMode::Disabled, AuthMode::Jwt);
    let mut routed = documentation::pages(pages.swagger)?;
    if pages.demo {
        routed.extend(demo::pages());
    }
    let routes = Routes::new(apis(limiter, readiness, rates, auth.clone()), routed, Some(&metrics))?;
    Ok(App::new(routes, auth, cors, Some(metrics), tracer, bounds))
}

/// The management server: serves metrics as text. Does not count its own requests, so that a scrape does not change the
/// metrics. Does not trace them either. `live_streams` is `None` if other processes may use the same store.
///
/// # Errors
/// The route table is incomplete or ambiguous.
pub fn management(
    metrics: Arc<Metrics>,
    live_streams: Option<Arc<LiveStreams>>,
    bounds: Bounds,
) -> Result<Arc<App>, RouteError> {
    let routes = Routes::new((), vec![exposition::page(metrics, live_streams)], None)?;
    Ok(App::new(routes, AuthMode::Disabled, Cors::default(), None, None, bounds))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Empty;
    use hyper::body::Bytes;

    use super::*;

    #[tokio::test]
    async fn scrapes_are_not_counted() {
        let bounds = Bounds {
            max_uri_bytes: 100,
            max_body_bytes: 100,
            max_in_flight: 1,
            request_timeout: Duration::from_secs(1),
        };
        let app = management(Arc::default(), None, bounds).unwrap();
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
