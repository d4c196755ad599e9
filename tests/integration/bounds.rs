//! Oversized or slow requests, failing stores, panics and clients that disconnect. The service limits their effect, and no response
//! contains internal details.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::Empty;
use hyper::body::Bytes;
use insta::assert_json_snapshot;
use serde_json::json;
use stream_manager::clock::Clock;
use stream_manager::domain::lease::Timestamp;
use stream_manager::http::pipeline::app::Bounds;
use stream_manager::store::StartHint;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fault_injector::{CONFLICT, Fault, FaultInjector};
use crate::support::{eventually, start, stream, user};
use crate::test_app::{BOUNDS, STREAMS, TestApp, TestServer};

#[tokio::test]
async fn oversized_bodies_are_refused_with_and_without_a_length() {
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
    let head =
        "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = server.raw(&format!("{head}{:x}\r\n{}\r\n0\r\n\r\n", large.len(), " ".repeat(large.len()))).await;
    assert!(response.starts_with("HTTP/1.1 413 ") && response.contains("payload-too-large"), "{response}");
}

#[tokio::test]
async fn incomplete_requests_time_out_and_the_connection_closes() {
    let server = TestServer::start().await;
    let half_body = "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let response = server.raw(half_body).await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("did not arrive in time"), "{response}");
    let half_head = server.raw("GET /health HTTP/1.1\r\nHo").await;
    assert!(!half_head.contains("200"), "{half_head}");
}

#[tokio::test]
async fn a_failing_store_is_503_within_the_request_timeout() {
    let (server, faults, _fixture) = TestServer::with_faults(BOUNDS).await;
    let id = server.start_stream("ann", json!({})).await;
    let other = uuid::Uuid::new_v4();
    for fault in [Fault::Lost, Fault::Hang, Fault::Rejected(400, "ThrottlingException"), Fault::AppliedThen500] {
        faults.set(fault);
        // With `AppliedThen500` the store would apply a stop, so the stops name a stream that does not exist.
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
            let response = timeout(Duration::from_secs(2), server.call(method, &path)).await.unwrap();
            response.assert_problem(503, "store-unavailable", &format!("{fault:?} {method} {path}"));
            assert_eq!(response.headers["retry-after"], "1");
            let text = response.body.to_string();
            assert!(!text.contains("injected") && !text.contains("Exception"), "the store's message leaked: {text}");
        }
    }
    faults.set(Fault::None);
    assert_eq!(server.call("POST", &format!("{STREAMS}/{id}/heartbeat")).await.status, 200);
}

#[tokio::test]
async fn requests_over_the_in_flight_limit_are_503_except_health() {
    let (server, faults, _fixture) = TestServer::with_faults(Bounds { max_in_flight: 1, ..BOUNDS }).await;
    faults.set(Fault::Hang);
    let (first, second) = tokio::join!(server.call("GET", STREAMS), server.call("GET", STREAMS));
    let mut codes = [first.body["code"].as_str(), second.body["code"].as_str()];
    codes.sort();
    assert_eq!(codes, [Some("overloaded"), Some("store-unavailable")]);
    assert_eq!(server.call("GET", "/health/live").await.status, 200);
}

struct PanickingClock;

impl Clock for PanickingClock {
    fn now(&self) -> Timestamp {
        panic!("a secret");
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn request(method: &str, path: &str) -> hyper::Request<Empty<Bytes>> {
    hyper::Request::builder().method(method).uri(path).header("host", "x").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_panic_is_500_for_its_request_only() {
    let built = TestApp::default().build_with_clock(Arc::new(PanickingClock));
    for _ in 0..2 {
        let mut response = built.app.handle(request("GET", STREAMS)).await;
        assert_eq!(response.status(), 500);
        let body = response.take_body().into_string().await.unwrap();
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("secret"), "{body}");
    }
    assert_eq!(built.app.handle(request("GET", "/health/live")).await.status(), 200);
    assert_eq!(built.metrics.in_flight.get(), 0, "the panicking requests returned their permits");
}

#[tokio::test]
async fn an_operation_completes_after_its_caller_is_dropped() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let (store, clock) = (Arc::new(faults.store(1)), Arc::clone(&fixture.clock));
    let built = TestApp { store, clock, ..TestApp::default() }.build();
    // The first poll sends the first attempt. `now_or_never` then drops the future, while the operation waits for the second attempt.
    faults.set(CONFLICT);
    assert!(built.app.handle(request("POST", STREAMS)).now_or_never().is_none());
    faults.set(Fault::None);
    built.app.tasks.close();
    timeout(Duration::from_secs(30), built.app.tasks.wait()).await.unwrap();
    let usage = built.limiter.streams(&user("ann"), None).await.unwrap().value;
    assert_eq!(usage.streams.len(), 1);
}

#[tokio::test]
async fn shutdown_waits_for_operations_that_outlive_their_response() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let bounds = Bounds { request_timeout: Duration::from_millis(100), ..BOUNDS };
    let server = TestApp { store: Arc::new(faults.store(10)), bounds, ..TestApp::default() }.serve().await;
    let (ann, now) = (user("ann"), server.clock.now());
    fixture.store.start(&ann, &start(1), StartHint::Optimistic, now).await.unwrap();
    faults.set(Fault::Lost);
    let response = server.call("DELETE", &format!("{STREAMS}/{}", stream(1))).await;
    assert_eq!(response.status, 503, "the response times out while the stop is still retried");
    server.stop.cancel();
    faults.set(Fault::None);
    assert!(timeout(Duration::from_secs(30), server.serving).await.unwrap().unwrap(), "ended within the drain time");
    assert_eq!(fixture.store.streams(&ann, now).await.unwrap().live, [], "applied before the server ended");
}

#[tokio::test]
async fn a_stop_completes_after_its_client_disconnects() {
    stop_and_disconnect(drop).await;
}

#[tokio::test]
async fn a_stop_completes_after_its_connection_is_reset() {
    stop_and_disconnect(|connection| connection.set_zero_linger().unwrap()).await;
}

async fn stop_and_disconnect(disconnect: impl FnOnce(TcpStream)) {
    let (server, faults, _fixture) = TestServer::with_faults(BOUNDS).await;
    let id = server.start_stream("ann", json!({})).await;
    faults.set(CONFLICT);
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let stop = format!("POST {STREAMS}/{id}/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    connection.write_all(stop.as_bytes()).await.unwrap();
    eventually(async || faults.rejected_count() > 0).await;
    disconnect(connection);
    faults.set(Fault::None);
    eventually(async || server.call("GET", &format!("{STREAMS}/count")).await.body["count"] == 0).await;
}
