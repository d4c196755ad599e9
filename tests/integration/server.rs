//! A server on a port of its own, on the memory store and a clock that stands still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::domain::lease::Timestamp;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::{RateSettings, Rates};
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::pipeline::app::Bounds;
use stream_manager::http::pipeline::cors::Origins;
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

pub struct TestServer {
    pub address: std::net::SocketAddr,
    pub clock: Arc<ManualClock>,
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    client: reqwest::Client,
    document: Value,
    pub stop: CancellationToken,
    pub serving: JoinHandle<bool>,
}

/// What a server is started with.
pub struct Setup {
    pub store: Arc<dyn LeaseStore>,
    pub clock: Arc<ManualClock>,
    pub tokens: Option<Arc<TokenVerifier>>,
    pub rates: RateSettings,
    pub origins: Vec<String>,
    pub demo: bool,
    pub bounds: Bounds,
    pub settings: ServerSettings,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(ManualClock::at(Timestamp::from_epoch_ms(1_790_000_000_000))),
            tokens: None,
            rates: RateSettings { starts_per_minute: None, heartbeats_per_minute: None, max_users: 100 },
            origins: Vec::new(),
            demo: true,
            bounds: BOUNDS,
            settings: SETTINGS,
        }
    }
}

/// An answer as tests compare it: without what differs each time.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

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

impl TestServer {
    pub async fn start() -> Self {
        Self::set_up(Setup::default()).await
    }

    pub async fn on(store: Arc<dyn LeaseStore>, bounds: Bounds) -> Self {
        Self::set_up(Setup { store, bounds, ..Setup::default() }).await
    }

    pub async fn with_clock(store: Arc<dyn LeaseStore>, clock: Arc<ManualClock>, bounds: Bounds) -> Self {
        Self::set_up(Setup { store, clock, bounds, ..Setup::default() }).await
    }

    /// One that asks for tokens.
    pub async fn with_tokens(tokens: Arc<TokenVerifier>) -> Self {
        Self::set_up(Setup { tokens: Some(tokens), ..Setup::default() }).await
    }

    pub async fn set_up(setup: Setup) -> Self {
        let Setup { store, clock, tokens, rates, origins, demo, bounds, settings } = setup;
        let metrics = Arc::new(Metrics::new());
        let random = StdRng::seed_from_u64(7);
        let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), Policy::default());
        let readiness = Arc::new(Readiness::watching(Arc::clone(&metrics.store.clock_skew)));
        let app = http::app(AppDeps {
            limiter: Arc::new(limiter),
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            tokens,
            rates: Rates::new(rates, &(Arc::clone(&clock) as _)),
            origins: Origins::new(&origins),
            demo,
            bounds,
        })
        .expect("an app");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(listener, app, settings, stop.clone()));
        let client =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        let document = serde_json::from_str(&http::api::openapi::openapi_document()).expect("a document");
        Self { address, clock, readiness, metrics, client, document, stop, serving }
    }

    pub async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, &[], Vec::new()).await
    }

    pub async fn json(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let name = method.to_ascii_lowercase();
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, format!("http://{}{path}", self.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        assert!(self.documents(&name, path, status), "{name} {path} must not answer {status}");
        let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        assert_eq!(text("cache-control").as_deref(), Some("no-store"), "on every answer");
        assert_eq!(text("x-content-type-options").as_deref(), Some("nosniff"), "on every answer");
        let request_id = text("x-request-id").expect("on every answer");
        let hidden = ["cache-control", "content-length", "date", "x-content-type-options", "x-request-id"];
        let shown = response.headers().keys().map(|name| name.as_str()).filter(|name| !hidden.contains(name));
        let headers = shown.filter_map(|name| Some((name.to_owned(), text(name)?))).collect();
        let body = response.bytes().await.expect("a body");
        let mut body = match serde_json::from_slice(&body) {
            Ok(json) => json,
            Err(_) => json!(String::from_utf8_lossy(&body)),
        };
        if status >= 400 {
            assert_eq!(body["instance"], format!("urn:stream-manager:request:{request_id}"));
            assert_eq!(body["status"], status);
            body["instance"] = json!("urn:stream-manager:request:…");
        }
        Answer { status, headers, body }
    }

    /// Whether the OpenAPI document says that this call can be answered so. What it knows no operation for, it says
    /// nothing about.
    fn documents(&self, method: &str, path: &str, status: u16) -> bool {
        let path = path.split('?').next().expect("a path");
        let matches = |template: &str| {
            let (mut parts, mut given) = (template.split('/'), path.split('/'));
            let fits = parts.by_ref().all(|part| given.next().is_some_and(|p| part.starts_with('{') || part == p));
            fits && given.next().is_none()
        };
        let paths = self.document["paths"].as_object().expect("paths");
        let mut found: Vec<&String> = paths.keys().filter(|template| matches(template)).collect();
        found.sort_by_key(|template| template.matches('{').count());
        let operation = found.first().map_or(&Value::Null, |template| &paths[template.as_str()][method]);
        operation.is_null() || operation["responses"].get(status.to_string()).is_some()
    }

    /// For what no HTTP client would send: writes bytes as they are and reads until the server closes.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("a write");
        let mut answer = Vec::new();
        _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("it closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A GET whose path is sent as it stands.
    pub async fn raw_get(&self, path: &str) -> (u16, Value) {
        let answer = self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split("\r\n\r\n").nth(1).and_then(|body| serde_json::from_str(body).ok());
        (status, body.unwrap_or_default())
    }

    /// Starts a stream and gives its id.
    pub async fn started(&self, user: &str, body: Value) -> String {
        let answer = self.json("POST", &format!("/v1/users/{user}/streams"), body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["streamId"].as_str().expect("an id").to_owned()
    }
}
