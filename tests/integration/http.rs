//! The operations on streams over HTTP: successful responses, and the problems that players handle.

use insta::assert_json_snapshot;
use serde_json::json;

use crate::test_app::{STREAMS, TestServer};

#[tokio::test]
async fn a_start_returns_the_stream_and_its_location() {
    let server = TestServer::start().await;
    let full = json!({"deviceId": "tv-42", "deviceName": "Living-room TV", "contentId": "movie-7",
                      "replaces": [], "atLimit": "reject"});
    assert_json_snapshot!(server.json("POST", STREAMS, full).await, @r#"
    {
      "status": 201,
      "headers": {
        "content-type": "application/json; charset=utf-8",
        "location": "/v1/users/ann/streams/befba86a-e9e0-4207-865f-7e24e8349d4e"
      },
      "body": {
        "contentId": "movie-7",
        "deviceId": "tv-42",
        "deviceName": "Living-room TV",
        "ended": [],
        "expiresAt": "2026-09-21T14:14:50.000Z",
        "expiresInSeconds": 90,
        "heartbeatIntervalSeconds": 30,
        "limit": 3,
        "startedAt": "2026-09-21T14:13:20.000Z",
        "streamId": "befba86a-e9e0-4207-865f-7e24e8349d4e",
        "userName": "ann"
      }
    }
    "#);
    assert_json_snapshot!(server.call("POST", "/v1/users/a%2Fb%20%C3%A9/streams").await, @r#"
    {
      "status": 201,
      "headers": {
        "content-type": "application/json; charset=utf-8",
        "location": "/v1/users/a%2Fb%20%C3%A9/streams/cdbc8b0f-4632-4424-99a0-dfa60568e28a"
      },
      "body": {
        "ended": [],
        "expiresAt": "2026-09-21T14:14:50.000Z",
        "expiresInSeconds": 90,
        "heartbeatIntervalSeconds": 30,
        "limit": 3,
        "startedAt": "2026-09-21T14:13:20.000Z",
        "streamId": "cdbc8b0f-4632-4424-99a0-dfa60568e28a",
        "userName": "a/b é"
      }
    }
    "#);
}

#[tokio::test]
async fn a_denied_start_lists_the_live_streams() {
    let server = TestServer::start().await;
    for n in 1..=3 {
        server.start_stream("ann", json!({"deviceName": format!("device {n}")})).await;
        server.clock.advance_ms(1500);
    }
    assert_json_snapshot!(server.call("POST", STREAMS).await, @r#"
    {
      "status": 409,
      "headers": {
        "content-type": "application/problem+json",
        "retry-after": "86"
      },
      "body": {
        "code": "stream-limit-reached",
        "count": 3,
        "detail": "3 of 3 streams are in use",
        "instance": "urn:stream-manager:request:…",
        "limit": 3,
        "slotFreesInSeconds": 86,
        "status": 409,
        "streams": [
          {
            "deviceName": "device 1",
            "expiresAt": "2026-09-21T14:14:50.000Z",
            "expiresInSeconds": 86,
            "heartbeatIntervalSeconds": 30,
            "startedAt": "2026-09-21T14:13:20.000Z",
            "streamId": "befba86a-e9e0-4207-865f-7e24e8349d4e",
            "userName": "ann"
          },
          {
            "deviceName": "device 2",
            "expiresAt": "2026-09-21T14:14:51.500Z",
            "expiresInSeconds": 87,
            "heartbeatIntervalSeconds": 30,
            "startedAt": "2026-09-21T14:13:21.500Z",
            "streamId": "cdbc8b0f-4632-4424-99a0-dfa60568e28a",
            "userName": "ann"
          },
          {
            "deviceName": "device 3",
            "expiresAt": "2026-09-21T14:14:53.000Z",
            "expiresInSeconds": 89,
            "heartbeatIntervalSeconds": 30,
            "startedAt": "2026-09-21T14:13:23.000Z",
            "streamId": "b621629e-ad61-4245-a06b-b0bc4f577df3",
            "userName": "ann"
          }
        ],
        "title": "The user's stream limit is reached",
        "type": "urn:stream-manager:problem:stream-limit-reached"
      }
    }
    "#);
}

#[tokio::test]
async fn list_and_count_show_live_streams_oldest_first() {
    let server = TestServer::start().await;
    assert_json_snapshot!(server.call("GET", STREAMS).await, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "count": 0,
        "limit": 3,
        "remaining": 3,
        "rules": [],
        "streams": [],
        "userName": "ann"
      }
    }
    "#);
    server.start_stream("ann", json!({"deviceId": "tv"})).await;
    server.clock.advance_ms(1);
    server.start_stream("ann", json!({})).await;
    assert_json_snapshot!(server.call("GET", STREAMS).await, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "count": 2,
        "limit": 3,
        "remaining": 1,
        "rules": [],
        "streams": [
          {
            "deviceId": "tv",
            "expiresAt": "2026-09-21T14:14:50.000Z",
            "expiresInSeconds": 90,
            "heartbeatIntervalSeconds": 30,
            "startedAt": "2026-09-21T14:13:20.000Z",
            "streamId": "befba86a-e9e0-4207-865f-7e24e8349d4e",
            "userName": "ann"
          },
          {
            "expiresAt": "2026-09-21T14:14:50.001Z",
            "expiresInSeconds": 90,
            "heartbeatIntervalSeconds": 30,
            "startedAt": "2026-09-21T14:13:20.001Z",
            "streamId": "cdbc8b0f-4632-4424-99a0-dfa60568e28a",
            "userName": "ann"
          }
        ],
        "userName": "ann"
      }
    }
    "#);
    assert_json_snapshot!(server.call("GET", "/v1/users/ann/streams/count").await, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "count": 2,
        "limit": 3,
        "remaining": 1,
        "userName": "ann"
      }
    }
    "#);
}

#[tokio::test]
async fn a_heartbeat_renews_the_lease_and_ignores_its_body() {
    let server = TestServer::start().await;
    let id = server.start_stream("ann", json!({})).await;
    server.clock.advance_ms(30_500);
    let upper = id.to_uppercase();
    let heartbeat = format!("{STREAMS}/{upper}/heartbeat");
    let renewed = server.send("POST", &heartbeat, &[("content-type", "text/odd")], b"{]".to_vec()).await;
    assert_json_snapshot!(renewed, @r#"
    {
      "status": 200,
      "headers": {
        "content-type": "application/json; charset=utf-8"
      },
      "body": {
        "expiresAt": "2026-09-21T14:15:20.500Z",
        "expiresInSeconds": 90,
        "heartbeatIntervalSeconds": 30,
        "startedAt": "2026-09-21T14:13:20.000Z",
        "streamId": "befba86a-e9e0-4207-865f-7e24e8349d4e",
        "userName": "ann"
      }
    }
    "#);
    let shown = server.call("GET", &format!("{STREAMS}/{id}")).await;
    assert_eq!((shown.status, shown.body), (200, renewed.body));
}

#[tokio::test]
async fn repeated_stops_return_204_for_delete_and_post() {
    let server = TestServer::start().await;
    let id = server.start_stream("ann", json!({})).await;
    let stream = format!("{STREAMS}/{id}");
    for _ in 0..2 {
        let stopped = server.call("DELETE", &stream).await;
        assert_eq!((stopped.status, stopped.body), (204, json!("")));
    }
    let beacon = [("content-type", "text/plain;charset=UTF-8")];
    let other = server.start_stream("ann", json!({})).await;
    for _ in 0..2 {
        let path = format!("{STREAMS}/{other}/stop");
        assert_eq!(server.send("POST", &path, &beacon, b"bye".to_vec()).await.status, 204);
    }
    assert_eq!(server.call("GET", "/v1/users/ann/streams/count").await.body["count"], 0);
    assert_json_snapshot!(server.call("POST", &format!("{stream}/heartbeat")).await, @r#"
    {
      "status": 404,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "stream-not-found",
        "detail": "the user has no such stream",
        "instance": "urn:stream-manager:request:…",
        "restart": "auto",
        "status": 404,
        "title": "No such stream",
        "type": "urn:stream-manager:problem:stream-not-found"
      }
    }
    "#);
}

#[tokio::test]
async fn an_expired_stream_is_410_with_automatic_restart() {
    let server = TestServer::start().await;
    let expired = server.start_stream("ann", json!({})).await;
    server.clock.advance_ms(90_000);
    assert_json_snapshot!(server.call("POST", &format!("{STREAMS}/{expired}/heartbeat")).await, @r#"
    {
      "status": 410,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "stream-ended",
        "detail": "the stream has expired",
        "instance": "urn:stream-manager:request:…",
        "reason": "expired",
        "restart": "auto",
        "status": 410,
        "title": "The stream has ended",
        "type": "urn:stream-manager:problem:stream-ended"
      }
    }
    "#);
}

#[tokio::test]
async fn an_evicted_stream_is_410_with_restart_by_the_user() {
    let server = TestServer::start().await;
    let evicted = server.start_stream("ann", json!({})).await;
    for _ in 0..2 {
        assert_eq!(server.call("DELETE", &format!("{STREAMS}/{evicted}?evict=true")).await.status, 204);
    }
    assert_json_snapshot!(server.call("POST", &format!("{STREAMS}/{evicted}/heartbeat")).await, @r#"
    {
      "status": 410,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "stream-ended",
        "detail": "the stream was evicted",
        "instance": "urn:stream-manager:request:…",
        "reason": "evicted",
        "restart": "user",
        "status": 410,
        "title": "The stream has ended",
        "type": "urn:stream-manager:problem:stream-ended"
      }
    }
    "#);
}

#[tokio::test]
async fn a_replaced_stream_is_410_and_names_its_replacement() {
    let server = TestServer::start().await;
    let replaced = server.start_stream("ann", json!({"deviceId": "tv"})).await;
    let response = server.json("POST", STREAMS, json!({"deviceId": "tv", "deviceName": "TV"})).await;
    assert_eq!(response.body["ended"], json!([replaced]));
    assert_json_snapshot!(server.call("GET", &format!("{STREAMS}/{replaced}")).await, @r#"
    {
      "status": 410,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "stream-ended",
        "detail": "the stream was replaced",
        "endedBy": {
          "deviceName": "TV",
          "streamId": "cdbc8b0f-4632-4424-99a0-dfa60568e28a"
        },
        "instance": "urn:stream-manager:request:…",
        "reason": "replaced",
        "restart": "user",
        "status": 410,
        "title": "The stream has ended",
        "type": "urn:stream-manager:problem:stream-ended"
      }
    }
    "#);
}

#[tokio::test]
async fn a_stop_with_evict_false_is_a_plain_stop() {
    let server = TestServer::start().await;
    let id = server.start_stream("ann", json!({})).await;
    assert_eq!(server.call("DELETE", &format!("{STREAMS}/{id}?evict=false")).await.status, 204);
    assert_eq!(server.call("GET", &format!("{STREAMS}/{id}")).await.status, 404);
}
