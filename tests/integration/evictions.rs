//! Requests that end streams, over HTTP: evictions, limits with `endExcess`, and erasure.

use serde_json::{Value, json};

use crate::metrics::value;
use crate::test_app::{STREAMS, TestResponse, TestServer, UNKNOWN_ID};

const EVICTIONS: &str = "/v1/users/ann/evictions";
const LIMIT: &str = "/v1/users/ann/limit";

/// Starts three streams of `ann`, one second apart, and returns their ids, oldest first.
async fn three_streams(server: &TestServer) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.start_stream("ann", json!({})).await);
        server.clock.advance_ms(1000);
    }
    ids
}

async fn evict(server: &TestServer, ids: Value) -> TestResponse {
    server.json("POST", EVICTIONS, json!({ "streamIds": ids })).await
}

async fn heartbeat(server: &TestServer, id: &str) -> TestResponse {
    server.call("POST", &format!("{STREAMS}/{id}/heartbeat")).await
}

/// The number of stops with this outcome.
fn stops(server: &TestServer, outcome: &str) -> f64 {
    value(&server.metrics, &format!("stops_total{{outcome=\"{outcome}\"}}")).unwrap()
}

#[tokio::test]
async fn an_eviction_ends_known_streams_oldest_first() {
    let server = TestServer::start().await;
    let ids = three_streams(&server).await;
    let response = evict(&server, json!([ids[2], UNKNOWN_ID, ids[0]])).await;
    assert_eq!((response.status, &response.body), (200, &json!({ "ended": [ids[0], ids[2]] })));
    assert_eq!(server.call("GET", STREAMS).await.body["streams"][0]["streamId"], json!(ids[1]));
    assert_eq!(evict(&server, json!([ids[0]])).await.body, json!({ "ended": [] }), "already gone");
}

#[tokio::test]
async fn an_eviction_with_invalid_ids_ends_no_stream() {
    let server = TestServer::start().await;
    let ids = three_streams(&server).await;
    let invalid = evict(&server, json!([ids[0], "tv"])).await;
    invalid.assert_problem(400, "invalid-request", "not a UUID");
    assert_eq!(invalid.body["errors"][0]["field"], "streamIds[1]");
    for (count, status) in [(50, 200), (51, 400)] {
        let many: Vec<&str> = [UNKNOWN_ID].into_iter().cycle().take(count).collect();
        assert_eq!(evict(&server, json!(many)).await.status, status, "{count} ids");
    }
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 3);
}

#[tokio::test]
async fn the_message_of_an_eviction_reaches_its_player() {
    let server = TestServer::start().await;
    let ids = three_streams(&server).await;
    let body = json!({ "streamIds": [ids[0]], "message": " Please call\u{202E} support. " });
    assert_eq!(server.json("POST", EVICTIONS, body).await.status, 200);
    let response = heartbeat(&server, &ids[0]).await;
    response.assert_problem(410, "stream-ended", "evicted");
    assert_eq!(response.body["endedBy"], json!({ "message": "Please call support." }));
    assert_eq!((&response.body["reason"], &response.body["restart"]), (&json!("evicted"), &json!("user")));
}

#[tokio::test]
async fn a_limit_with_end_excess_returns_the_ended_streams() {
    let server = TestServer::start().await;
    let ids = three_streams(&server).await;
    for (body, ended) in [
        (json!({ "limit": 1 }), Value::Null),
        (json!({ "limit": 1, "endExcess": false }), Value::Null),
        (json!({ "limit": 1, "endExcess": true }), json!([ids[0], ids[1]])),
        (json!({ "limit": 1, "endExcess": true }), json!([])),
    ] {
        let response = server.json("PUT", LIMIT, body.clone()).await;
        assert_eq!((response.status, &response.body["limit"]), (200, &json!(1)), "{body}");
        assert_eq!(response.body["ended"], ended, "{body}");
    }
    assert_eq!((stops(&server, "evicted"), stops(&server, "already_gone")), (2.0, 0.0));
}

#[tokio::test]
async fn only_evictions_without_effect_count_as_already_gone() {
    let server = TestServer::start().await;
    server.json("PUT", LIMIT, json!({ "limit": 5, "endExcess": true })).await;
    server.call("DELETE", "/v1/users/ann").await;
    assert_eq!(stops(&server, "already_gone"), 0.0);
    server.call("DELETE", &format!("{STREAMS}/{UNKNOWN_ID}?evict=true")).await;
    evict(&server, json!([UNKNOWN_ID, UNKNOWN_ID])).await;
    assert_eq!(stops(&server, "already_gone"), 2.0);
}

#[tokio::test]
async fn an_erasure_lets_running_players_start_again() {
    let server = TestServer::start().await;
    let ids = three_streams(&server).await;
    evict(&server, json!([ids[2]])).await;
    server.json("PUT", LIMIT, json!({ "limit": 2 })).await;
    for user in ["ann", "nobody"] {
        assert_eq!(server.call("DELETE", &format!("/v1/users/{user}")).await.status, 204);
    }
    for id in &ids {
        let response = heartbeat(&server, id).await;
        response.assert_problem(404, "stream-not-found", "erased");
        assert_eq!(response.body["restart"], "auto");
    }
    assert_eq!(server.call("GET", LIMIT).await.body["source"], "default");
    server.start_stream("ann", json!({})).await;
    assert_eq!(stops(&server, "evicted"), 3.0);
}
