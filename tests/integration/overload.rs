//! Too much at once, from everybody or from one user: refused before the store is asked, and the least important first.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stream_manager::http::api::rate_limits::RateSettings;
use stream_manager::http::pipeline::app::Bounds;
use tokio::time::timeout;

use crate::server::{BOUNDS, Setup, TestServer};
use crate::support::{Backing, Fault, Fixture, Tap};

const STREAMS: &str = "/v1/users/ann/streams";
const SOME_ID: &str = "6fa459ea-ee8a-4ca4-894e-db77e160355e";

/// A server with a store that can be watched and made to hang.
async fn watched(setup: Setup) -> (TestServer, Tap, Fixture) {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let tap = Tap::before(engine.http_client());
    // Long enough for a slow machine to fill every place while the store hangs.
    let store = Arc::new(tap.patient_store(Duration::from_secs(3)));
    (TestServer::set_up(Setup { store, ..setup }).await, tap, fixture)
}

async fn taken(server: &TestServer, places: i64) {
    let taken = async {
        while server.metrics.in_flight.get() < places {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), taken).await.expect("a place each");
}

async fn refused(server: &TestServer, method: &str, path: &str) {
    let answer = server.call(method, path).await;
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("overloaded")), "{method} {path}");
    assert_eq!(answer.headers["retry-after"], "1");
}

/// Takes a place, and is given up by the service when its time is over.
async fn hanging(server: &TestServer, method: &str, path: &str) {
    let answer = server.call(method, path).await;
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("store-unavailable")), "{method} {path}");
}

#[tokio::test]
async fn when_places_run_out_reads_are_refused_first_then_starts_and_heartbeats_and_stops_last() {
    let bounds = Bounds { max_in_flight: 8, request_timeout: Duration::from_secs(4), ..BOUNDS };
    let (server, tap, _fixture) = watched(Setup { bounds, ..Setup::default() }).await;
    tap.set(Fault::Hangs);
    let (heartbeat, stop) = (format!("{STREAMS}/{SOME_ID}/heartbeat"), format!("{STREAMS}/{SOME_ID}"));
    let count = format!("{STREAMS}/count");
    let filling = async {
        taken(&server, 6).await;
        for path in [&count, STREAMS, "/v1/users/ann/limit", "/swagger"] {
            refused(&server, "GET", path).await;
        }
        tokio::join!(hanging(&server, "POST", STREAMS), async {
            taken(&server, 7).await;
            refused(&server, "POST", STREAMS).await;
            tokio::join!(hanging(&server, "POST", &heartbeat), async {
                taken(&server, 8).await;
                refused(&server, "DELETE", &stop).await;
                refused(&server, "POST", &heartbeat).await;
                assert_eq!(server.call("GET", "/health/live").await.status, 200);
            });
        });
    };
    let reads = (0..6).map(|_| hanging(&server, "GET", &count));
    tokio::join!(futures_util::future::join_all(reads), filling);
    tap.set(Fault::None);
    assert_eq!(server.metrics.overloaded.get(), 7, "each refusal is counted");
    assert_eq!(server.call("GET", &count).await.status, 200, "all places are free again");
}

#[tokio::test]
async fn a_user_who_asks_too_often_is_told_when_to_come_back_and_the_store_is_not_asked() {
    let rates = RateSettings {
        starts_per_minute: NonZeroU32::new(2),
        heartbeats_per_minute: NonZeroU32::new(4),
        max_users: 100,
    };
    let (server, tap, _fixture) = watched(Setup { rates, ..Setup::default() }).await;
    let id = server.started("ann", json!({})).await;
    server.started("ann", json!({})).await;
    tap.take();
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
        "detail": "at most 2 starts a minute for one user",
        "instance": "urn:stream-manager:request:…",
        "status": 429,
        "title": "The user asks too often",
        "type": "urn:stream-manager:problem:too-many-requests"
      }
    }
    "#);
    assert_eq!(tap.take().len(), 0, "nothing was asked of the store");
    let heartbeat = format!("{STREAMS}/{id}/heartbeat");
    for status in [200, 200, 200, 200, 429] {
        assert_eq!(server.call("POST", &heartbeat).await.status, status);
    }
    for (method, path) in [("GET", STREAMS.to_owned()), ("DELETE", format!("{STREAMS}/{id}"))] {
        assert!(server.call(method, &path).await.status < 300, "stops and reads have no bound of their own");
    }
    server.started("bob", json!({})).await;
    server.clock.advance_ms(30_000);
    server.started("ann", json!({})).await;
}
