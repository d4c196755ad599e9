//! Builds the application from its parts, and serves it on a free port. The clock stands still unless a test moves it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde_json::{Value, json};
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::lease::Timestamp;
use stream_manager::events::queue;
use stream_manager::events::settings::EventSettings;
use stream_manager::events::writer::EventWriter;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::openapi::openapi_document;
use stream_manager::http::api::rate_limits::{RateLimits, RateSettings};
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::grants::authority::GrantAuthority;
use stream_manager::http::pages::Pages;
use stream_manager::http::pipeline::app::{App, Bounds};
use stream_manager::http::pipeline::cors::{Cors, CorsSettings};
use stream_manager::http::pipeline::load_shedding::InFlightLimiter;
use stream_manager::http::server::{self, ServerSettings};
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::LeaseStore;
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fault_injector::FaultInjector;
use crate::support::Fixture;

/// Builds an application. A test sets the fields that it needs: `TestApp { rates, ..TestApp::default() }`.
pub struct TestApp {
    pub store: Arc<dyn LeaseStore>,
    pub clock: Arc<ManualClock>,
    /// `None` disables authentication.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// `None` if grants are off.
    pub grants: Option<Arc<GrantAuthority>>,
    /// `None` if events are off.
    pub events: Option<EventSettings>,
    pub policy: Policy,
    pub rates: RateSettings,
    pub cors: CorsSettings,
    pub pages: Pages,
    pub bounds: Bounds,
    pub settings: ServerSettings,
}

impl Default for TestApp {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(ManualClock::at(Timestamp::from_epoch_ms(1_790_000_000_000))),
            tokens: None,
            grants: None,
            events: None,
            policy: Policy::default(),
            rates: RateSettings { starts_per_minute: None, heartbeats_per_minute: None, max_users: 100 },
            cors: CorsSettings::default(),
            pages: Pages { demo: true, swagger: true },
            bounds: BOUNDS,
            settings: SETTINGS,
        }
    }
}

/// The URL path of the streams of the user `ann`, whom most tests use.
pub const STREAMS: &str = "/v1/users/ann/streams";
/// The id of a stream that does not exist.
pub const UNKNOWN_ID: &str = "6fa459ea-ee8a-4ca4-894e-db77e160355e";

pub const BOUNDS: Bounds = Bounds {
    max_uri_bytes: 4096,
    max_body_bytes: 16384,
    max_in_flight: 64,
    request_timeout: Duration::from_millis(900),
};

pub const SETTINGS: ServerSettings = ServerSettings {
    header_read_timeout: Duration::from_millis(500),
    write_timeout: Duration::from_millis(500),
    max_head_bytes: 32 * 1024,
    max_headers: 64,
    max_connections: 100,
    drain: Duration::from_secs(2),
};

/// An application without a network listener.
pub struct BuiltApp {
    pub app: Arc<App>,
    pub limiter: Arc<Limiter>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    pub event_writer: Option<EventWriter>,
}

impl TestApp {
    pub fn build(self) -> BuiltApp {
        let clock = Arc::clone(&self.clock);
        self.build_with_clock(clock)
    }

    pub fn build_with_clock(self, clock: Arc<dyn Clock>) -> BuiltApp {
        let metrics = Arc::new(Metrics::new());
        let random = StdRng::seed_from_u64(7);
        let limiter = Limiter::new(self.store, Arc::clone(&clock), random, Arc::clone(&metrics), self.policy);
        let events = self.events.map(|settings| {
            let (sender, receiver) = queue::queue(Arc::clone(&metrics), Arc::clone(&clock));
            (sender, EventWriter::start(&settings, uuid::Uuid::new_v4(), receiver).unwrap())
        });
        let (sender, event_writer) = events.unzip();
        let limiter = Arc::new(limiter.with_events(sender));
        let readiness = Arc::new(Readiness::with_clock_skew(Arc::clone(&metrics.store.clock_skew)));
        let app = http::app(AppDeps {
            limiter: Arc::clone(&limiter),
            readiness: Arc::clone(&readiness),
            in_flight: InFlightLimiter::new(self.bounds.max_in_flight, &metrics),
            metrics: Arc::clone(&metrics),
            tracer: None,
            tokens: self.tokens,
            grants: self.grants,
            rates: Arc::new(RateLimits::new(self.rates, &clock)),
            cors: Arc::new(Cors::new(&self.cors, clock)),
            pages: self.pages,
            bounds: self.bounds,
        })
        .unwrap();
        BuiltApp { app, limiter, readiness, metrics, event_writer }
    }

    /// Serves the application on a free port.
    pub async fn serve(self) -> TestServer {
        let (clock, settings) = (Arc::clone(&self.clock), self.settings);
        let BuiltApp { app, readiness, metrics, event_writer, .. } = self.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(listener, app, settings, stop.clone()));
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        TestServer { address, clock, readiness, metrics, event_writer, client, document: openapi(), stop, serving }
    }
}

/// A running server, and a client for it.
pub struct TestServer {
    pub address: SocketAddr,
    pub clock: Arc<ManualClock>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    pub event_writer: Option<EventWriter>,
    client: reqwest::Client,
    document: Value,
    /// Starts the graceful shutdown.
    pub stop: CancellationToken,
    /// Completes when the server ends. True if it ended within the drain time.
    pub serving: JoinHandle<bool>,
}

/// A response without the headers that differ from request to request, so that it is suitable for snapshots.
#[derive(Clone, Debug, Serialize)]
pub struct TestResponse {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl TestResponse {
    /// Asserts the status and the problem code.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str, context: &str) {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{context}: {self:?}");
    }

    /// The body as text, for HTML, YAML, CSS and scripts.
    pub fn text(&self) -> &str {
        self.body.as_str().unwrap()
    }
}

impl TestServer {
    /// A server on the memory store with default dependencies.
    pub async fn start() -> Self {
        TestApp::default().serve().await
    }

    /// A server on an embedded store, with a fault injector between them. The store makes one attempt per request.
    pub async fn with_faults(bounds: Bounds) -> (Self, FaultInjector, Fixture) {
        let (faults, fixture) = FaultInjector::on_embedded().await;
        let store = Arc::new(faults.store(1));
        (TestApp { store, bounds, ..TestApp::default() }.serve().await, faults, fixture)
    }

    pub async fn call(&self, method: &str, path: &str) -> TestResponse {
        self.send(method, path, &[], Vec::new()).await
    }

    pub async fn json(&self, method: &str, path: &str, body: Value) -> TestResponse {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> TestResponse {
        let name = method.to_ascii_lowercase();
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("http://{}{path}", self.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        assert!(self.is_documented(&name, path, status), "{name} {path}: {status} is not in the OpenAPI document");
        let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let is_document = ["/openapi", "/swagger", "/demo"].iter().any(|prefix| path.starts_with(prefix));
        let cached = match status < 400 {
            true if is_document => "no-cache",
            true if path == "/.well-known/jwks.json" => "public, max-age=300",
            _ => "no-store",
        };
        assert_eq!(text("cache-control").as_deref(), Some(cached), "{path}");
        assert_eq!(text("x-content-type-options").as_deref(), Some("nosniff"), "on every response");
        let request_id = text("x-request-id").unwrap();
        let hidden = ["cache-control", "content-length", "date", "x-content-type-options", "x-request-id"];
        let shown = response.headers().keys().map(|name| name.as_str()).filter(|name| !hidden.contains(name));
        let headers = shown.filter_map(|name| Some((name.to_owned(), text(name)?))).collect();
        let body = response.bytes().await.unwrap();
        let mut body = match serde_json::from_slice(&body) {
            Ok(json) => json,
            Err(_) => json!(String::from_utf8_lossy(&body)),
        };
        if status >= 400 {
            assert_eq!(body["instance"], format!("urn:stream-manager:request:{request_id}"));
            assert_eq!(body["status"], status);
            body["instance"] = json!("urn:stream-manager:request:…");
        }
        TestResponse { status, headers, body }
    }

    /// True if the OpenAPI document lists this status for the operation, or does not contain the operation.
    fn is_documented(&self, method: &str, path: &str, status: u16) -> bool {
        let path = path.split('?').next().unwrap();
        let matches = |template: &str| {
            let (parts, segments): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            let mut pairs = parts.iter().zip(&segments);
            parts.len() == segments.len() && pairs.all(|(part, segment)| part.starts_with('{') || part == segment)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let mut found: Vec<&String> = paths.keys().filter(|template| matches(template)).collect();
        found.sort_by_key(|template| template.matches('{').count());
        let operation = found.first().map_or(&Value::Null, |template| &paths[template.as_str()][method]);
        operation.is_null() || operation["responses"].get(status.to_string()).is_some()
    }

    /// Sends a request that no HTTP client would send, and reads until the server closes the connection.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut response)).await.unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }

    /// Sends a GET request with exactly this path. An HTTP client might normalize it.
    pub async fn raw_get(&self, path: &str) -> (u16, Value) {
        let response = self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = response.split("\r\n\r\n").nth(1).and_then(|body| serde_json::from_str(body).ok());
        (status, body.unwrap_or_default())
    }

    /// Starts a stream and returns its id.
    pub async fn start_stream(&self, user: &str, body: Value) -> String {
        let response = self.json("POST", &format!("/v1/users/{user}/streams"), body).await;
        assert_eq!(response.status, 201, "{response:?}");
        response.body["streamId"].as_str().unwrap().to_owned()
    }
}

/// The OpenAPI document of the service.
pub fn openapi() -> Value {
    serde_json::from_str(&openapi_document().unwrap().json).unwrap()
}
