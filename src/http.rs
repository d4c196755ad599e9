//! HTTP: translates between requests and the limiter's verbs, and decides nothing. The only code that knows poem.

mod answering;
mod answers;
mod app;
pub mod auth;
pub mod cors;
mod demo;
mod exchange;
mod health;
mod input;
mod limits;
mod one_piece;
mod payload;
mod places;
pub mod problems;
pub mod rate;
mod routes;
pub mod server;
mod streams;
mod traces;
mod wire;

use std::sync::Arc;

use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::middleware::SetHeader;
use poem::{Endpoint, EndpointExt, Response};
use poem_openapi::{OpenApi, OpenApiService};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

pub use self::app::{App, Bounds};
use self::auth::Tokens;
use self::auth::caller::Access;
use self::cors::Origins;
use self::health::HealthApi;
pub use self::health::Readiness;
use self::limits::LimitsApi;
use self::rate::Rates;
use self::routes::{Endpoints, Routes};
use self::streams::StreamsApi;
use crate::clock::ManualClock;
use crate::limiter::{Limiter, Policy};
use crate::metrics::Metrics;
use crate::store::memory::MemoryStore;

/// What the public routes are made of.
pub struct Parts {
    pub limiter: Arc<Limiter>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    /// None: no tokens are asked for.
    pub tokens: Option<Arc<Tokens>>,
    pub rates: Rates,
    pub origins: Origins,
    /// Whether the demo page is there.
    pub demo: bool,
    pub bounds: Bounds,
}

/// The public routes: the API, its document, and Swagger UI.
pub fn app(parts: Parts) -> Arc<App> {
    let Parts { limiter, readiness, metrics, tokens, rates, origins, demo, bounds } = parts;
    let access = tokens.map_or(Access::Open, Access::Tokens);
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

/// The OpenAPI document, as it is served at `/openapi.json`.
pub fn openapi_document() -> String {
    closed(&documented().spec())
}

fn documented() -> OpenApiService<Apis, ()> {
    OpenApiService::new(idle(), "stream-manager", env!("CARGO_PKG_VERSION")).description(DESCRIPTION)
}

/// The document comes from types alone, but poem-openapi reads it off an API; nobody asks this one.
fn idle() -> Apis {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(ManualClock::default()));
    let (random, metrics) = (StdRng::seed_from_u64(0), Arc::new(Metrics::new()));
    let limiter = Limiter::new(store, clock, random, metrics, Policy::default());
    apis(Arc::new(limiter), Arc::default(), Rates::unbounded(), Access::Open)
}

/// Says of both request bodies that they take no unknown fields: poem-openapi has no word for it. In the text, because
/// only that is the same for JSON and YAML.
fn closed(document: &str) -> String {
    ["StartRequest", "LimitRequest"].into_iter().fold(document.to_owned(), |document, schema| {
        let (json, yaml) = (format!("\"title\": \"{schema}\","), format!("      title: {schema}\n"));
        document
            .replace(&json, &format!("{json}\n        \"additionalProperties\": false,"))
            .replace(&yaml, &format!("{yaml}      additionalProperties: false\n"))
    })
}

type Apis = (StreamsApi, LimitsApi, HealthApi);

fn apis(limiter: Arc<Limiter>, readiness: Arc<Readiness>, rates: Rates, access: Access) -> Apis {
    let streams = StreamsApi { limiter: Arc::clone(&limiter), rates };
    (streams, LimitsApi { limiter }, HealthApi { readiness, access })
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
    App::new(routes, Access::Open, Origins::default(), apart, bounds)
}

/// Swagger UI's page is one file with its scripts in it. It talks to nobody else, and nobody may put it into a frame: people
/// enter tokens there.
const POLICY: (&str, &str) = (
    "content-security-policy",
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const DESCRIPTION: &str = "Limits how many video streams a user watches at once.\n\n\
A player **starts** a stream and gets a slot, renews it by a **heartbeat** every `heartbeatIntervalSeconds`, and \
**stops** it. A slot that is not renewed is free again after `expiresInSeconds`.\n\n\
The rule for players: play unless the answer is 409; stop only on 410 with `restart: \"user\"`; on \
`restart: \"auto\"`, start again; on 5xx or no answer, keep playing until the lease runs out, and keep trying.\n\n\
`userName` says whose streams are counted: any text of 1 to 256 bytes, case-sensitive, percent-encoded. `streamId` is \
what a start answered.\n\n\
Errors are `application/problem+json` (RFC 9457): go by `code`. Every answer has an `X-Request-Id`.";

/// A text that never changes. Cloning it copies no bytes: Swagger UI has over a megabyte of them.
fn text(content_type: &'static str, text: String) -> impl Endpoint<Output = Response> {
    let bytes = hyper::body::Bytes::from(text);
    make_sync(move |_| Response::builder().content_type(content_type).body(bytes.clone()))
}
