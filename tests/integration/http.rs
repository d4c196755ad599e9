//! The HTTP API through a real server: every route, its success, and what a player is told when there is none.

use insta::assert_json_snapshot;
use serde_json::json;

use crate::server::TestServer;

const STREAMS: &str = "/v1/users/ann/streams";

#[tokio::test]
async fn a_start_answers_the_stream_and_where_it_is() {
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
async fn a_fourth_start_is_denied_with_what_is_playing() {
    let server = TestServer::start().await;
    for n in 1..=3 {
        server.started("ann", json!({"deviceName": format!("device {n}")})).await;
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
async fn list_and_count_show_the_live_streams_oldest_first() {
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
        "streams": [],
        "userName": "ann"
      }
    }
    "#);
    server.started("ann", json!({"deviceId": "tv"})).await;
    server.clock.advance_ms(1);
    server.started("ann", json!({})).await;
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
async fn a_heartbeat_renews_and_ignores_its_body() {
    let server = TestServer::start().await;
    let id = server.started("ann", json!({})).await;
    server.clock.advance_ms(30_500);
    let upper = id.to_uppercase();
    let beat = format!("{STREAMS}/{upper}/heartbeat");
    let garbage = server.send("POST", &beat, &[("content-type", "text/odd")], b"{]".to_vec()).await;
    assert_json_snapshot!(garbage, @r#"
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
    let looked = server.call("GET", &format!("{STREAMS}/{id}")).await;
    assert_eq!((looked.status, looked.body), (200, garbage.body));
}

#[tokio::test]
async fn stop_answers_204_however_often_and_by_either_way() {
    let server = TestServer::start().await;
    let id = server.started("ann", json!({})).await;
    let stream = format!("{STREAMS}/{id}");
    for _ in 0..2 {
        let stopped = server.call("DELETE", &stream).await;
        assert_eq!((stopped.status, stopped.body), (204, json!("")));
    }
    let beacon = [("content-type", "text/plain;charset=UTF-8")];
    let other = server.started("ann", json!({})).await;
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
async fn a_stream_that_is_over_says_how_and_whether_to_start_again() {
    let server = TestServer::start().await;
    let expired = server.started("ann", json!({})).await;
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

    let evicted = server.started("ann", json!({})).await;
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

    let replaced = server.started("ann", json!({"deviceId": "tv"})).await;
    let answer = server.json("POST", STREAMS, json!({"deviceId": "tv", "deviceName": "TV"})).await;
    assert_eq!(answer.body["ended"], json!([replaced]));
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
          "streamId": "d2f49798-ab0d-4b2c-8ade-5abea069bb41"
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

    let plain = server.started("ann", json!({})).await;
    assert_eq!(server.call("DELETE", &format!("{STREAMS}/{plain}?evict=false")).await.status, 204);
    assert_eq!(server.call("GET", &format!("{STREAMS}/{plain}")).await.status, 404);
}
