//! The labels in a token. They override those in the body, and a malformed claim is refused, because ignoring it would lift the rules.

use std::sync::Arc;

use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::http::auth::TokenSettings;
use stream_manager::http::auth::verifier::TokenVerifier;

use super::{assert_token_refused, claims_with, hs256_settings, send, sign_hs256};
use crate::rules::policy;
use crate::test_app::{STREAMS, TestApp, TestResponse, TestServer};

async fn server(settings: TokenSettings) -> TestServer {
    let tokens = TokenVerifier::open(settings, Arc::new(ManualClock::default()), Arc::default()).await.unwrap();
    TestApp { tokens: Some(Arc::new(tokens)), policy: policy(), ..TestApp::default() }.serve().await
}

/// Starts a stream of `ann` with these claims.
async fn start(server: &TestServer, claims: Value, body: Value) -> TestResponse {
    let token = sign_hs256(&claims_with(claims));
    send(server, "POST", STREAMS, &format!("Bearer {token}"), Some(body)).await
}

#[tokio::test]
async fn token_labels_override_the_labels_of_the_body() {
    let server = server(hs256_settings()).await;
    let claims = json!({"labels": {"profile": "child", "quality": "hd"}});
    let body = json!({"labels": {"profile": "adult", "channel": "news"}});
    let started = start(&server, claims.clone(), body).await;
    let expected = json!({"channel": "news", "profile": "child", "quality": "hd"});
    assert_eq!((started.status, &started.body["labels"]), (201, &expected));
    let child = json!({"labels": {"profile": "child"}});
    let denied = start(&server, child, json!({"labels": {"profile": "adult", "quality": "uhd"}})).await;
    denied.assert_problem(409, "stream-limit-reached", "a forged profile");
    assert_eq!(denied.body["rule"], "no children's UHD");
}

#[tokio::test]
async fn token_labels_do_not_count_towards_the_maximum_of_the_body() {
    let server = server(hs256_settings()).await;
    let eight = |prefix: &str| -> Value {
        (0..8).map(|n| (format!("{prefix}{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()
    };
    let started = start(&server, json!({"labels": eight("a")}), json!({"labels": eight("b")})).await;
    assert_eq!((started.status, started.body["labels"].as_object().unwrap().len()), (201, 16));
}

#[tokio::test]
async fn malformed_labels_claim_is_refused() {
    let server = server(hs256_settings()).await;
    let nine: serde_json::Map<String, Value> = (0..9).map(|n| (format!("l{n}"), json!("x"))).collect();
    for labels in [
        json!("child"),
        json!(["child"]),
        json!(true),
        json!({"profile": 1}),
        json!({"profile": null}),
        json!({"Profile": "child"}),
        json!({"profile": ""}),
        json!(nine),
    ] {
        let token = sign_hs256(&claims_with(json!({ "labels": labels })));
        let detail = assert_token_refused(&server, &token, &labels.to_string()).await;
        assert!(detail.starts_with("token claim labels: "), "{detail}");
    }
}

#[tokio::test]
async fn labels_claim_can_be_absent_or_off() {
    let on = server(hs256_settings()).await;
    for labels in [json!(null), json!({})] {
        let started = start(&on, json!({ "labels": labels }), json!({"labels": {"quality": "hd"}})).await;
        assert_eq!((started.status, &started.body["labels"]), (201, &json!({"quality": "hd"})));
    }
    let off = server(TokenSettings { labels_claim: None, ..hs256_settings() }).await;
    let started = start(&off, json!({"labels": "ignored"}), json!({})).await;
    assert_eq!((started.status, started.body.get("labels")), (201, None));
}

#[tokio::test]
async fn labels_of_an_administrators_token_apply_to_no_other_user() {
    let server = server(hs256_settings()).await;
    let admin = json!({"sub": "support", "scope": "streams:admin", "labels": {"profile": "child"}});
    let started = start(&server, admin, json!({"labels": {"quality": "uhd"}})).await;
    assert_eq!((started.status, &started.body["labels"]), (201, &json!({"quality": "uhd"})));
}

#[tokio::test]
async fn idempotency_key_does_not_cover_the_labels_of_the_token() {
    let server = server(hs256_settings()).await;
    let send = async |labels: Value| {
        let token = format!("Bearer {}", sign_hs256(&claims_with(json!({ "labels": labels }))));
        let headers = [("authorization", token.as_str()), ("idempotency-key", "k")];
        server.send("POST", STREAMS, &headers, Vec::new()).await
    };
    assert_eq!(send(json!({"plan": "basic"})).await.status, 201);
    let replayed = send(json!({"plan": "gold"})).await;
    assert_eq!((replayed.status, &replayed.body["labels"]), (200, &json!({"plan": "basic"})));
}
