//! Measures single steps of a request: the admission decision, the DynamoDB item codec, request handling without a network, and
//! token verification. Run all benchmarks with `cargo bench --bench micro`, or only those with "token" in their name with
//! `cargo bench --bench micro -- token`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use criterion::Criterion;
use http_body_util::Full;
use hyper::body::Bytes;
use poem::http::Request;
use serde_json::json;
use stream_manager::clock::SystemClock;
use stream_manager::domain::admission::{AtLimit, Guard, Snapshot, StartRequest, decide};
use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::lease::{Lease, StreamLimit};
use stream_manager::domain::names::{DeviceId, DisplayText, StreamId};
use stream_manager::domain::rules::{LimitMode, MAX_RULES, Rule, RuleName};
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{KeySource, TokenSettings};
use stream_manager::store::HeartbeatRequest;
use stream_manager::store::dynamodb::codec;
use support::apps::apps;
use support::fixtures::{NOW, TERMS, start_request, user};
use tokio::runtime::{Builder, Runtime};

#[allow(dead_code, clippy::expect_used, reason = "shared with the tests")]
#[path = "../tests/integration/tokens/issuer.rs"]
mod issuer;

/// The allocator of the service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a secret shared by issuer and service";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    decisions(&mut criterion);
    decisions_by_rules(&mut criterion);
    codec(&mut criterion);
    responses(&mut criterion, &runtime);
    tokens(&mut criterion, &runtime);
    criterion.final_summary();
}

fn decisions(criterion: &mut Criterion) {
    for held in [1, 3, 50] {
        let leases: Vec<Lease> = (0..held).map(|n| named_request(n).lease(NOW)).collect();
        let members: Vec<StreamId> = leases.iter().map(|lease| lease.stream_id).collect();
        let guard = Guard { revision: Some(7), stored_limit: StreamLimit::new(held) };
        let snapshot = Snapshot { guard, members: &members, leases: &leases };
        for (outcome, at_limit) in [("denied", AtLimit::Reject), ("evicting", AtLimit::EvictOldest)] {
            let request = StartRequest { at_limit, ..named_request(100) };
            criterion.bench_function(&format!("decide, {held} leases, {outcome}"), |b| {
                b.iter(|| decide(black_box(&snapshot), black_box(&request), NOW));
            });
        }
    }
}

/// The largest decisions: 16 rules apply to the start, and each lease has 8 labels. With 49 leases, no rule denies the start. With 50
/// leases, each rule does, so the time at which a slot becomes free depends on all of them.
fn decisions_by_rules(criterion: &mut Criterion) {
    let name = |n: usize| LabelName::parse(&format!("label_{n}")).unwrap();
    let label = |n: usize| (name(n), LabelValue::parse(&format!("value-{n}")).unwrap());
    let rule = |n: usize| Rule {
        name: RuleName::parse(&format!("rule {n}")).unwrap(),
        max: StreamLimit::new(50).unwrap(),
        labels: Labels::new([label(n % 7), label((n + 1) % 7)].into()).unwrap(),
        per: Some(name(7)),
        mode: LimitMode::Enforce,
    };
    let labels = Labels::new((0..Labels::MAX).map(label).collect()).unwrap();
    let request = |n: u64| StartRequest {
        labels: labels.clone(),
        rules: (0..MAX_RULES).map(rule).collect(),
        default_limit: StreamLimit::new(50).unwrap(),
        ..named_request(n)
    };
    for (held, outcome, at_limit) in
        [(49, "admitted", AtLimit::Reject), (50, "denied", AtLimit::Reject), (50, "evicting", AtLimit::EvictOldest)]
    {
        let leases: Vec<Lease> = (0..held).map(|n| request(n).lease(NOW)).collect();
        let members: Vec<StreamId> = leases.iter().map(|lease| lease.stream_id).collect();
        let guard = Guard { revision: Some(7), stored_limit: None };
        let snapshot = Snapshot { guard, members: &members, leases: &leases };
        let start = StartRequest { at_limit, ..request(100) };
        criterion.bench_function(&format!("decide, {held} leases, 16 rules, {outcome}"), |b| {
            b.iter(|| decide(black_box(&snapshot), black_box(&start), NOW));
        });
    }
}

fn codec(criterion: &mut Criterion) {
    let request = StartRequest { device_id: DeviceId::parse("device-01").ok(), ..named_request(1) };
    let (user, lease) = (user(0), request.lease(NOW));
    let item = codec::encode_lease(&user, &lease);
    criterion.bench_function("encode a lease", |b| {
        b.iter(|| codec::encode_lease(black_box(&user), black_box(&lease)));
    });
    criterion.bench_function("decode a lease", |b| {
        b.iter(|| codec::decode_lease(black_box(&item)).unwrap());
    });
    let renewal = HeartbeatRequest { stream_id: lease.stream_id, content_id: None, terms: TERMS };
    criterion.bench_function("decode a renewed lease", |b| {
        b.iter(|| codec::decode_renewed(black_box(&item), &renewal, NOW.plus_s(90)).unwrap());
    });
}

/// Measures the time from a parsed request to the bytes of the response body, on the memory store.
fn responses(criterion: &mut Criterion, runtime: &Runtime) {
    let app = apps(1).remove(0);
    let start = br#"{"deviceName":"Living room","contentId":"movie-007"}"#.as_slice();
    let call = |method: &str, path: &str, body: &'static [u8]| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from_static(body)));
        runtime.block_on(async {
            let mut response = app.handle(request.unwrap()).await;
            let body = response.take_body().into_vec().await.unwrap();
            (response.status().as_u16(), body)
        })
    };
    let mut stream = String::new();
    for _ in 0..3 {
        let (status, body) = call("POST", "/v1/users/ann/streams", start);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 201, "{body}");
        stream = format!("/v1/users/ann/streams/{}", body["streamId"].as_str().unwrap());
    }
    for (name, method, path, body, status) in [
        ("response to a denied start with a body", "POST", "/v1/users/ann/streams", start, 409),
        ("response to a get of one stream", "GET", &stream, b"".as_slice(), 200),
        ("response to a list of three streams", "GET", "/v1/users/ann/streams", b"", 200),
        ("response to a count", "GET", "/v1/users/ann/streams/count", b"", 200),
    ] {
        criterion.bench_function(name, |b| b.iter(|| assert_eq!(call(method, path, body).0, status)));
    }
}

fn tokens(criterion: &mut Criterion, runtime: &Runtime) {
    let claims = json!({ "iss": "issuer", "aud": "audience", "sub": "ann", "exp": 4_000_000_000_u32 });
    let hs256_token = issuer::token(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, |message| {
        issuer::hs256(SECRET.as_bytes(), message)
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let (rsa, p256) = (issuer::Key::rsa("rsa"), issuer::Key::p256("p256"));
    write!(file, "{}", json!({ "keys": [rsa.jwk(), p256.jwk()] })).unwrap();
    for (algorithm, keys, token) in [
        ("HS256", KeySource::Secret(SECRET.into()), hs256_token),
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
            labels_claim: None,
            admin_scope: "streams:admin".to_owned(),
        };
        let tokens = runtime.block_on(TokenVerifier::open(settings, Arc::new(SystemClock), Arc::default())).unwrap();
        criterion.bench_function(&format!("verify a token, {algorithm}"), |b| {
            b.iter(|| runtime.block_on(tokens.verify(black_box(&token))).unwrap());
        });
    }
}

/// A start of stream `n` with a device name but without a device id.
fn named_request(n: u64) -> StartRequest {
    StartRequest { device_name: DisplayText::clean("Living room"), ..start_request(n) }
}
