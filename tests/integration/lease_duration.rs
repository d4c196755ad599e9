//! A lowered lease duration. Heartbeats never shorten a lease, and all responses report the expiry that is stored.

use std::sync::Arc;

use serde_json::json;
use stream_manager::domain::lease::{LeaseTerms, StreamLimit};
use stream_manager::limiter::Policy;

use crate::test_app::{STREAMS, TestApp, TestServer};

const KEY: [(&str, &str); 1] = [("idempotency-key", "play-1")];

/// Two instances on one store: one with leases of 120 s, and one with leases of 4 s.
async fn instances() -> (TestServer, TestServer) {
    let TestApp { store, clock, .. } = TestApp::default();
    let serve = async |duration_s| {
        let terms = LeaseTerms { duration_s, heartbeat_interval_s: 2, retention_s: 3600 };
        let policy = Policy { default_limit: StreamLimit::new(1).unwrap(), terms, ..Policy::default() };
        let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
        TestApp { store, clock, policy, ..TestApp::default() }.serve().await
    };
    (serve(120).await, serve(4).await)
}

#[tokio::test]
async fn every_response_reports_the_stored_expiry() {
    let (before, after) = instances().await;
    let started = before.send("POST", STREAMS, &KEY, Vec::new()).await;
    assert_eq!((started.status, &started.body["expiresInSeconds"]), (201, &json!(120)));
    let id = started.body["streamId"].as_str().unwrap().to_owned();
    let stream = format!("{STREAMS}/{id}");
    for (elapsed_s, left_s) in [(0, 120), (10, 110), (106, 4)] {
        after.clock.advance_ms(elapsed_s * 1000);
        let heartbeat = after.call("POST", &format!("{stream}/heartbeat")).await;
        let replayed = after.send("POST", STREAMS, &KEY, Vec::new()).await;
        let read = after.call("GET", &stream).await;
        let listed = after.call("GET", STREAMS).await;
        let denied = after.json("POST", STREAMS, json!({})).await;
        denied.assert_problem(409, "stream-limit-reached", "the limit is 1");
        let streams =
            [&heartbeat.body, &replayed.body, &read.body, &listed.body["streams"][0], &denied.body["streams"][0]];
        for stream in streams {
            assert_eq!(stream["expiresInSeconds"], left_s, "{stream}");
            assert_eq!(stream["expiresAt"], started.body["expiresAt"]);
        }
        assert_eq!(denied.body["slotFreesInSeconds"], left_s);
        assert_eq!(denied.headers["retry-after"], left_s.to_string());
    }
}
