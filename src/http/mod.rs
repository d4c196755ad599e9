//! HTTP: translates between requests and the limiter's verbs, and decides nothing. The only code that knows poem.

pub mod api;
pub mod auth;
pub mod pages;
pub mod pipeline;
pub mod server;

use std::sync::Arc;

use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::middleware::SetHeader;
use poem::{Endpoint, EndpointExt, Response};
use poem_openapi::OpenApi;
use serde_json::Value;

use self::api::health::Readiness;
use self::api::openapi::{apis, closed, documented};
use self::api::rate_limits::Rates;
use self::api::route_context::AuthMode;
use self::auth::verifier::TokenVerifier;
use self::pages::demo;
use self::pipeline::app::{App, Bounds};
use self::pipeline::cors::Origins;
use self::pipeline::routes::{Endpoints, Routes};
use crate::limiter::Limiter;
use crate::telemetry::metrics::Metrics;

/// What the public routes are made of.
pub struct AppDeps {
    pub limiter: Arc<Limiter>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    /// None: no tokens are asked for.
    pub tokens: Option<Arc<TokenVerifier>>,
    pub rates: Rates,
    pub origins: Origins,
    /// Whether the demo page is there.
    pub demo: bool,
    pub bounds: Bounds,
}

/// The public routes: the API, its document, and Swagger UI.
pub fn app(parts: AppDeps) -> Arc<App> {
    let AppDeps { limiter, readiness, metrics, tokens, rates, origins, demo, bounds } = parts;
    let access = tokens.map_or(AuthMode::Disabled, AuthMode::Jwt);
    let mut endpoints = Endpoints::new();
    apis(limiter, readiness, rates, access.clone()).add_routes(&mut endpoints);
    let service = documented();
    let (json, yaml) = (closed(&service.spec()), closed(&service.spec_yaml()));
    let document = serde_json::from_str(&json).unwrap_or(Value::Null);
    let swagger =
        make_sync(|_| Response::builder().status(StatusCode::FOUND).header("location", "/swagger").finish());
    let html = text("text/html; charset=utf-8", service.swagger_ui_html());
    let mut pages = vec![
        ("/", swagger.boxed()),
        ("/openapi.json", text("application/json", json).boxed()),
        ("/openapi.yaml", text("application/yaml", yaml).boxed()),
        ("/swagger", html.with(SetHeader::new().overriding(POLICY.0, POLICY.1)).map_to_response().boxed()),
    ];
    if demo {
        pages.extend([("/demo", demo::page().boxed()), ("/demo/{file}", demo::file().boxed())]);
    }
    let routes = Routes::new(&document, endpoints, pages, &metrics);
    App::new(routes, access, origins, metrics, bounds)
}

/// The routes for operators, on a port of their own.
pub fn management(metrics: Arc<Metrics>, bounds: Bounds) -> Arc<App> {
    let exposition = make_sync(move |_| match metrics.encode() {
        Ok(text) => {
            Response::builder().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text)
        }
        Err(_) => Response::from(StatusCode::INTERNAL_SERVER_ERROR),
    });
    // Counts its own requests apart: a scrape must not see itself.
    let apart = Arc::new(Metrics::new());
    let routes = Routes::management(exposition.boxed(), &apart);
    App::new(routes, AuthMode::Disabled, Origins::default(), apart, bounds)
}

/// Swagger UI's page is one file with its scripts in it. It talks to nobody else, and nobody may put it into a frame: people
/// enter tokens there.
const POLICY: (&str, &str) = (
    "content-security-policy",
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A text that never changes. Cloning it copies no bytes: Swagger UI has over a megabyte of them.
fn text(content_type: &'static str, text: String) -> impl Endpoint<Output = Response> {
    let bytes = hyper::body::Bytes::from(text);
    make_sync(move |_| Response::builder().content_type(content_type).body(bytes.clone()))
}
