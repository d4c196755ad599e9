//! Invalid input. The service refuses it with the field and the reason, and the request has no effect.

use insta::assert_json_snapshot;
use serde_json::json;

use crate::test_app::{STREAMS, TestServer, UNKNOWN_ID};

#[tokio::test]
async fn a_start_body_is_absent_null_or_an_object() {
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
        (&json, r#"{"replaces":[7]}"#, 400),
        (&json, r#"{"atLimit":{"reject":null}}"#, 400),
        (&json, r#"{"atLimit":5}"#, 400),
        (&json, "\u{feff}{}", 400),
    ] {
        let path = format!("/v1/users/{}/streams", uuid::Uuid::new_v4());
        let response = server.send("POST", &path, headers, body.as_bytes().to_vec()).await;
        assert_eq!(response.status, status, "{headers:?} {body}: {response:?}");
        let text = response.body.to_string();
        let jargon = ["Body", "struct", "sequence", "variant"];
        assert!(!jargon.iter().any(|word| text.contains(word)), "no words of Rust: {text}");
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
        let response = server.json("PUT", limit, bad.clone()).await;
        response.assert_problem(400, "invalid-request", &bad.to_string());
        assert!(!response.body.to_string().contains("u64"), "no words of Rust: {}", response.body);
    }
    assert_eq!(server.send("PUT", limit, &[], Vec::new()).await.body["errors"][0]["field"], "limit");
    assert_eq!(server.send("PUT", limit, &[("content-type", "text/plain")], b"{}".to_vec()).await.status, 415);
    assert_eq!(server.call("GET", limit).await.body["source"], "default", "nothing is stored");
}

#[tokio::test]
async fn invalid_idempotency_keys_are_refused() {
    let server = TestServer::start().await;
    let too_long = "k".repeat(256);
    for bad in ["", "a b", "é", &too_long] {
        let response = server.send("POST", STREAMS, &[("idempotency-key", bad)], Vec::new()).await;
        assert_eq!(
            (response.status, &response.body["errors"][0]["field"]),
            (400, &json!("Idempotency-Key")),
            "{bad:?}"
        );
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(server.send("POST", STREAMS, &twice, Vec::new()).await.status, 400);
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 0);
}

#[tokio::test]
async fn a_refusal_names_every_invalid_field() {
    let server = TestServer::start().await;
    let body = json!({"deviceId": "x".repeat(129), "contentId": "", "replaces": [UNKNOWN_ID, "nope"]});
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
    let too_many = json!({"replaces": vec![UNKNOWN_ID; 11]});
    assert_json_snapshot!(server.json("POST", STREAMS, too_many).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "replaces: must have at most 10 stream ids, has 11",
        "errors": [
          {
            "field": "replaces",
            "reason": "must have at most 10 stream ids, has 11"
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
    let perhaps = format!("{STREAMS}/{UNKNOWN_ID}?evict=perhaps");
    assert_json_snapshot!(server.call("DELETE", &perhaps).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "evict: must be true or false",
        "errors": [
          {
            "field": "evict",
            "reason": "must be true or false"
          }
        ],
        "instance": "urn:stream-manager:request:…",
        "status": 400,
        "title": "The request is not valid",
        "type": "urn:stream-manager:problem:invalid-request"
      }
    }
    "#);
    let twice = format!("{STREAMS}/{UNKNOWN_ID}?evict=true&evict=false");
    assert_eq!(server.call("DELETE", &twice).await.status, 400);
}

#[tokio::test]
async fn user_names_are_decoded_once_and_kept_unchanged() {
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
async fn unknown_routes_and_methods_are_problems() {
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
        "detail": "allowed methods: GET, HEAD, POST",
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
        let response = server.call(method, path).await;
        let allowed = response.headers.get("allow").map(String::as_str);
        assert_eq!((response.status, allowed), (405, Some(allow)), "{method} {path}");
    }
    for path in ["/metrics", "/v1", "/v1/users/ann", "/v1/users/ann/streams/count/", "//v1/users/ann/streams"] {
        assert_eq!(server.raw_get(path).await.0, 404, "{path}");
    }
}
