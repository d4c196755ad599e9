//! Tokens: what real issuers send is accepted, every known attack is refused, and a token speaks for its user alone.

mod attacks;
mod issuer;
mod keys;
mod permissions;
mod process;
mod providers;

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{KeySource, TokenSettings};

use self::issuer::{Key, hs256, token};
use crate::server::{Answer, TestServer};

pub const ISSUER: &str = "https://login.example.com/";
pub const AUDIENCE: &str = "https://streams.example.com";
pub const SECRET: &str = "a secret that issuer and service share";

/// Settings as they come from their file, with what the test says in place of the defaults.
pub fn settings(keys: KeySource, algorithms: &[&str]) -> TokenSettings {
    TokenSettings {
        keys,
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        issuer: ISSUER.to_owned(),
        audience: vec![AUDIENCE.to_owned(), "another-audience".to_owned()],
        user_claim: "sub".to_owned(),
        limit_claim: "max_streams".to_owned(),
        admin_scope: "streams:admin".to_owned(),
    }
}

pub fn by_secret() -> TokenSettings {
    settings(KeySource::Secret(SecretString::from(SECRET)), &["RS256"])
}

/// A service that knows these keys, from a file.
pub async fn server_with(keys: &[Value], algorithms: &[&str]) -> TestServer {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).expect("a write");
    served(settings(KeySource::File(file.path().to_owned()), algorithms)).await
}

pub async fn served(settings: TokenSettings) -> TestServer {
    let tokens = TokenVerifier::open(settings, Arc::new(ManualClock::default())).await.expect("keys");
    TestServer::with_tokens(Arc::new(tokens)).await
}

/// Seconds since 1970: the library reads the host's clock.
pub fn now_s() -> i64 {
    crate::support::host_now().epoch_ms() / 1000
}

/// The least that is asked for, of Ann.
pub fn anns() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now_s() + 600 })
}

/// Ann's claims, but for these; null takes one away.
pub fn anns_but(others: Value) -> Value {
    let mut claims = anns();
    for (name, value) in others.as_object().expect("an object") {
        match value {
            Value::Null => _ = claims.as_object_mut().expect("an object").remove(name),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

pub fn secretly(claims: &Value) -> String {
    token(&json!({ "alg": "HS256", "typ": "JWT" }), claims, |message| hs256(SECRET.as_bytes(), message))
}

pub async fn count(server: &TestServer, user: &str, token: &str) -> Answer {
    call(server, "GET", &format!("/v1/users/{user}/streams/count"), token).await
}

pub async fn call(server: &TestServer, method: &str, path: &str, token: &str) -> Answer {
    send(server, method, path, &format!("Bearer {token}"), None).await
}

pub async fn send(server: &TestServer, method: &str, path: &str, authorization: &str, body: Option<Value>) -> Answer {
    let headers = [("authorization", authorization), ("content-type", "application/json")];
    let body = body.map(|body| body.to_string().into_bytes());
    server.send(method, path, &headers, body.unwrap_or_default()).await
}

/// Refused with a challenge, and with a detail that holds nothing of the token.
pub fn assert_refused(answer: &Answer, what: &str) -> String {
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("unauthorized")), "{what}: {answer:?}");
    let challenge = &answer.headers["www-authenticate"];
    assert!(challenge.starts_with("Bearer realm=\"stream-manager\""), "{what}: {challenge}");
    answer.body["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test]
async fn health_and_the_documentation_need_no_token_and_every_other_operation_does() {
    let server = served(by_secret()).await;
    server.readiness.store_seen();
    for path in ["/health", "/health/live", "/health/ready", "/openapi.json", "/swagger"] {
        assert_eq!(server.call("GET", path).await.status, 200, "{path}");
    }
    let document: Value =
        serde_json::from_str(&stream_manager::http::api::openapi::openapi_document()).expect("JSON");
    let mut guarded = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            if !path.starts_with("/v1/") {
                assert!(operation["security"].is_null(), "{method} {path}");
                continue;
            }
            guarded += 1;
            assert_eq!(operation["security"], json!([{ "token": [] }, {}]), "{method} {path}");
            // Names and a body that are not valid: whoever has no token is not told so.
            let path = path.replace("{userName}", "%20").replace("{streamId}", "x");
            let answer = server.json(&method.to_uppercase(), &path, json!({ "unknown": 1 })).await;
            assert_refused(&answer, &path);
            assert!(!answer.headers["www-authenticate"].contains("error"), "there was no token to be wrong");
            let path = path.replace("%20", "bob");
            let answer = call(&server, &method.to_uppercase(), &path, &secretly(&anns())).await;
            assert_eq!((answer.status, &answer.body["code"]), (403, &json!("forbidden")), "{method} {path}");
            assert!(answer.headers["www-authenticate"].contains("scope=\"streams:admin\""), "{answer:?}");
        }
    }
    assert_eq!(guarded, 10);
}

#[test]
fn the_document_has_the_scheme_that_swagger_ui_asks_for_a_token_by() {
    let document: Value =
        serde_json::from_str(&stream_manager::http::api::openapi::openapi_document()).expect("JSON");
    let scheme = &document["components"]["securitySchemes"]["token"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    assert!(scheme["description"].as_str().expect("a text").contains("auth.mode"));
}

#[tokio::test]
async fn the_settings_of_a_secret_make_tokens_that_are_asked_for() {
    let environment: HashMap<String, String> = [
        ("MODE", "jwt"),
        ("HS256_SECRET", SECRET),
        ("ISSUER", ISSUER),
        ("AUDIENCE", "first, second"),
        ("USER_CLAIM", "preferred_username"),
    ]
    .map(|(key, value)| (format!("STREAM_MANAGER__AUTH__{key}"), value.to_owned()))
    .into();
    let config = stream_manager::config::Config::load(None, environment).expect("valid");
    let server = served(config.tokens().expect("tokens are asked for")).await;
    let claims = anns_but(json!({ "aud": "second", "sub": "f:1:2", "preferred_username": "ann" }));
    assert_eq!(count(&server, "ann", &secretly(&claims)).await.status, 200);
    let nameless = anns_but(json!({ "aud": "second" }));
    let detail = assert_refused(&count(&server, "ann", &secretly(&nameless)).await, "no such claim");
    assert!(detail.contains("preferred_username"), "{detail}");
}

#[tokio::test]
async fn every_algorithm_that_can_be_configured_is_checked() {
    for key in [Key::rsa("1"), Key::p256("2"), Key::p384("3"), Key::ed25519("4")] {
        for algorithm in key.algorithms() {
            let server = server_with(&[key.jwk()], &[algorithm]).await;
            let good = key.token_by(algorithm, &anns());
            assert_eq!(count(&server, "ann", &good).await.status, 200, "{algorithm}");
            let forged = format!("{good}AA");
            assert_refused(&count(&server, "ann", &forged).await, algorithm);
        }
    }
}
