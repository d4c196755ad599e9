//! Bearer tokens. The service accepts tokens of real issuers and refuses known attacks, and a token gives access only to its own user.

mod attacks;
pub mod issuer;
mod keys;
mod labels;
mod limits;
mod permissions;
mod process;
mod providers;

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::config::Config;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{KeySource, TokenSettings};
use tempfile::NamedTempFile;

use self::issuer::{Key, hs256, token};
use crate::support::host_now;
use crate::test_app::{TestApp, TestResponse, TestServer, openapi};

pub const ISSUER: &str = "https://login.example.com/";
pub const AUDIENCE: &str = "https://streams.example.com";
pub const SECRET: &str = "a secret that issuer and service share";

/// Settings with these keys and algorithms. All other settings have fixed values.
pub fn settings(keys: KeySource, algorithms: &[&str]) -> TokenSettings {
    TokenSettings {
        keys,
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        issuer: ISSUER.to_owned(),
        audience: vec![AUDIENCE.to_owned(), "another-audience".to_owned()],
        user_claim: "sub".to_owned(),
        limit_claim: "max_streams".to_owned(),
        labels_claim: Some("labels".to_owned()),
        admin_scope: "streams:admin".to_owned(),
    }
}

pub fn hs256_settings() -> TokenSettings {
    settings(KeySource::Secret(SecretString::from(SECRET)), &["RS256"])
}

/// A file with a JSON Web Key Set.
pub fn jwks_file(keys: &[Value]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    write_jwks(&file, keys);
    file
}

pub fn write_jwks(file: &NamedTempFile, keys: &[Value]) {
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
}

/// A server that accepts tokens signed with these keys.
pub async fn serve_with_keys(keys: &[Value], algorithms: &[&str]) -> TestServer {
    let file = jwks_file(keys);
    serve(settings(KeySource::File(file.path().to_owned()), algorithms)).await
}

pub async fn serve(settings: TokenSettings) -> TestServer {
    let tokens = TokenVerifier::open(settings, Arc::new(ManualClock::default()), Arc::default()).await.unwrap();
    serve_with_verifier(Arc::new(tokens)).await
}

pub async fn serve_with_verifier(tokens: Arc<TokenVerifier>) -> TestServer {
    TestApp { tokens: Some(tokens), ..TestApp::default() }.serve().await
}

/// The host's time in seconds since 1970. The JWT library compares times in tokens with the host's time.
pub fn now_s() -> i64 {
    host_now().epoch_ms() / 1000
}

/// The smallest valid claims, for the user `ann`.
pub fn valid_claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now_s() + 600 })
}

/// The smallest valid claims with changes. `null` removes a claim.
pub fn claims_with(changes: Value) -> Value {
    let mut claims = valid_claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// A token signed with the shared secret.
pub fn sign_hs256(claims: &Value) -> String {
    token_with_header(&json!({ "alg": "HS256", "typ": "JWT" }), claims)
}

/// A token with this header, signed with the shared secret.
pub fn token_with_header(header: &Value, claims: &Value) -> String {
    token(header, claims, |message| hs256(SECRET.as_bytes(), message))
}

pub async fn count(server: &TestServer, user: &str, token: &str) -> TestResponse {
    call(server, "GET", &format!("/v1/users/{user}/streams/count"), token).await
}

/// Asserts that the token is accepted for the user `ann`.
pub async fn assert_accepted(server: &TestServer, token: &str, context: &str) {
    let response = count(server, "ann", token).await;
    assert_eq!(response.status, 200, "{context}: {response:?}");
}

/// Asserts that the token is refused, and returns the `detail` of the problem.
pub async fn assert_token_refused(server: &TestServer, token: &str, context: &str) -> String {
    assert_refused(&count(server, "ann", token).await, context)
}

pub async fn call(server: &TestServer, method: &str, path: &str, token: &str) -> TestResponse {
    send(server, method, path, &format!("Bearer {token}"), None).await
}

pub async fn send(
    server: &TestServer,
    method: &str,
    path: &str,
    authorization: &str,
    body: Option<Value>,
) -> TestResponse {
    let headers = [("authorization", authorization), ("content-type", "application/json")];
    let body = body.map(|body| body.to_string().into_bytes());
    server.send(method, path, &headers, body.unwrap_or_default()).await
}

/// Asserts a 401 with a challenge, and returns the `detail` of the problem.
pub fn assert_refused(response: &TestResponse, context: &str) -> String {
    response.assert_problem(401, "unauthorized", context);
    let challenge = &response.headers["www-authenticate"];
    assert!(challenge.starts_with("Bearer realm=\"stream-manager\""), "{context}: {challenge}");
    response.body["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_health_and_documentation_need_no_token() {
    let server = serve(hs256_settings()).await;
    server.readiness.mark_store_seen();
    for path in ["/health", "/health/live", "/health/ready", "/openapi.json", "/swagger"] {
        assert_eq!(server.call("GET", path).await.status, 200, "{path}");
    }
    let document = openapi();
    let mut guarded = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            // A gateway checks grants, and has no token of the player.
            if !path.starts_with("/v1/") || path == "/v1/grants/check" {
                assert_eq!(operation["security"], json!([]), "{method} {path}");
                continue;
            }
            guarded += 1;
            assert_eq!(operation["security"], json!([{ "token": [] }, {}]), "{method} {path}");
            // The service checks the token before names and bodies, so an invalid request without a token gets 401.
            let path = path.replace("{userName}", "%00").replace("{streamId}", "x");
            let response = server.json(&method.to_uppercase(), &path, json!({ "unknown": 1 })).await;
            assert_refused(&response, &path);
            let challenge = &response.headers["www-authenticate"];
            assert!(!challenge.contains("error"), "without a token there is no error to report: {challenge}");
            let path = path.replace("%00", "bob");
            let response = call(&server, &method.to_uppercase(), &path, &sign_hs256(&valid_claims())).await;
            response.assert_problem(403, "forbidden", &format!("{method} {path}"));
            assert!(response.headers["www-authenticate"].contains("scope=\"streams:admin\""), "{response:?}");
        }
    }
    assert_eq!(guarded, 12);
}

#[test]
fn the_document_declares_the_bearer_scheme() {
    let document = openapi();
    let scheme = &document["components"]["securitySchemes"]["token"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    assert!(scheme["description"].as_str().unwrap().contains("auth.mode"));
}

#[tokio::test]
async fn auth_settings_configure_token_verification() {
    let environment: HashMap<String, String> = [
        ("MODE", "jwt"),
        ("HS256_SECRET", SECRET),
        ("ISSUER", ISSUER),
        ("AUDIENCE", "first, second"),
        ("USER_CLAIM", "preferred_username"),
    ]
    .map(|(key, value)| (format!("STREAM_MANAGER__AUTH__{key}"), value.to_owned()))
    .into();
    let config = Config::load(None, environment).unwrap();
    let server = serve(config.tokens().unwrap()).await;
    let named = claims_with(json!({ "aud": "second", "sub": "f:1:2", "preferred_username": "ann" }));
    assert_accepted(&server, &sign_hs256(&named), "preferred_username").await;
    let nameless = claims_with(json!({ "aud": "second" }));
    let detail = assert_token_refused(&server, &sign_hs256(&nameless), "no preferred_username").await;
    assert!(detail.contains("preferred_username"), "{detail}");
}

#[tokio::test]
async fn every_supported_algorithm_verifies_signatures() {
    for key in [Key::rsa("1"), Key::p256("2"), Key::p384("3"), Key::ed25519("4")] {
        for algorithm in key.algorithms() {
            let server = serve_with_keys(&[key.jwk()], &[algorithm]).await;
            let good = key.token_by(algorithm, &valid_claims());
            assert_accepted(&server, &good, algorithm).await;
            assert_token_refused(&server, &format!("{good}AA"), algorithm).await;
        }
    }
}
