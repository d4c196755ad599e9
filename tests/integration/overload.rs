//! Load shedding and rate limits. The service refuses requests before it uses the store. It refuses reads first, and heartbeats and
//! stops last.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use stream_manager::http::api::rate_limits::RateSettings;
use stream_manager::http::pipeline::app::Bounds;

use crate::fault_injector::{Fault, FaultInjector};
use crate::support::{Fixture, eventually};
use crate::test_app::{BOUNDS, STREAMS, TestApp, TestServer, UNKNOWN_ID};

/// A server whose store can be recorded and made to hang.
async fn serve_with_faults(app: TestApp) -> (TestServer, FaultInjector, Fixture) {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    // The timeout is long enough for a slow machine to take every permit while the store hangs.
    let store = Arc::new(faults.store_with_timeout(Duration::from_secs(3)));
    (TestApp { store, ..app }.serve().await, faults, fixture)
}

async fn wait_for_in_flight(server: &TestServer, requests: i64) {
    eventually(async || server.metrics.in_flight.get() >= requests).await;
}

async fn assert_shed(server: &TestServer, method: &str, path: &str) {
    let response = server.call(method, path).await;
    response.assert_problem(503, "overloaded", &format!("{method} {path}"));
    assert_eq!(response.headers["retry-after"], "1");
}

/// Sends a request that holds a permit until the store times out.
async fn hang(server: &TestServer, method: &str, path: &str) {
    server.call(method, path).await.assert_problem(503, "store-unavailable", &format!("{method} {path}"));
}

#[tokio::test]
async fn load_shedding_refuses_reads_then_starts_then_heartbeats_and_stops() {
    let bounds = Bounds { max_in_flight: 8, request_timeout: Duration::from_secs(4), ..BOUNDS };
    let (server, faults, _fixture) = serve_with_faults(TestApp { bounds, ..TestApp::default() }).await;
    faults.set(Fault::Hang);
    let (heartbeat, stop) = (format!("{STREAMS}/{UNKNOWN_ID}/heartbeat"), format!("{STREAMS}/{UNKNOWN_ID}"));
    let count = format!("{STREAMS}/count");
    let filling = async {
        wait_for_in_flight(&server, 6).await;
        for path in [&count, STREAMS, "/v1/users/ann/limit", "/swagger", "/v1/grants/check"] {
            assert_shed(&server, "GET", path).await;
        }
        tokio::join!(hang(&server, "POST", STREAMS), async {
            wait_for_in_flight(&server, 7).await;
            assert_shed(&server, "POST", STREAMS).await;
            tokio::join!(hang(&server, "POST", &heartbeat), async {
                wait_for_in_flight(&server, 8).await;
                assert_shed(&server, "DELETE", &stop).await;
                assert_shed(&server, "POST", &heartbeat).await;
                assert_eq!(server.call("GET", "/health/live").await.status, 200);
            });
        });
    };
    tokio::join!(join_all((0..6).map(|_| hang(&server, "GET", &count))), filling);
    faults.set(Fault::None);
    assert_eq!(server.metrics.overloaded.get(), 8, "each refusal is counted");
    assert_eq!(server.call("GET", &count).await.status, 200, "the requests returned their permits");
}

#[tokio::test]
async fn rate_limited_requests_get_retry_after_and_skip_the_store() {
    let rates = RateSettings {
        starts_per_minute: NonZeroU32::new(2),
        heartbeats_per_minute: NonZeroU32::new(4),
        max_users: 100,
    };
    let (server, faults, _fixture) = serve_with_faults(TestApp { rates, ..TestApp::default() }).await;
    let id = server.start_stream("ann", json!({})).await;
    server.start_stream("ann", json!({})).await;
    faults.take_requests();
    let refused = server.call("POST", STREAMS).await;
    insta::assert_json_snapshot!(refused, @r#"
    {
      "status": 429,
      "headers": {
        "content-type": "application/problem+json",
        "retry-after": "30"
      },
      "body": {
        "code": "too-many-requests",
        "detail": "at most 2 starts per minute per user",
        "instance": "urn:stream-manager:request:…",
        "status": 429,
        "title": "Rate limit exceeded",
        "type": "urn:stream-manager:problem:too-many-requests"
      }
    }
    "#);
    assert_eq!(faults.take_requests().len(), 0, "the store is not used");
    let heartbeat = format!("{STREAMS}/{id}/heartbeat");
    for status in [200, 200, 200, 200, 429] {
        assert_eq!(server.call("POST", &heartbeat).await.status, status);
    }
    for (method, path) in [("GET", STREAMS.to_owned()), ("DELETE", format!("{STREAMS}/{id}"))] {
        assert!(server.call(method, &path).await.status < 300, "stops and reads have no rate limit");
    }
    server.start_stream("bob", json!({})).await;
    server.clock.advance_ms(30_000);
    server.start_stream("ann", json!({})).await;
}
