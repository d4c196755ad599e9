//! Too much, too slow, or a store that fails: bounded and said clearly, and nothing of the inside shows.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::Empty;
use hyper::body::Bytes;
use insta::assert_json_snapshot;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::lease::Timestamp;
use stream_manager::http::api::rate_limits::Rates;
use stream_manager::http::pipeline::app::Bounds;
use stream_manager::http::pipeline::cors::Origins;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::StartHint;
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::io::AsyncWriteExt;

use crate::server::{BOUNDS, TestServer};
use crate::support::{Backing, Fault, Fixture, Tap};

const STREAMS: &str = "/v1/users/ann/streams";
const SOME_ID: &str = "6fa459ea-ee8a-4ca4-894e-db77e160355e";

/// A server whose store can be made to fail.
async fn fragile(bounds: Bounds) -> (TestServer, Tap, Fixture) {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let tap = Tap::before(engine.http_client());
    (TestServer::on(Arc::new(tap.store(1)), bounds).await, tap, fixture)
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length() {
    let server = TestServer::start().await;
    let large = vec![b' '; BOUNDS.max_body_bytes + 1];
    assert_json_snapshot!(server.send("POST", STREAMS, &[], large.clone()).await, @r#"
    {
      "status": 413,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "payload-too-large",
        "detail": "send at most 16384 bytes",
        "instance": "urn:stream-manager:request:…",
        "status": 413,
        "title": "The request body is too large",
        "type": "urn:stream-manager:problem:payload-too-large"
      }
    }
    "#);
    let beat = format!("{STREAMS}/{SOME_ID}/heartbeat");
    assert_eq!(server.send("POST", &beat, &[], large.clone()).await.status, 413);
    let head = "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = server.raw(&format!("{head}{:x}\r\n{}\r\n0\r\n\r\n", large.len(), " ".repeat(large.len()))).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("payload-too-large"), "{answer}");
}

#[tokio::test]
async fn what_never_arrives_whole_is_given_up_and_the_connection_closed() {
    let server = TestServer::start().await;
    let half_a_body = "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let answer = server.raw(half_a_body).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("did not arrive in time"), "{answer}");
    let half_a_head = server.raw("GET /health HTTP/1.1\r\nHo").await;
    assert!(!half_a_head.contains("200"), "{half_a_head}");
}

#[tokio::test]
async fn a_store_that_fails_or_hangs_is_503_within_the_request_timeout() {
    let (server, tap, _fixture) = fragile(BOUNDS).await;
    let id = server.started("ann", json!({})).await;
    let other = uuid::Uuid::new_v4();
    for fault in [Fault::Lost, Fault::Hangs, Fault::Refused(400, "ThrottlingException"), Fault::AppliedThen500] {
        tap.set(fault);
        for (method, path) in [
            ("POST", STREAMS.to_owned()),
            ("GET", STREAMS.to_owned()),
            ("GET", format!("{STREAMS}/count")),
            ("GET", format!("{STREAMS}/{id}")),
            ("POST", format!("{STREAMS}/{id}/heartbeat")),
            ("POST", format!("{STREAMS}/{other}/stop")),
            ("DELETE", format!("{STREAMS}/{other}?evict=true")),
            ("GET", "/v1/users/ann/limit".to_owned()),
            ("DELETE", "/v1/users/ann/limit".to_owned()),
        ] {
            // A refused condition is DynamoDB's answer, and one that 500 hides was applied nowhere.
            let answered = tokio::time::timeout(Duration::from_secs(2), server.call(method, &path));
            let answer = answered.await.expect("in time");
            assert_eq!((answer.status, &answer.body["code"]), (503, &json!("store-unavailable")), "{fault:?} {path}");
            assert_eq!(answer.headers["retry-after"], "1");
            let text = answer.body.to_string();
            assert!(!text.contains("injected") && !text.contains("Exception"), "no store message: {text}");
        }
    }
    tap.set(Fault::None);
    assert_eq!(server.call("POST", &format!("{STREAMS}/{id}/heartbeat")).await.status, 200);
}

#[tokio::test]
async fn more_requests_than_the_bound_are_answered_503_at_once_and_health_is_not() {
    let (server, tap, _fixture) = fragile(Bounds { max_in_flight: 1, ..BOUNDS }).await;
    tap.set(Fault::Hangs);
    let (one, other) = tokio::join!(server.call("GET", STREAMS), server.call("GET", STREAMS));
    let mut codes = [one.body["code"].as_str(), other.body["code"].as_str()];
    codes.sort();
    assert_eq!(codes, [Some("overloaded"), Some("store-unavailable")]);
    assert_eq!(server.call("GET", "/health/live").await.status, 200);
}

/// Breaks the operation in the middle.
struct BrokenClock;

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        panic!("broken, with a secret inside");
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn a_panic_is_500_for_its_request_and_nothing_more() {
    let metrics = Arc::new(Metrics::new());
    let (store, random) = (Arc::new(MemoryStore::new()), StdRng::seed_from_u64(7));
    let limiter = Limiter::new(store, Arc::new(BrokenClock), random, Arc::clone(&metrics), Policy::default());
    let app = http::app(AppDeps {
        limiter: Arc::new(limiter),
        readiness: Arc::default(),
        metrics: Arc::clone(&metrics),
        tokens: None,
        rates: Rates::unbounded(),
        origins: Origins::default(),
        demo: true,
        bounds: BOUNDS,
    })
    .expect("an app");
    let asked = |path| hyper::Request::get(path).header("host", "x").body(Empty::<Bytes>::new()).expect("a request");
    for path in [STREAMS, STREAMS] {
        let mut answer = app.handle(asked(path)).await;
        assert_eq!(answer.status(), 500);
        let body = answer.take_body().into_string().await.expect("a body");
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("secret"), "{body}");
    }
    assert_eq!(app.handle(asked("/health/live")).await.status(), 200);
    assert_eq!(metrics.in_flight.get(), 0, "its place is free again");
}

#[tokio::test]
async fn an_operation_goes_on_when_its_caller_is_dropped() {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let tap = Tap::before(engine.http_client());
    let (metrics, store) = (Arc::new(Metrics::new()), Arc::new(tap.store(1)));
    let (clock, random) = (Arc::new(ManualClock::at(fixture.now())), StdRng::seed_from_u64(7));
    let limiter = Arc::new(Limiter::new(store, clock, random, Arc::clone(&metrics), Policy::default()));
    let app = http::app(AppDeps {
        limiter: Arc::clone(&limiter),
        readiness: Arc::default(),
        metrics,
        tokens: None,
        rates: Rates::unbounded(),
        origins: Origins::default(),
        demo: true,
        bounds: BOUNDS,
    })
    .expect("an app");
    let start = hyper::Request::post(STREAMS).header("host", "x").body(Empty::<Bytes>::new()).expect("a request");
    // Polled once: it waits for its second attempt.
    tap.set(Fault::Refused(400, "TransactionConflictException"));
    assert!(app.handle(start).now_or_never().is_none());
    tap.set(Fault::None);
    app.tasks.close();
    app.tasks.wait().await;
    let usage = limiter.streams(&crate::support::user("ann"), None).await.expect("a list").value;
    assert_eq!(usage.streams.len(), 1);
}

#[tokio::test]
async fn the_end_of_the_service_waits_for_what_goes_on_after_its_answer() {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let tap = Tap::before(engine.http_client());
    let bounds = Bounds { request_timeout: Duration::from_millis(100), ..BOUNDS };
    let server = TestServer::on(Arc::new(tap.store(10)), bounds).await;
    let (ann, now) = (crate::support::user("ann"), server.clock.now());
    fixture.store.start(&ann, &crate::support::start(1), StartHint::Optimistic, now).await.expect("a start");
    tap.set(Fault::Lost);
    let answer = server.call("DELETE", &format!("{STREAMS}/{}", crate::support::stream(1))).await;
    assert_eq!(answer.status, 503, "its time is up, and the stop is still tried");
    server.stop.cancel();
    tap.set(Fault::None);
    assert!(server.serving.await.expect("an end"), "within the time to drain");
    let streams = fixture.store.streams(&ann, now).await.expect("a list");
    assert_eq!(streams.live, [], "it was stopped before the end");
}

#[tokio::test]
async fn a_stop_is_carried_out_though_its_sender_is_gone() {
    stopped_after_its_sender_has_gone(drop).await;
}

#[tokio::test]
async fn a_stop_is_carried_out_though_its_senders_connection_is_reset() {
    stopped_after_its_sender_has_gone(|beacon| beacon.set_zero_linger().expect("a setting")).await;
}

async fn stopped_after_its_sender_has_gone(leave: impl FnOnce(tokio::net::TcpStream)) {
    let (server, tap, _fixture) = fragile(BOUNDS).await;
    let id = server.started("ann", json!({})).await;
    tap.set(Fault::Refused(400, "TransactionConflictException"));
    let mut beacon = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
    let stop = format!("POST {STREAMS}/{id}/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    beacon.write_all(stop.as_bytes()).await.expect("a write");
    let until = async |done: &dyn Fn() -> bool| {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    until(&|| tap.refused() > 0).await;
    leave(beacon);
    tap.set(Fault::None);
    let stopped = async { while server.call("GET", &format!("{STREAMS}/count")).await.body["count"] != 0 {} };
    tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("the stop's next attempt");
}
