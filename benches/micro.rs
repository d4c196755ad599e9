//! The parts of a request one by one: the rules, the items' codec, JSON with all that is around it in this process, and the check of a
//! token. `cargo bench --bench micro`, and `-- token` for those with that in their name.

#![allow(clippy::expect_used, reason = "a benchmark")]

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use criterion::Criterion;
use http_body_util::Full;
use hyper::body::Bytes;
use poem::http::Request;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use stream_manager::clock::{ManualClock, SystemClock};
use stream_manager::config::Config;
use stream_manager::domain::admission::{AtLimit, Guard, Snapshot, StartRequest, decide};
use stream_manager::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{Label, StreamId, UserName};
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::Rates;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{KeySource, TokenSettings};
use stream_manager::http::pipeline::app::App;
use stream_manager::http::pipeline::cors::Origins;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::Limiter;
use stream_manager::store::dynamodb::codec;
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/integration/tokens/issuer.rs"]
mod issuer;

const NOW: Timestamp = Timestamp::from_epoch_ms(1_790_000_000_000);
const SECRET: &str = "a secret that issuer and service share";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    rules(&mut criterion);
    codec(&mut criterion);
    answers(&mut criterion, &runtime);
    tokens(&mut criterion, &runtime);
    criterion.final_summary();
}

fn rules(criterion: &mut Criterion) {
    for held in [1, 3, 50] {
        let leases: Vec<Lease> = (0..held).map(|n| request(n, AtLimit::Reject).lease(NOW)).collect();
        let members: Vec<StreamId> = leases.iter().map(|lease| lease.stream_id).collect();
        let guard = Guard { revision: Some(7), own_limit: StreamLimit::new(u64::from(held)) };
        let snapshot = Snapshot { guard, members: &members, leases: &leases };
        for (how, at_limit) in [("denied", AtLimit::Reject), ("evicting", AtLimit::EvictOldest)] {
            let request = request(100, at_limit);
            criterion.bench_function(&format!("decide, {held} held, {how}"), |b| {
                b.iter(|| decide(black_box(&snapshot), black_box(&request), NOW));
            });
        }
    }
}

fn codec(criterion: &mut Criterion) {
    let (user, lease) = (UserName::parse("user-0000").expect("a name"), request(1, AtLimit::Reject).lease(NOW));
    let item = codec::encode_lease(&user, &lease);
    criterion.bench_function("item of a lease, encoded", |b| {
        b.iter(|| codec::encode_lease(black_box(&user), black_box(&lease)));
    });
    criterion.bench_function("item of a lease, decoded", |b| {
        b.iter(|| codec::decode_lease(black_box(&item)).expect("a lease"));
    });
    criterion.bench_function("item of a lease, decoded as renewed", |b| {
        b.iter(|| codec::decode_renewed(black_box(&item), NOW.plus_s(90), 1_790_003_690).expect("a lease"));
    });
}

/// From a request with its JSON to an answer with its own, on the memory store.
fn answers(criterion: &mut Criterion, runtime: &Runtime) {
    let app = app();
    let start = br#"{"deviceName":"Living room","contentId":"movie-007"}"#.as_slice();
    let ask = |method: &str, path: &str, body: &'static [u8]| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from_static(body)));
        runtime.block_on(async {
            let mut answer = app.handle(request.expect("a request")).await;
            let body = answer.take_body().into_vec().await.expect("a body");
            (answer.status().as_u16(), body)
        })
    };
    let mut id = String::new();
    for _ in 0..3 {
        let (status, body) = ask("POST", "/v1/users/ann/streams", start);
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, 201, "{body}");
        body["streamId"].as_str().expect("an id").clone_into(&mut id);
    }
    let stream = format!("/v1/users/ann/streams/{id}");
    for (name, method, path, body, status) in [
        ("answer to a start with a body, denied", "POST", "/v1/users/ann/streams", start, 409),
        ("answer to a look at a stream", "GET", &stream, b"".as_slice(), 200),
        ("answer to a list of three", "GET", "/v1/users/ann/streams", b"", 200),
        ("answer to a count", "GET", "/v1/users/ann/streams/count", b"", 200),
    ] {
        criterion.bench_function(name, |b| b.iter(|| assert_eq!(ask(method, path, body).0, status)));
    }
}

fn tokens(criterion: &mut Criterion, runtime: &Runtime) {
    let claims = json!({ "iss": "issuer", "aud": "audience", "sub": "ann", "exp": 4_000_000_000_u32 });
    let by_secret = issuer::token(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, |message| {
        issuer::hs256(SECRET.as_bytes(), message)
    });
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let (rsa, p256) = (issuer::Key::rsa("rsa"), issuer::Key::p256("p256"));
    write!(file, "{}", json!({ "keys": [rsa.jwk(), p256.jwk()] })).expect("a write");
    for (algorithm, keys, token) in [
        ("HS256", KeySource::Secret(SECRET.into()), by_secret),
        ("RS256", KeySource::File(file.path().to_owned()), rsa.token_by("RS256", &claims)),
        ("ES256", KeySource::File(file.path().to_owned()), p256.token_by("ES256", &claims)),
    ] {
        let settings = TokenSettings {
            keys,
            algorithms: vec!["RS256".to_owned(), "ES256".to_owned()],
            issuer: "issuer".to_owned(),
            audience: vec!["audience".to_owned()],
            user_claim: "sub".to_owned(),
            limit_claim: "max_streams".to_owned(),
            admin_scope: "streams:admin".to_owned(),
        };
        let tokens = runtime.block_on(TokenVerifier::open(settings, Arc::new(SystemClock))).expect("keys");
        criterion.bench_function(&format!("token check, {algorithm}"), |b| {
            b.iter(|| runtime.block_on(tokens.check(black_box(&token))).expect("a good token"));
        });
    }
}

fn app() -> Arc<App> {
    let config = Config::load(None, HashMap::new()).expect("settings");
    let (clock, metrics) = (Arc::new(ManualClock::at(NOW)), Arc::new(Metrics::new()));
    let (store, random) = (Arc::new(MemoryStore::new()), StdRng::seed_from_u64(7));
    let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), config.policy());
    http::app(AppDeps {
        limiter: Arc::new(limiter),
        readiness: Arc::new(Readiness::default()),
        metrics,
        tokens: None,
        rates: Rates::unbounded(),
        origins: Origins::default(),
        demo: false,
        bounds: config.bounds(),
    })
    .expect("an app")
}

fn request(n: u8, at_limit: AtLimit) -> StartRequest {
    StartRequest {
        stream_id: StreamId::random([n; 16]),
        fingerprint: None,
        device_id: Label::parse("device-01").ok().filter(|_| n == 1),
        device_name: Label::parse("Living room").ok(),
        content_id: Label::parse("movie-007").ok(),
        replaces: Vec::new(),
        at_limit,
        token_limit: None,
        default_limit: StreamLimit::DEFAULT,
        terms: LeaseTerms { duration_s: 90, retention_s: 3600 },
    }
}
