//! Calls each operation many times in this process, so that callgrind can count the instructions. `scripts/count-instructions`
//! runs this program and compares the counts with `figures.json`. The program uses no sockets: it counts the work
//! between the point at which hyper passes a request to the service and the point at which the service returns the response to hyper.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement program may panic")]

mod canned_responses;
mod canned_table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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
use stream_manager::events::queue::{self, EventReceiver};
use stream_manager::events::settings::EventSettings;
use stream_manager::events::writer::EventWriter;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::RateLimits;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::pages::Pages;
use stream_manager::http::pipeline::app::App;
use stream_manager::http::pipeline::load_shedding::InFlightLimiter;
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

const SECRET: &str = "a secret shared by issuer and service";

/// Number of counted calls per operation. The same number of uncounted calls runs first, to exclude one-time initialization.
const CALLS: usize = 100;

fn main() {
    let config = |settings: &[(&str, &str)]| {
        let variable = |(name, value): &(&str, &str)| (format!("STREAM_MANAGER__{name}"), (*value).to_owned());
        Config::load(None, settings.iter().map(variable).collect::<HashMap<_, _>>()).unwrap()
    };
    let default_config = config(&[("LOG__FORMAT", "json")]);
    // Use the default log level, because disabled spans would cost nothing.
    _ = telemetry::start(&default_config.log(), |_| None).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();

    let memory = Service::new(&runtime, &default_config, Store::Memory);
    let user = |n: usize| format!("/v1/users/user-{n:04}/streams");
    let each = |request: &dyn Fn(usize) -> Call| (0..2 * CALLS).map(request).collect::<Vec<_>>();
    let start = r#"{"deviceId":"device-01","deviceName":"Living room","contentId":"movie-007"}"#;
    let ids = memory.measure("memory start", 201, each(&|n| Call::new("POST", user(n), start)));
    let stream = |n: usize| format!("{}/{}", user(n), ids[n]["streamId"].as_str().unwrap());
    memory.measure("memory heartbeat", 200, each(&|n| Call::new("POST", format!("{}/heartbeat", stream(n)), "")));
    memory.measure("memory count", 200, each(&|n| Call::new("GET", format!("{}/count", user(n)), "")));
    memory.measure("memory list", 200, each(&|n| Call::new("GET", user(n), "")));
    for _ in 0..2 {
        memory.call(&each(&|n| Call::new("POST", user(n), "")));
    }
    memory.measure("memory start, denied", 409, each(&|n| Call::new("POST", user(n), "")));
    memory.measure("memory stop", 204, each(&|n| Call::new("DELETE", stream(n), "")));

    let auth_config = config(&[
        ("AUTH__MODE", "jwt"),
        ("AUTH__HS256_SECRET", SECRET),
        ("AUTH__ISSUER", "issuer"),
        ("AUTH__AUDIENCE", "audience"),
    ]);
    let with_auth = Service::new(&runtime, &auth_config, Store::Memory);
    let ids = with_auth.call(&each(&|n| Call::new("POST", user(n), "").with_token_of(n)));
    let stream = |n: usize| format!("{}/{}", user(n), ids[n]["streamId"].as_str().unwrap());
    let heartbeat = |n: usize| Call::new("POST", format!("{}/heartbeat", stream(n)), "").with_token_of(n);
    with_auth.measure("memory heartbeat, with a token", 200, each(&heartbeat));

    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let events_config =
        config(&[("EVENTS__SINK", "file"), ("EVENTS__DIRECTORY", directory), ("EVENTS__HASH_KEY", SECRET)]);
    let with_events = Service::new(&runtime, &events_config, Store::Memory);
    let ids = with_events.measure("memory start, with events", 201, each(&|n| Call::new("POST", user(n), start)));
    let stream = |n: usize| format!("{}/{}", user(n), ids[n]["streamId"].as_str().unwrap());
    let heartbeat = |n: usize| Call::new("POST", format!("{}/heartbeat", stream(n)), "");
    with_events.measure("memory heartbeat, with events", 200, each(&heartbeat));
    let with_events = Service::new(&runtime, &events_config, Store::Memory);
    with_events.call(&each(&|n| Call::new("POST", user(n), start))[..CALLS]);
    end_counting(begin_counting_writer(with_events.events.unwrap(), &events_config.events().unwrap()));
    println!("counted event of a start, written");

    let dynamodb = Service::new(&runtime, &default_config, Store::DynamoDb);
    let stream = |n: usize| format!("{}/{}", user(n), canned_responses::STREAM_ID);
    dynamodb.measure("dynamodb start", 201, each(&|n| Call::new("POST", user(n), "")));
    dynamodb.measure("dynamodb start, with a device", 201, each(&|n| Call::new("POST", user(n), OTHER_DEVICE)));
    dynamodb.measure("dynamodb heartbeat", 200, each(&|n| Call::new("POST", format!("{}/heartbeat", stream(n)), "")));
    dynamodb.measure("dynamodb count", 200, each(&|n| Call::new("GET", format!("{}/count", user(n)), "")));
    dynamodb.measure("dynamodb stop", 204, each(&|n| Call::new("DELETE", stream(n), "")));
    println!("calls {CALLS}");
}

const OTHER_DEVICE: &str = r#"{"deviceId":"device-03","deviceName":"Living room","contentId":"movie-007"}"#;

/// A request that calls an operation.
struct Call {
    method: &'static str,
    path: String,
    body: &'static str,
    token: Option<String>,
}

impl Call {
    fn new(method: &'static str, path: String, body: &'static str) -> Self {
        Self { method, path, body, token: None }
    }

    /// Adds the bearer token of user `n`.
    fn with_token_of(self, n: usize) -> Self {
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
        request.body(Full::from(self.body)).unwrap()
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
    /// The recorded events. Nothing takes them, because the thread of a writer would run at other moments in each run.
    events: Option<EventReceiver>,
}

impl<'a> Service<'a> {
    fn new(runtime: &'a Runtime, config: &Config, store: Store) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_epoch_ms(1_790_000_000_000)));
        let metrics = Arc::new(Metrics::new());
        let store: Arc<dyn LeaseStore> = match store {
            Store::Memory => Arc::new(MemoryStore::new()),
            Store::DynamoDb => {
                let client = client::in_process(&config.client(), SharedHttpClient::new(canned_table::CannedTable));
                let interceptor = MetricsInterceptor::new(metrics.store.clone(), clock.clone());
                Arc::new(DynamoStore::new(client::with_metrics(&client, interceptor), &config.dynamodb.table))
            }
        };
        let tokens = config
            .tokens()
            .map(|settings| runtime.block_on(TokenVerifier::open(settings, clock.clone(), Arc::clone(&metrics))));
        let random = StdRng::seed_from_u64(7);
        let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), config.policy());
        let events = config.events().map(|_| queue::queue(Arc::clone(&metrics), clock.clone()));
        let (sender, events) = events.unzip();
        let readiness = Arc::new(Readiness::default());
        readiness.mark_store_seen();
        let app = http::app(AppDeps {
            limiter: Arc::new(limiter.with_events(sender)),
            readiness,
            in_flight: InFlightLimiter::new(config.bounds().max_in_flight, &metrics),
            metrics,
            tracer: None,
            tokens: tokens.map(|tokens| Arc::new(tokens.unwrap())),
            grants: None,
            rates: Arc::new(RateLimits::new(config.rate(), &(Arc::clone(&clock) as _))),
            cors: Arc::default(),
            pages: Pages { demo: false, swagger: true },
            bounds: config.bounds(),
        })
        .unwrap();
        Self { runtime, app, clock, events }
    }

    /// Counts the instructions of the second half of the calls. The first half is the warm-up.
    fn measure(&self, operation: &str, status: u16, calls: Vec<Call>) -> Vec<Value> {
        let requests: Vec<_> = calls.iter().map(Call::request).collect();
        let mut requests = requests.into_iter();
        let warm_up: Vec<_> = requests.by_ref().take(CALLS).collect();
        let mut responses = self.runtime.block_on(self.handle_all(warm_up));
        responses.extend(end_counting(begin_counting(self, requests.collect())));
        assert!(responses.iter().all(|response| response.status() == status), "{operation}: {:?}", responses[0]);
        println!("counted {operation}");
        self.bodies(responses)
    }

    fn call(&self, calls: &[Call]) -> Vec<Value> {
        self.bodies(self.runtime.block_on(self.handle_all(calls.iter().map(Call::request).collect())))
    }

    async fn handle_all(&self, requests: Vec<Request<Full<Bytes>>>) -> Vec<Response> {
        let mut responses = Vec::with_capacity(requests.len());
        for request in requests {
            // Advance the clock, because a heartbeat in the same millisecond would not extend the lease.
            self.clock.advance_ms(1);
            responses.push(self.app.handle(request).await);
        }
        responses
    }

    fn bodies(&self, responses: Vec<Response>) -> Vec<Value> {
        let body = |mut response: Response| {
            let body = self.runtime.block_on(response.take_body().into_vec()).unwrap();
            serde_json::from_slice(&body).unwrap_or_default()
        };
        responses.into_iter().map(body).collect()
    }
}

/// Callgrind starts counting when this function is called. `scripts/count-instructions` finds it by a pattern, which
/// would also match the symbol of a closure in this function. Therefore, it must not contain a closure.
#[inline(never)]
fn begin_counting(service: &Service<'_>, requests: Vec<Request<Full<Bytes>>>) -> Vec<Response> {
    service.runtime.block_on(service.handle_all(requests))
}

/// The same for the writer of events. It converts, hashes and writes the recorded events, and then ends.
#[inline(never)]
fn begin_counting_writer(events: EventReceiver, settings: &EventSettings) -> Vec<Response> {
    let writer = EventWriter::start(settings, uuid::Uuid::nil(), events).unwrap();
    assert!(writer.shutdown(Duration::from_secs(60)));
    Vec::new()
}

/// Callgrind stops counting when this function is called.
#[inline(never)]
fn end_counting(responses: Vec<Response>) -> Vec<Response> {
    std::hint::black_box(responses)
}
