//! The grants in responses: their claims, and which responses contain one.

use serde_json::json;

use super::{AUDIENCE, Granting, ISSUER, JWKS, NOW_S, TestKey, claims, part, secret_settings, verify_with_jwks};
use crate::test_app::{STREAMS, TestServer};

#[tokio::test]
async fn a_grant_has_exactly_the_documented_claims() {
    let granting = Granting::with_secret().await;
    let started =
        granting.start_stream(json!({ "contentId": "movie-7", "deviceId": "tv", "deviceName": "TV" })).await;
    let expected = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "jti": started.body["streamId"],
        "iat": NOW_S,
        "exp": NOW_S + 90,
        "content": "movie-7",
    });
    assert_eq!(claims(&started.grant()), expected);
    let header = part(&started.grant(), 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("HS256"), &json!("JWT")));
    assert_eq!(header.as_object().unwrap().len(), 3, "{header}");
    let without_content = granting.grant(json!({})).await;
    assert_eq!(claims(&without_content).get("content"), None);
}

#[tokio::test]
async fn a_grant_has_the_labels_of_the_stream() {
    let granting = Granting::with_secret().await;
    let grant = granting.grant(json!({ "labels": { "quality": "uhd", "channel": "news" } })).await;
    assert_eq!(claims(&grant)["labels"], json!({ "quality": "uhd", "channel": "news" }));
}

#[tokio::test]
async fn starts_replays_and_heartbeats_have_a_grant() {
    let granting = Granting::with_secret().await;
    let key = [("idempotency-key", "play-1")];
    let started = granting.server.send("POST", STREAMS, &key, Vec::new()).await;
    let heartbeat = format!("{STREAMS}/{}/heartbeat", started.body["streamId"].as_str().unwrap());
    granting.server.clock.advance_ms(30_000);
    let replayed = granting.server.send("POST", STREAMS, &key, Vec::new()).await;
    assert_eq!((replayed.status, &claims(&replayed.grant())["exp"]), (200, &json!(NOW_S + 90)), "not renewed");
    assert_eq!(claims(&replayed.grant())["iat"], NOW_S + 30);
    let renewed = granting.server.call("POST", &heartbeat).await;
    assert_eq!(claims(&renewed.grant())["exp"], NOW_S + 120);
    assert_eq!(claims(&renewed.grant())["jti"], started.body["streamId"]);
    assert_eq!(crate::metrics::value(&granting.metrics, "grants_signed_total"), Some(3.0));
}

#[tokio::test]
async fn a_heartbeat_with_new_content_changes_the_grant() {
    let granting = Granting::with_secret().await;
    let started = granting.start_stream(json!({ "contentId": "a" })).await;
    let heartbeat = format!("{STREAMS}/{}/heartbeat", started.body["streamId"].as_str().unwrap());
    granting.server.clock.advance_ms(1000);
    let renewed = granting.server.json("POST", &heartbeat, json!({ "contentId": "b" })).await;
    assert_eq!(claims(&renewed.grant())["content"], "b");
}

#[tokio::test]
async fn other_responses_have_no_grant() {
    let granting = Granting::with_secret().await;
    let started = granting.start_stream(json!({})).await;
    for _ in 0..2 {
        granting.start_stream(json!({})).await;
    }
    let stream = format!("{STREAMS}/{}", started.body["streamId"].as_str().unwrap());
    let denied = granting.server.call("POST", STREAMS).await;
    denied.assert_problem(409, "stream-limit-reached", "fourth start");
    for response in [
        granting.server.call("GET", STREAMS).await,
        granting.server.call("GET", &stream).await,
        granting.server.call("DELETE", &format!("{stream}?evict=true")).await,
        granting.server.call("POST", &format!("{stream}/heartbeat")).await,
        denied,
    ] {
        assert!(!response.body.to_string().contains("\"grant\""), "{response:?}");
    }
}

#[tokio::test]
async fn without_grants_responses_have_none() {
    let server = TestServer::start().await;
    let started = server.call("POST", STREAMS).await;
    assert_eq!((started.status, started.body.get("grant")), (201, None));
    server.call("GET", JWKS).await.assert_problem(404, "route-not-found", "off");
    server.call("GET", super::CHECK).await.assert_problem(404, "route-not-found", "off");
}

#[tokio::test]
async fn the_leeway_extends_the_grant_and_not_the_lease() {
    let granting = Granting::start(super::GrantSettings { leeway_s: 20, ..secret_settings() }).await;
    let started = granting.start_stream(json!({})).await;
    assert_eq!(
        (&claims(&started.grant())["exp"], &started.body["expiresInSeconds"]),
        (&json!(NOW_S + 110), &json!(90))
    );
}

#[tokio::test]
async fn hashed_subjects_are_keyed_and_stable() {
    let hashed = |key: &str| super::GrantSettings { subject_key: Some(key.into()), ..secret_settings() };
    let subject = async |settings| claims(&Granting::start(settings).await.grant(json!({})).await)["sub"].clone();
    let first = subject(hashed("one key for the hashes of subjects")).await;
    assert_eq!(first, "Hky9i1tkiV7LP6HYVdP3_v3vWUPN-SuneefjIRigzH0", "HMAC-SHA-256 in base64url");
    assert_eq!(subject(hashed("one key for the hashes of subjects")).await, first);
    assert_ne!(subject(hashed("another key for hashes of subjects")).await, first);
}

#[tokio::test]
async fn grants_verify_with_the_published_keys() {
    for key in [TestKey::p256(), TestKey::ed25519()] {
        let granting = Granting::with_key(&key).await;
        let grant = granting.grant(json!({ "contentId": "é" })).await;
        let jwks = granting.server.call("GET", JWKS).await.body;
        assert!(verify_with_jwks(&jwks, &grant), "{jwks}");
        let (message, _) = grant.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", super::base64_url(&TestKey::p256().sign(message.as_bytes())));
        assert!(!verify_with_jwks(&jwks, &forged));
        assert_eq!(claims(&grant)["content"], "é");
        let header = part(&grant, 0);
        assert_eq!(header["kid"], jwks["keys"][0]["kid"]);
    }
}

#[tokio::test]
async fn the_longest_names_fit_into_a_grant() {
    let granting = Granting::with_secret().await;
    let longest = "\"".repeat(256);
    let streams = format!("/v1/users/{}/streams", "%22".repeat(256));
    let started = granting.server.json("POST", &streams, json!({ "contentId": longest })).await;
    assert_eq!(claims(&started.grant())["content"], longest);
    super::assert_valid(&granting.check(&started.grant()).await, "longest names");
}
