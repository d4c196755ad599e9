//! Starts with an idempotency key, evictions, limits, health, and the documentation routes, over HTTP.

use std::sync::Arc;

use insta::assert_json_snapshot;
use serde_json::json;

use crate::fault_injector::{Fault, FaultInjector};
use crate::test_app::{STREAMS, TestApp, TestServer};

#[tokio::test]
async fn a_keyed_start_can_be_repeated_but_not_reused() {
    let server = TestServer::start().await;
    let key = [("idempotency-key", "play-1")];
    let first = server.send("POST", STREAMS, &key, Vec::new()).await;
    assert_eq!(first.status, 201);
    server.clock.advance_ms(1000);
    let json_key = [key[0], ("content-type", "application/json")];
    let again = server.send("POST", STREAMS, &json_key, b"{}".to_vec()).await;
    assert_json_snapshot!(again, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8",
        "idempotency-replayed": "true"
      },
      "body": {
        "ended": [],
        "expiresAt": "2026-09-21T14:14:50.000Z",
        "expiresInSeconds": 89,
        "heartbeatIntervalSeconds": 30,
        "limit": 3,
        "startedAt": "2026-09-21T14:13:20.000Z",
        "streamId": "3c69bce0-7314-5eec-9c57-d04f6858ec54",
        "userName": "ann"
      }
    }
    "#);
    assert_eq!(again.body["streamId"], first.body["streamId"]);
    assert_eq!(server.call("GET", "/v1/users/ann/streams/count").await.body["count"], 1);

    let other_body = br#"{"contentId":"other"}"#.to_vec();
    assert_json_snapshot!(server.send("POST", STREAMS, &json_key, other_body).await, @r#"
    {
      "status": 422,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "idempotency-key-reused",
        "detail": "this Idempotency-Key was used with a different body; use a new key for a new playback",
        "instance": "urn:stream-manager:request:…",
        "status": 422,
        "title": "The idempotency key was used with a different request",
        "type": "urn:stream-manager:problem:idempotency-key-reused"
      }
    }
    "#);

    let id = first.body["streamId"].as_str().unwrap();
    server.call("DELETE", &format!("{STREAMS}/{id}?evict=true")).await;
    let ended = server.send("POST", STREAMS, &key, Vec::new()).await;
    assert_eq!((ended.status, &ended.body["code"]), (410, &json!("stream-ended")));
}

#[tokio::test]
async fn a_keyless_start_whose_first_response_was_lost_is_no_replay() {
    let (faults, _fixture) = FaultInjector::on_embedded().await;
    let server = TestApp { store: Arc::new(faults.store(2)), ..TestApp::default() }.serve().await;
    faults.set_next(Fault::ResponseLost);
    let response = server.call("POST", STREAMS).await;
    assert_eq!(response.status, 201, "{response:?}");
    assert!(response.headers.contains_key("location") && !response.headers.contains_key("idempotency-replayed"));
    assert_eq!(server.call("GET", &format!("{STREAMS}/count")).await.body["count"], 1);
}

#[tokio::test]
async fn expires_in_reports_the_stored_expiry() {
    let server = TestServer::start().await;
    let key = [("idempotency-key", "play-3")];
    server.send("POST", STREAMS, &key, Vec::new()).await;
    // As if the clock of the instance that granted the lease had been 0.7 s ahead of this instance's clock.
    server.clock.advance_ms(-700);
    let again = server.send("POST", STREAMS, &key, Vec::new()).await;
    assert_eq!((again.status, &again.body["expiresInSeconds"]), (200, &json!(91)));
}

#[tokio::test]
async fn a_repeated_keyed_start_lists_the_streams_it_ended() {
    let server = TestServer::start().await;
    let before = server.start_stream("ann", json!({"deviceId": "tv"})).await;
    let headers = [("idempotency-key", "play-2"), ("content-type", "application/json")];
    for status in [201, 200] {
        let response = server.send("POST", STREAMS, &headers, br#"{"deviceId":"tv"}"#.to_vec()).await;
        assert_eq!((response.status, &response.body["ended"]), (status, &json!([before])));
    }
}

#[tokio::test]
async fn evict_oldest_ends_the_oldest_stream_and_lists_it() {
    let server = TestServer::start().await;
    let oldest = server.start_stream("ann", json!({})).await;
    for _ in 0..2 {
        server.clock.advance_ms(1);
        server.start_stream("ann", json!({})).await;
    }
    let response = server.json("POST", STREAMS, json!({"atLimit": "evictOldest"})).await;
    assert_eq!((response.status, &response.body["ended"]), (201, &json!([oldest])));
    let count = server.call("GET", "/v1/users/ann/streams/count").await;
    assert_eq!(count.body, json!({"userName": "ann", "count": 3, "limit": 3, "remaining": 0}));
}

#[tokio::test]
async fn a_users_limit_can_be_read_set_and_reset() {
    let server = TestServer::start().await;
    let limit = "/v1/users/ann/limit";
    assert_json_snapshot!(server.call("GET", limit).await, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "limit": 3,
        "source": "default",
        "userName": "ann"
      }
    }
    "#);
    assert_json_snapshot!(server.json("PUT", limit, json!({"limit": 1})).await, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "limit": 1,
        "source": "user",
        "userName": "ann"
      }
    }
    "#);
    assert_eq!(server.call("GET", limit).await.body["source"], "user");
    server.start_stream("ann", json!({})).await;
    let denied = server.call("POST", STREAMS).await;
    assert_eq!((denied.status, &denied.body["limit"]), (409, &json!(1)));
    for _ in 0..2 {
        assert_eq!(server.call("DELETE", limit).await.status, 204);
    }
    server.start_stream("ann", json!({})).await;
}

#[tokio::test]
async fn remaining_is_never_negative() {
    let server = TestServer::start().await;
    for _ in 0..3 {
        server.start_stream("ann", json!({})).await;
    }
    server.json("PUT", "/v1/users/ann/limit", json!({"limit": 2})).await;
    let count = server.call("GET", "/v1/users/ann/streams/count").await;
    assert_eq!(count.body, json!({"userName": "ann", "count": 3, "limit": 2, "remaining": 0}));
}

#[tokio::test]
async fn readiness_requires_the_store_and_ends_with_draining() {
    let server = TestServer::start().await;
    assert_json_snapshot!(server.call("GET", "/health/live").await, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "status": "ok",
        "version": "0.1.0"
      }
    }
    "#);
    assert_json_snapshot!(server.call("GET", "/health/ready").await, @r#"
    {
      "status": 503,
      "headers": {
        "content-type": "application/problem+json",
        "retry-after": "1"
      },
      "body": {
        "code": "store-unavailable",
        "detail": "the store has not responded since startup",
        "instance": "urn:stream-manager:request:…",
        "status": 503,
        "title": "The store is unavailable",
        "type": "urn:stream-manager:problem:store-unavailable"
      }
    }
    "#);
    server.readiness.mark_store_seen();
    for path in ["/health", "/health/ready"] {
        assert_eq!(server.call("GET", path).await.status, 200);
    }
    server.readiness.drain();
    for path in ["/health", "/health/ready"] {
        let draining = server.call("GET", path).await;
        assert_eq!((draining.status, &draining.body["code"]), (503, &json!("draining")), "{path}");
        assert_eq!(draining.headers["retry-after"], "1");
    }
    assert_eq!(server.call("GET", "/health/live").await.status, 200);
}

#[tokio::test]
async fn the_root_redirects_to_swagger_and_the_document_is_served() {
    let server = TestServer::start().await;
    let root = server.call("GET", "/").await;
    assert_eq!((root.status, root.headers["location"].as_str()), (302, "/swagger"));
    let swagger = server.call("GET", "/swagger").await;
    assert_eq!(swagger.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(server.call("GET", "/openapi.json").await.body["openapi"], "3.0.0");
    let yaml = server.call("GET", "/openapi.yaml").await;
    assert!(yaml.text().starts_with("openapi: 3.0.0"));
    assert_eq!(server.call("HEAD", "/v1/users/ann/streams/count").await.status, 200);
}
