//! Every verb many times in this process, for callgrind to count the instructions of: `scripts/instructions` runs it, and says
//! what it is held to. No network and no socket: from a request as hyper gives it to the answer as hyper takes it.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program for measurements may stop by panicking")]

mod answers;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_sdk_dynamodb::config::SharedHttpClient;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::Bytes;
use poem::Response;
use poem::http::Request;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::config::Config;
use stream_manager::domain::lease::Timestamp;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::Rates;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::pipeline::app::App;
use stream_manager::http::pipeline::cors::Origins;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::Limiter;
use stream_manager::store::LeaseStore;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client;
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry;
use stream_manager::telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};

const SECRET: &str = "a secret that issuer and service share";

/// Of each verb that are counted; as many come before them, so that what is made once is there.
const CALLS: usize = 100;

fn main() {
    let config = |settings: &[(&str, &str)]| {
        let variable = |(name, value): &(&str, &str)| (format!("STREAM_MANAGER__{name}"), (*value).to_owned());
        Config::load(None, settings.iter().map(variable).collect::<HashMap<_, _>>()).expect("settings")
    };
    let open = config(&[("LOG__FORMAT", "json")]);
    // With the log as it is by default, because spans that nobody looks at cost nothing.
    _ = telemetry::start(&open.log(), |_| None).expect("a log");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");

    let memory = Service::new(&runtime, &open, Store::Memory);
    let user = |n: usize| format!("/v1/users/user-{n:04}/streams");
    let each = |request: &dyn Fn(usize) -> Asked| (0..2 * CALLS).map(request).collect::<Vec<_>>();
    let start = r#"{"deviceId":"device-01","deviceName":"Living room","contentId":"movie-007"}"#;
    let ids = memory.measure("memory start", 201, each(&|n| Asked::new("POST", user(n), start)));
    let stream = |n: usize| format!("{}/{}", user(n), ids[n]["streamId"].as_str().expect("an id"));
    memory.measure("memory heartbeat", 200, each(&|n| Asked::new("POST", format!("{}/heartbeat", stream(n)), "")));
    memory.measure("memory count", 200, each(&|n| Asked::new("GET", format!("{}/count", user(n)), "")));
    memory.measure("memory list", 200, each(&|n| Asked::new("GET", user(n), "")));
    for _ in 0..2 {
        memory.answers(&each(&|n| Asked::new("POST", user(n), "")));
    }
    memory.measure("memory start, denied", 409, each(&|n| Asked::new("POST", user(n), "")));
    memory.measure("memory stop", 204, each(&|n| Asked::new("DELETE", stream(n), "")));

    let guarded = config(&[
        ("AUTH__MODE", "jwt"),
        ("AUTH__HS256_SECRET", SECRET),
        ("AUTH__ISSUER", "issuer"),
        ("AUTH__AUDIENCE", "audience"),
    ]);
    let guarded = Service::new(&runtime, &guarded, Store::Memory);
    let ids = guarded.answers(&each(&|n| Asked::new("POST", user(n), "").by_token(n)));
    let stream = |n: usize| format!("{}/{}", user(n), ids[n]["streamId"].as_str().expect("an id"));
    let heartbeat = |n: usize| Asked::new("POST", format!("{}/heartbeat", stream(n)), "").by_token(n);
    guarded.measure("memory heartbeat, with a token", 200, each(&heartbeat));

    let shared = Service::new(&runtime, &open, Store::DynamoDb);
    let stream = |n: usize| format!("{}/{}", user(n), answers::STREAM_ID);
    shared.measure("dynamodb start", 201, each(&|n| Asked::new("POST", user(n), "")));
    shared.measure("dynamodb start, of a device", 201, each(&|n| Asked::new("POST", user(n), OTHER_DEVICE)));
    shared.measure("dynamodb heartbeat", 200, each(&|n| Asked::new("POST", format!("{}/heartbeat", stream(n)), "")));
    shared.measure("dynamodb count", 200, each(&|n| Asked::new("GET", format!("{}/count", user(n)), "")));
    shared.measure("dynamodb stop", 204, each(&|n| Asked::new("DELETE", stream(n), "")));
    println!("calls {CALLS}");
}

const OTHER_DEVICE: &str = r#"{"deviceId":"device-03","deviceName":"Living room","contentId":"movie-007"}"#;

/// A request as a client words it.
struct Asked {
    method: &'static str,
    path: String,
    body: &'static str,
    token: Option<String>,
}

impl Asked {
    fn new(method: &'static str, path: String, body: &'static str) -> Self {
        Self { method, path, body, token: None }
    }

    /// With the token of user `n`.
    fn by_token(self, n: usize) -> Self {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let claims =
            json!({ "iss": "issuer", "aud": "audience", "sub": format!("user-{n:04}"), "exp": 4_000_000_000_u32 });
        let message = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
        Self { token: Some(format!("Bearer {message}.{signature}")), ..self }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let request = Request::builder().method(self.method).uri(&self.path);
        let mut request = request.header("host", "localhost:8080").header("user-agent", "player/1.0");
        if !self.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        request.body(Full::from(self.body)).expect("a request")
    }
}

enum Store {
    Memory,
    DynamoDb,
}

struct Service<'a> {
    runtime: &'a Runtime,
    app: Arc<App>,
    clock: Arc<ManualClock>,
}

impl<'a> Service<'a> {
    fn new(runtime: &'a Runtime, config: &Config, store: Store) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_epoch_ms(1_790_000_000_000)));
        let metrics = Arc::new(Metrics::new());
        let store: Arc<dyn LeaseStore> = match store {
            Store::Memory => Arc::new(MemoryStore::new()),
            Store::DynamoDb => {
                let client = client::in_process(&config.client(), SharedHttpClient::new(table::Table));
                let observer = MetricsInterceptor::new(metrics.store.clone(), clock.clone());
                Arc::new(DynamoStore::new(client::with_metrics(&client, observer), &config.dynamodb.table))
            }
        };
        let tokens = config.tokens().map(|settings| runtime.block_on(TokenVerifier::open(settings, clock.clone())));
        let random = StdRng::seed_from_u64(7);
        let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), config.policy());
        let readiness = Arc::new(Readiness::default());
        readiness.store_seen();
        let app = http::app(AppDeps {
            limiter: Arc::new(limiter),
            readiness,
            metrics,
            tokens: tokens.map(|tokens| Arc::new(tokens.expect("keys"))),
            rates: Rates::new(config.rate(), &(Arc::clone(&clock) as _)),
            origins: Origins::default(),
            demo: false,
            bounds: config.bounds(),
        })
        .expect("an app");
        Self { runtime, app, clock }
    }

    /// The first half of the calls warms up, the second is counted.
    fn measure(&self, verb: &str, status: u16, asked: Vec<Asked>) -> Vec<Value> {
        let requests: Vec<_> = asked.iter().map(Asked::request).collect();
        let mut requests = requests.into_iter();
        let warm: Vec<_> = requests.by_ref().take(CALLS).collect();
        let mut answers = self.runtime.block_on(self.each(warm));
        answers.extend(counting_ends(counting_begins(self, requests.collect())));
        assert!(answers.iter().all(|answer| answer.status() == status), "{verb}: {:?}", answers[0]);
        println!("counted {verb}");
        self.bodies(answers)
    }

    fn answers(&self, asked: &[Asked]) -> Vec<Value> {
        self.bodies(self.runtime.block_on(self.each(asked.iter().map(Asked::request).collect())))
    }

    async fn each(&self, requests: Vec<Request<Full<Bytes>>>) -> Vec<Response> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            // A heartbeat of the same instant renews nothing.
            self.clock.advance_ms(1);
            answers.push(self.app.handle(request).await);
        }
        answers
    }

    fn bodies(&self, answers: Vec<Response>) -> Vec<Value> {
        let body = |mut answer: Response| {
            let body = self.runtime.block_on(answer.take_body().into_vec()).expect("a body");
            serde_json::from_slice(&body).unwrap_or_default()
        };
        answers.into_iter().map(body).collect()
    }
}

/// Callgrind counts from here by this name; no closure, which would bear it too.
#[inline(never)]
fn counting_begins(service: &Service<'_>, requests: Vec<Request<Full<Bytes>>>) -> Vec<Response> {
    service.runtime.block_on(service.each(requests))
}

/// To here.
#[inline(never)]
fn counting_ends(answers: Vec<Response>) -> Vec<Response> {
    std::hint::black_box(answers)
}
