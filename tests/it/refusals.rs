//! Bad input, hostile clients and a failing store: what is refused is refused clearly, and nothing of the inside shows.

use std::sync::Arc;
use std::time::Duration;

use insta::assert_json_snapshot;
use serde_json::json;
use stream_manager::http::Bounds;
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
async fn the_body_of_a_start_may_be_missing_empty_null_or_an_object() {
    let server = TestServer::start().await;
    let json = [("content-type", "application/json; charset=utf-8")];
    let odd = [("content-type", "text/plain")];
    let merge_patch = [("content-type", "application/merge-patch+json")];
    for (headers, body, status) in [
        (&[][..], "", 201),
        (&odd, "", 201),
        (&json, "", 201),
        (&json, "{}", 201),
        (&json, "null", 201),
        (&[], "{}", 201),
        (&merge_patch, "{}", 201),
        (&json, r#"{"deviceId":null,"replaces":null,"atLimit":null}"#, 201),
        (&odd, "{}", 415),
        (&json, "[]", 400),
        (&json, r#" ["tv"]"#, 400),
        (&json, "{", 400),
        (&json, "{}x", 400),
        (&json, "7", 400),
        (&json, "   ", 400),
        (&json, r#"{"deviceID":"x"}"#, 400),
        (&json, r#"{"deviceId":"x","deviceId":"x"}"#, 400),
        (&json, r#"{"deviceId":7}"#, 400),
        (&json, r#"{"deviceId":""}"#, 400),
        (&json, r#"{"deviceName":"a\u0007"}"#, 400),
        (&json, r#"{"contentId":"e\u0301"}"#, 400),
        (&json, r#"{"atLimit":"kick"}"#, 400),
        (&json, r#"{"replaces":["x"]}"#, 400),
        (&json, r#"{"replaces":"x"}"#, 400),
        (&json, "\u{feff}{}", 400),
    ] {
        let path = format!("/v1/users/{}/streams", uuid::Uuid::new_v4());
        let answer = server.send("POST", &path, headers, body.as_bytes().to_vec()).await;
        assert_eq!(answer.status, status, "{headers:?} {body}: {answer:?}");
        let text = answer.body.to_string();
        assert!(!text.contains("Body") && !text.contains("struct"), "no Rust name: {text}");
    }
    let invalid_utf8 = server.send("POST", STREAMS, &json, b"{\"deviceId\":\"\xff\"}".to_vec()).await;
    assert_eq!(invalid_utf8.status, 400);
}

#[tokio::test]
async fn a_limit_is_a_whole_number_from_1_to_50() {
    let server = TestServer::start().await;
    let limit = "/v1/users/ann/limit";
    for bad in [
        json!({"limit": 0}),
        json!({"limit": 51}),
        json!({"limit": -1}),
        json!({"limit": 1.5}),
        json!({"limit": "3"}),
        json!({"limit": null}),
        json!({"limit": 3, "x": 1}),
        json!({}),
        json!(null),
        json!([3]),
    ] {
        let answer = server.json("PUT", limit, bad.clone()).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid-request")), "{bad}");
    }
    assert_eq!(server.send("PUT", limit, &[], Vec::new()).await.body["errors"][0]["field"], "limit");
    assert_eq!(server.send("PUT", limit, &[("content-type", "text/plain")], b"{}".to_vec()).await.status, 415);
    assert_eq!(server.call("GET", limit).await.body["source"], "default", "nothing was set");
}

#[tokio::test]
async fn an_idempotency_key_that_could_not_be_repeated_is_refused() {
    let server = TestServer::start().await;
    let too_long = "k".repeat(256);
    for bad in ["", "a b", "é", &too_long] {
        let answer = server.send("POST", STREAMS, &[("idempotency-key", bad)], Vec::new()).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!("Idempotency-Key")), "{bad:?}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(server.send("POST", STREAMS, &twice, Vec::new()).await.status, 400);
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 0);
}

#[tokio::test]
async fn a_refusal_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let body = json!({"deviceId": "x".repeat(129), "contentId": "", "replaces": [SOME_ID, "nope"]});
    assert_json_snapshot!(server.json("POST", STREAMS, body).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "replaces[1]: must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e; deviceId: must be at most 128 bytes of UTF-8, has 129; contentId: must not be empty",
        "errors": [
          {
            "field": "replaces[1]",
            "reason": "must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e"
          },
          {
            "field": "deviceId",
            "reason": "must be at most 128 bytes of UTF-8, has 129"
          },
          {
            "field": "contentId",
            "reason": "must not be empty"
          }
        ],
        "instance": "urn:stream-manager:request:…",
        "status": 400,
        "title": "The request is not valid",
        "type": "urn:stream-manager:problem:invalid-request"
      }
    }
    "#);
    let many = json!({"replaces": vec![SOME_ID; 11]});
    assert_json_snapshot!(server.json("POST", STREAMS, many).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "replaces: must name at most 10 streams, names 11",
        "errors": [
          {
            "field": "replaces",
            "reason": "must name at most 10 streams, names 11"
          }
        ],
        "instance": "urn:stream-manager:request:…",
        "status": 400,
        "title": "The request is not valid",
        "type": "urn:stream-manager:problem:invalid-request"
      }
    }
    "#);
    assert_json_snapshot!(server.json("POST", STREAMS, json!({"device": 1})).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "device: unknown field `device`, expected one of `deviceId`, `deviceName`, `contentId`, `replaces`, `atLimit`",
        "errors": [
          {
            "field": "device",
            "reason": "unknown field `device`, expected one of `deviceId`, `deviceName`, `contentId`, `replaces`, `atLimit`"
          }
        ],
        "instance": "urn:stream-manager:request:…",
        "status": 400,
        "title": "The request is not valid",
        "type": "urn:stream-manager:problem:invalid-request"
      }
    }
    "#);
    assert_json_snapshot!(server.call("GET", "/v1/users/ann/streams/nope").await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "streamId: must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e",
        "errors": [
          {
            "field": "streamId",
            "reason": "must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e"
          }
        ],
        "instance": "urn:stream-manager:request:…",
        "status": 400,
        "title": "The request is not valid",
        "type": "urn:stream-manager:problem:invalid-request"
      }
    }
    "#);
    let perhaps = format!("{STREAMS}/{SOME_ID}?evict=perhaps");
    assert_json_snapshot!(server.call("DELETE", &perhaps).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "evict: failed to parse \"boolean\": provided string was not `true` or `false` (occurred while parsing \"optional_boolean\")",
        "errors": [
          {
            "field": "evict",
            "reason": "failed to parse \"boolean\": provided string was not `true` or `false` (occurred while parsing \"optional_boolean\")"
          }
        ],
        "instance": "urn:stream-manager:request:…",
        "status": 400,
        "title": "The request is not valid",
        "type": "urn:stream-manager:problem:invalid-request"
      }
    }
    "#);
}

#[tokio::test]
async fn user_names_are_decoded_once_and_otherwise_taken_as_they_are() {
    let server = TestServer::start().await;
    for (path, name) in [
        ("ann", "ann"),
        ("Ann", "Ann"),
        ("..", ".."),
        (".", "."),
        ("%2e%2e", ".."),
        ("a%2Fb", "a/b"),
        ("a%2fstreams%2Fcount", "a/streams/count"),
        ("%2525", "%25"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%3Fx%23y", "?x#y"),
        ("%E6%97%A5%E6%9C%AC", "日本"),
    ] {
        let (status, body) = server.raw_get(&format!("/v1/users/{path}/streams/count")).await;
        assert_eq!((status, body["userName"].as_str()), (200, Some(name)), "{path}: {body}");
    }
    let (longest, too_long) = ("x".repeat(256), "x".repeat(257));
    assert_eq!(server.raw_get(&format!("/v1/users/{longest}/streams/count")).await.0, 200);
    for path in ["", "%20a", "a%0A", "a%00", "%zz", "%", "a%2", "%ff", "e%CC%81", "a%E2%80%AE", &too_long] {
        let (status, body) = server.raw_get(&format!("/v1/users/{path}/streams/count")).await;
        assert_eq!((status, &body["code"]), (400, &json!("invalid-request")), "{path}: {body}");
    }
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let server = TestServer::start().await;
    assert_json_snapshot!(server.call("GET", "/nope").await, @r#"
    {
      "status": 404,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "route-not-found",
        "detail": "see /openapi.json for the routes",
        "instance": "urn:stream-manager:request:…",
        "status": 404,
        "title": "No such route",
        "type": "urn:stream-manager:problem:route-not-found"
      }
    }
    "#);
    assert_json_snapshot!(server.call("PUT", STREAMS).await, @r#"
    {
      "status": 405,
      "headers": {
        "allow": "GET, HEAD, POST",
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "method-not-allowed",
        "detail": "this route has GET, HEAD, POST",
        "instance": "urn:stream-manager:request:…",
        "status": 405,
        "title": "The route has no such method",
        "type": "urn:stream-manager:problem:method-not-allowed"
      }
    }
    "#);
    for (method, path, allow) in [
        ("POST", "/v1/users/ann/streams/count", "GET, HEAD"),
        ("PATCH", "/v1/users/ann/limit", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", STREAMS, "GET, HEAD, POST"),
        ("GET", "/v1/users/ann/streams/6fa459ea-ee8a-4ca4-894e-db77e160355e/heartbeat", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("DELETE", "/swagger", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ] {
        let answer = server.call(method, path).await;
        let allowed = answer.headers.get("allow").map(String::as_str);
        assert_eq!((answer.status, allowed), (405, Some(allow)), "{method} {path}");
    }
    for path in ["/metrics", "/v1", "/v1/users/ann", "/v1/users/ann/streams/count/", "//v1/users/ann/streams"] {
        assert_eq!(server.raw_get(path).await.0, 404, "{path}");
    }
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

#[tokio::test]
async fn a_stop_is_carried_out_though_its_sender_is_gone() {
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
    drop(beacon);
    tap.set(Fault::None);
    let stopped = async { while server.call("GET", &format!("{STREAMS}/count")).await.body["count"] != 0 {} };
    tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("the stop's next attempt");
}
