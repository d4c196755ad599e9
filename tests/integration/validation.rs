//! Invalid input. The service refuses it with the field and the reason, and the request has no effect.

use insta::assert_json_snapshot;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use unicode_normalization::UnicodeNormalization;

use crate::test_app::{STREAMS, TestServer, UNKNOWN_ID};

#[tokio::test]
async fn a_limit_is_a_whole_number_from_0_to_50() {
    let server = TestServer::start().await;
    let limit = "/v1/users/ann/limit";
    for bad in [
        json!({"limit": 51}),
        json!({"limit": -1}),
        json!({"limit": 1.5}),
        json!({"limit": "3"}),
        json!({"limit": null}),
        json!({"limit": true}),
        json!({"endExcess": true}),
        json!({"limit": 3, "endExcess": "yes"}),
        json!({}),
        json!(null),
        json!([3]),
    ] {
        let response = server.json("PUT", limit, bad.clone()).await;
        response.assert_problem(400, "invalid-request", &bad.to_string());
        assert!(!response.body.to_string().contains("u64"), "the response contains a Rust type: {}", response.body);
    }
    for missing in [&b""[..], b"{}", b"null", br#"{"limit":null}"#] {
        let error = &server.send("PUT", limit, &[], missing.to_vec()).await.body["errors"][0];
        assert_eq!(error, &json!({"field": "limit", "reason": "must be a whole number from 0 to 50"}));
    }
    assert_eq!(server.send("PUT", limit, &[("content-type", "text/plain")], b"{}".to_vec()).await.status, 415);
    assert_eq!(server.call("GET", limit).await.body["source"], "default", "nothing is stored");
    for (body, stored) in [
        ("{\"limit\":0}", 0),
        ("{\"limit\":50}", 50),
        ("\u{FEFF}{\"limit\":3,\"endExcess\":null,\"reason\":\"plan\"}", 3),
    ] {
        assert_eq!(server.send("PUT", limit, &[], body.into()).await.status, 200, "{body}");
        assert_eq!(server.call("GET", limit).await.body["limit"], stored);
    }
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
    let body = json!({"deviceId": "x".repeat(129), "replaces": [UNKNOWN_ID, "nope"]});
    assert_json_snapshot!(server.json("POST", STREAMS, body).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "replaces[1]: must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e; deviceId: must be at most 128 bytes of UTF-8, has 129",
        "errors": [
          {
            "field": "replaces[1]",
            "reason": "must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e"
          },
          {
            "field": "deviceId",
            "reason": "must be at most 128 bytes of UTF-8, has 129"
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
    assert_json_snapshot!(server.json("POST", STREAMS, json!({"deviceName": 1})).await, @r#"
    {
      "status": 400,
      "headers": {
        "content-type": "application/problem+json"
      },
      "body": {
        "code": "invalid-request",
        "detail": "deviceName: invalid type: integer `1`, expected a string",
        "errors": [
          {
            "field": "deviceName",
            "reason": "invalid type: integer `1`, expected a string"
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
async fn user_names_are_decoded_once_and_normalized() {
    let server = TestServer::start().await;
    let (longest, singletons) = ("e%CC%81".repeat(128), "%E1%BE%BE%CC%88%CC%81".repeat(128));
    for (path, name) in [
        ("ann", "ann"),
        ("Ann", "Ann"),
        ("...", "..."),
        ("%2e%2ea", "..a"),
        ("a%2Fb", "a/b"),
        ("a%2fstreams%2Fcount", "a/streams/count"),
        ("%2525", "%25"),
        ("%252e%252e", "%2e%2e"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%20ann%20%20", " ann  "),
        ("%20", " "),
        ("%3Fx%23y", "?x#y"),
        ("%E6%97%A5%E6%9C%AC", "日本"),
        ("日本", "日本"),
        ("Zoe%CC%88", "Zoë"),
        ("Zoe\u{308}", "Zoë"),
        ("%E0%A5%98", "\u{915}\u{93C}"),
        ("%E1%84%92%E1%85%A1%E1%86%AB", "한"),
        (&longest, &"é".repeat(128)),
        (&singletons, &"ΐ".repeat(128)),
        (&"x".repeat(256), &"x".repeat(256)),
    ] {
        let (status, body) = server.raw_get(&format!("/v1/users/{path}/streams/count")).await;
        assert_eq!((status, body["userName"].as_str()), (200, Some(name)), "{path}: {body}");
    }
}

#[tokio::test]
async fn invalid_user_names_are_refused_with_the_reason() {
    let server = TestServer::start().await;
    for (path, reason) in [
        ("", "must not be empty"),
        (".", "must not be \".\" or \"..\""),
        ("..", "must not be \".\" or \"..\""),
        ("%2e", "must not be \".\" or \"..\""),
        (".%2E", "must not be \".\" or \"..\""),
        ("a%0A", "control characters"),
        ("a%00", "control characters"),
        ("a%C2%85", "control characters"),
        ("a%E2%80%AE", "bidirectional control characters"),
        ("%zz", "invalid percent escape"),
        ("%", "invalid percent escape"),
        ("a%2", "invalid percent escape"),
        ("%ff", "must be percent-encoded UTF-8"),
        ("Zo%EB", "must be percent-encoded UTF-8"),
        ("%C0%AE", "must be percent-encoded UTF-8"),
        ("%ED%A0%BD", "must be percent-encoded UTF-8"),
        ("%F0%9F%98", "must be percent-encoded UTF-8"),
        (&"x".repeat(257), "at most 256 bytes"),
        (&"e%CC%81".repeat(129), "at most 256 bytes of UTF-8, has 258"),
    ] {
        let (status, body) = server.raw_get(&format!("/v1/users/{path}/streams/count")).await;
        assert_eq!((status, &body["code"]), (400, &json!("invalid-request")), "{path}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(reason), "{path}: {body}");
    }
}

#[tokio::test]
async fn two_encodings_of_a_name_are_one_user() {
    let server = TestServer::start().await;
    for name in ["Zoë", "Ξένη", "Йод", "שָׁלוֹם", "مُحَمَّد", "हिन्दी क़", "ไทยกำ", "한국어", "ドラゴン", "தமிழ்"]
    {
        for (name, count) in [(name.nfc().collect::<String>(), 1), (name.nfd().collect(), 2)] {
            let path = format!("/v1/users/{}/streams", utf8_percent_encode(&name, NON_ALPHANUMERIC));
            let started = server.call("POST", &path).await;
            assert_eq!(started.status, 201, "{name}: {started:?}");
            assert_eq!(server.call("GET", &path).await.body["count"], count, "{name}");
            assert_eq!(server.call("GET", &started.headers["location"]).await.status, 200, "{name}");
        }
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
        ("GET", "/v1/users/ann", "DELETE"),
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
    for path in ["/metrics", "/v1", "/v1/users/ann/streams/count/", "//v1/users/ann/streams"] {
        assert_eq!(server.raw_get(path).await.0, 404, "{path}");
    }
}
