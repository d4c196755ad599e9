//! Permissions of a valid token: access to its own user, or to every user with the administrator scope, and the limit in its claim.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

use super::{call, claims_with, count, hs256_settings, send, serve, sign_hs256, valid_claims};
use crate::test_app::{STREAMS, TestResponse, TestServer};

const LIMIT: &str = "/v1/users/ann/limit";

/// Sends a request with a token that has these claims.
async fn call_as(claims: Value, server: &TestServer, method: &str, path: &str, body: Option<Value>) -> TestResponse {
    send(server, method, path, &format!("Bearer {}", sign_hs256(&claims)), body).await
}

fn admin_claims() -> Value {
    claims_with(json!({ "sub": "support", "scope": "openid streams:admin" }))
}

#[tokio::test]
async fn a_token_allows_its_own_user_in_any_path_encoding() {
    let server = serve(hs256_settings()).await;
    let ann = sign_hs256(&valid_claims());
    for own in ["ann", "%61nn", "%61%6E%6e"] {
        assert_eq!(count(&server, own, &ann).await.status, 200, "{own}");
    }
    for other in
        ["bob", "Ann", "ANN", "ann%20", "ann%00", "ann%2F", "ann%2F..%2Fbob", "%2561nn", "a%CC%81nn", "%FF", "ann%FF"]
    {
        count(&server, other, &ann).await.assert_problem(403, "forbidden", other);
    }
    // The service does not resolve `..` in paths.
    for path in
        ["/v1/users/bob/../ann/streams/count", "/v1/users/ann/../bob/streams/count", "/v1//users/ann/streams/count"]
    {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {ann}\r\n\r\n");
        assert!(server.raw(&head).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    let odd = sign_hs256(&claims_with(json!({ "sub": "ann/../bob" })));
    let response = count(&server, "ann%2F..%2Fbob", &odd).await;
    assert_eq!((response.status, &response.body["userName"]), (200, &json!("ann/../bob")), "a valid name");
    for other in ["ann", "bob"] {
        assert_eq!(count(&server, other, &odd).await.status, 403);
    }
    let spaced = sign_hs256(&claims_with(json!({ "sub": " ann" })));
    assert_eq!(count(&server, "%20ann", &spaced).await.status, 200, "spaces are kept");
    for invalid in ["a\u{202E}", "a\0"] {
        let token = sign_hs256(&claims_with(json!({ "sub": invalid })));
        let path = utf8_percent_encode(invalid, NON_ALPHANUMERIC).to_string();
        assert_eq!(count(&server, &path, &token).await.status, 400, "an invalid name");
        assert_eq!(count(&server, "ann", &token).await.status, 403);
    }
    for dots in [".", "..", "%2E", "%2e%2e"] {
        let name = dots.replace("%2E", ".").replace("%2e", ".");
        let token = sign_hs256(&claims_with(json!({ "sub": name })));
        assert_eq!(count(&server, "ann", &token).await.status, 403, "{dots}");
        // HTTP clients remove such a segment, so the test writes the request itself.
        let head = format!(
            "GET /v1/users/{dots}/streams/count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        let response = server.raw(&head).await;
        let refused = response.starts_with("HTTP/1.1 400 ") && response.contains("\"field\":\"userName\"");
        assert!(refused && response.contains("clients remove"), "{dots}: {response}");
    }
}

#[tokio::test]
async fn user_names_in_tokens_and_paths_are_normalized() {
    let server = serve(hs256_settings()).await;
    for name in ["Zoë", "Йод", "क़", "ΐ", "한국어", "ドラゴン", "Nguyễn", "שָׁלוֹם", "Å"] {
        let forms: [String; 2] = [name.nfc().collect(), name.nfd().collect()];
        for (token_form, path_form) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let token = sign_hs256(&claims_with(json!({ "sub": forms[token_form], "max_streams": 7 })));
            let path = utf8_percent_encode(&forms[path_form], NON_ALPHANUMERIC).to_string();
            let response = count(&server, &path, &token).await;
            assert_eq!(
                (response.status, &response.body["userName"], &response.body["limit"]),
                (200, &json!(forms[0]), &json!(7)),
                "{name}: {token_form} {path_form}"
            );
        }
        let token = sign_hs256(&claims_with(json!({ "sub": forms[1] })));
        assert_eq!(count(&server, "Zoe", &token).await.status, 403, "marks are part of a name");
    }
    // Names that are equal only after compatibility normalization (NFKC) are different.
    let token = sign_hs256(&claims_with(json!({ "sub": "ﬁlm" })));
    assert_eq!(count(&server, "film", &token).await.status, 403);
}

#[tokio::test]
async fn only_administrators_set_limits_and_act_for_every_user() {
    let server = serve(hs256_settings()).await;
    let body = Some(json!({ "limit": 5 }));
    for claims in [valid_claims(), claims_with(json!({ "sub": "bob" }))] {
        for (method, body) in [("PUT", body.clone()), ("PUT", Some(json!("nonsense"))), ("DELETE", None)] {
            assert_eq!(
                call_as(claims.clone(), &server, method, LIMIT, body).await.status,
                403,
                "{method} by {claims}"
            );
        }
    }
    assert_eq!(call_as(admin_claims(), &server, "PUT", LIMIT, body).await.status, 200);
    let limit = call_as(valid_claims(), &server, "GET", LIMIT, None).await;
    assert_eq!((&limit.body["limit"], &limit.body["source"]), (&json!(5), &json!("user")));
    assert_eq!(call_as(admin_claims(), &server, "DELETE", LIMIT, None).await.status, 204);
    assert_eq!(call_as(admin_claims(), &server, "POST", STREAMS, None).await.status, 201);
    assert_eq!(call_as(admin_claims(), &server, "GET", STREAMS, None).await.body["count"], 1);
}

#[tokio::test]
async fn only_administrators_erase_users() {
    let server = serve(hs256_settings()).await;
    let started = call_as(valid_claims(), &server, "POST", STREAMS, None).await;
    let heartbeat = format!("{STREAMS}/{}/heartbeat", started.body["streamId"].as_str().unwrap());
    for claims in [valid_claims(), claims_with(json!({ "sub": "bob" }))] {
        let refused = call_as(claims.clone(), &server, "DELETE", "/v1/users/ann", None).await;
        refused.assert_problem(403, "forbidden", &claims.to_string());
    }
    assert_eq!(call_as(valid_claims(), &server, "POST", &heartbeat, None).await.status, 200);
    assert_eq!(call_as(admin_claims(), &server, "DELETE", "/v1/users/ann", None).await.status, 204);
    let erased = call_as(valid_claims(), &server, "POST", &heartbeat, None).await;
    erased.assert_problem(404, "stream-not-found", "after the erasure");
    assert_eq!(erased.body["restart"], "auto");
}

#[tokio::test]
async fn the_admin_scope_must_match_a_whole_scope() {
    let server = serve(hs256_settings()).await;
    let limit_of_bob =
        async |changes: Value| call_as(claims_with(changes), &server, "GET", "/v1/users/bob/limit", None).await;
    for scopes in [
        json!({ "scope": "streams:admin" }),
        json!({ "scope": ["openid", "streams:admin"] }),
        json!({ "scp": ["streams:admin"] }),
        json!({ "scp": "a streams:admin b" }),
        json!({ "scope": "openid", "scp": ["streams:admin"] }),
    ] {
        assert_eq!(limit_of_bob(scopes.clone()).await.status, 200, "{scopes}");
    }
    for scopes in [
        json!({ "scope": "" }),
        json!({ "scope": "streams:administrator" }),
        json!({ "scope": "xstreams:admin" }),
        json!({ "scope": "Streams:Admin" }),
        json!({ "scope": "streams: admin" }),
        json!({ "scope": "streams:admin,openid" }),
        json!({ "scope": "openid\tstreams:admin" }),
        json!({ "scope": ["openid streams:admin"] }),
        json!({ "scope": [["streams:admin"]] }),
        json!({ "scope": { "streams:admin": true } }),
        json!({ "scope": true }),
        json!({ "scopes": "streams:admin" }),
        json!({ "permissions": ["streams:admin"] }),
        json!({ "roles": ["streams:admin"] }),
    ] {
        assert_eq!(limit_of_bob(scopes.clone()).await.status, 403, "{scopes}");
    }
}

#[tokio::test]
async fn a_token_limit_applies_wherever_a_limit_is_shown() {
    let server = serve(hs256_settings()).await;
    let with_limit = |limit: Value| claims_with(json!({ "max_streams": limit }));
    call_as(admin_claims(), &server, "PUT", LIMIT, Some(json!({ "limit": 5 }))).await;
    let started = call_as(with_limit(json!(1)), &server, "POST", STREAMS, None).await;
    assert_eq!((started.status, &started.body["limit"]), (201, &json!(1)));
    let denied = call_as(with_limit(json!(1)), &server, "POST", STREAMS, None).await;
    assert_eq!((denied.status, &denied.body["limit"], &denied.body["count"]), (409, &json!(1), &json!(1)));
    for path in [STREAMS, "/v1/users/ann/streams/count"] {
        let seen = call_as(with_limit(json!("2")), &server, "GET", path, None).await;
        assert_eq!((&seen.body["limit"], &seen.body["remaining"]), (&json!(2), &json!(1)), "{path}");
    }
    let limit = call_as(with_limit(json!(2)), &server, "GET", LIMIT, None).await;
    assert_eq!((&limit.body["limit"], &limit.body["source"]), (&json!(2), &json!("token")));
    let device = call_as(with_limit(json!(2)), &server, "POST", STREAMS, Some(json!({ "deviceId": "tv" }))).await;
    assert_eq!((device.status, &device.body["limit"]), (201, &json!(2)));

    let without = call_as(valid_claims(), &server, "GET", LIMIT, None).await;
    assert_eq!(
        (&without.body["limit"], &without.body["source"]),
        (&json!(5), &json!("user")),
        "the token limits did not change the stored limit"
    );
}

#[tokio::test]
async fn a_repeated_start_with_another_token_limit_keeps_its_stream() {
    let server = serve(hs256_settings()).await;
    let mut ids = Vec::new();
    for limit in [1, 7] {
        let token = sign_hs256(&claims_with(json!({ "max_streams": limit })));
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("idempotency-key", "play-1")];
        let response = server.send("POST", STREAMS, &headers, Vec::new()).await;
        ids.push(response.body["streamId"].clone());
        assert_eq!(response.body["limit"], limit);
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn an_administrators_token_limit_applies_only_to_itself() {
    let server = serve(hs256_settings()).await;
    let claims = claims_with(json!({ "scope": "streams:admin", "max_streams": 9 }));
    let token = sign_hs256(&claims);
    let source = async |user: &str| {
        let response = call(&server, "GET", &format!("/v1/users/{user}/limit"), &token).await;
        (response.body["limit"].clone(), response.body["source"].clone())
    };
    assert_eq!(source("ann").await, (json!(9), json!("token")));
    assert_eq!(source("bob").await, (json!(3), json!("default")));
}
