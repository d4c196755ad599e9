//! The JWKS cache: it fetches and refreshes keys, and keeps them while the issuer fails. Also tests keys in a file.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{KeySource, TokenSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::issuer::{Key, base64, hs256, token};
use super::{
    assert_accepted, assert_token_refused, call, count, jwks_file, serve, serve_with_keys, serve_with_verifier,
    settings, valid_claims, write_jwks,
};
use crate::support::eventually;
use crate::test_app::TestServer;

const DAY_MS: i64 = 24 * 3600 * 1000;
const ALGORITHMS: [&str; 2] = ["RS256", "ES256"];

/// The response of a JWKS server.
#[derive(Clone, Debug)]
pub enum JwksReply {
    Keys(Value),
    Body(String),
    Status(u16),
    Redirect(String),
    /// A body that never ends.
    Endless,
    /// No response.
    Hang,
}

pub fn key_set(keys: &[Key]) -> JwksReply {
    JwksReply::Keys(keys.iter().map(Key::jwk).collect())
}

/// The key set of an issuer, served on loopback.
pub struct JwksServer {
    pub url: String,
    reply: Arc<Mutex<JwksReply>>,
    requests: Arc<AtomicUsize>,
}

impl JwksServer {
    pub async fn start(reply: JwksReply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
        let (reply, requests) = (Arc::new(Mutex::new(reply)), Arc::new(AtomicUsize::new(0)));
        let (current, counter) = (Arc::clone(&reply), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(respond(stream, Arc::clone(&current), Arc::clone(&counter)));
            }
        });
        Self { url, reply, requests }
    }

    pub fn set_reply(&self, reply: JwksReply) {
        *self.reply.lock().unwrap() = reply;
    }

    pub fn request_count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn respond(mut stream: TcpStream, reply: Arc<Mutex<JwksReply>>, requests: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let reply = reply.lock().unwrap().clone();
    let (status, more, body) = match reply {
        JwksReply::Keys(keys) => (200, String::new(), json!({ "keys": keys }).to_string()),
        JwksReply::Body(text) => (200, String::new(), text),
        JwksReply::Status(status) => (status, String::new(), json!({ "keys": [Key::rsa("a").jwk()] }).to_string()),
        JwksReply::Redirect(to) => (302, format!("Location: {to}\r\n"), String::new()),
        JwksReply::Hang => std::future::pending().await,
        JwksReply::Endless => {
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
            while stream.write_all(&[b' '; 65536]).await.is_ok() {}
            return;
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// Starts a server that fetches its keys from `jwks`. Also returns its verifier and its clock. To allow another fetch, advance the clock
/// past the minimum refresh interval.
async fn serve_with_jwks(jwks: &JwksServer) -> (TestServer, Arc<TokenVerifier>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let settings = settings(KeySource::Url(jwks.url.clone()), &ALGORITHMS);
    // `open` succeeds even if the key set cannot be fetched.
    let tokens = Arc::new(TokenVerifier::open(settings, clock.clone(), Arc::default()).await.unwrap());
    let server = serve_with_verifier(Arc::clone(&tokens)).await;
    server.readiness.mark_store_seen();
    (server, tokens, clock)
}

fn file_settings(path: &Path) -> TokenSettings {
    settings(KeySource::File(path.to_owned()), &ALGORITHMS)
}

async fn assert_key_accepted(server: &TestServer, key: Key, context: &str) {
    assert_accepted(server, &key.token(&valid_claims()), context).await;
}

async fn assert_key_refused(server: &TestServer, key: Key, context: &str) {
    assert_token_refused(server, &key.token(&valid_claims()), context).await;
}

#[tokio::test]
async fn unknown_keys_refresh_the_cache_at_most_once_a_minute() {
    let (old, new, third) = (Key::rsa("old"), Key::p256("new"), Key::other_rsa("third"));
    let jwks = JwksServer::start(key_set(&[old])).await;
    let (server, _, clock) = serve_with_jwks(&jwks).await;
    assert_key_accepted(&server, old, "a cached key").await;
    assert_eq!(jwks.request_count(), 1, "a cached key needs no fetch");

    jwks.set_reply(key_set(&[old, new]));
    let both = [new.token(&valid_claims()), new.token(&valid_claims())];
    let both = join_all(both.iter().map(|token| count(&server, "ann", token))).await;
    assert!(both.iter().all(|response| response.status == 200), "both wait for one fetch: {both:?}");
    assert_eq!(jwks.request_count(), 2);

    jwks.set_reply(key_set(&[third]));
    for n in 0..20 {
        let forged = Key::other_rsa(["a", "b", "third"][n % 3]);
        assert_key_refused(&server, forged, forged.kid).await;
    }
    assert_eq!(jwks.request_count(), 2, "forged tokens cause no fetches");
    clock.advance_ms(59_999);
    assert_key_refused(&server, third, "within the minute").await;
    clock.advance_ms(1);
    assert_key_accepted(&server, third, "after the minute").await;
    assert_eq!(jwks.request_count(), 3);
    assert_key_refused(&server, old, "a withdrawn key").await;
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_cached_keys() {
    let key = Key::rsa("a");
    let elsewhere = JwksServer::start(key_set(&[Key::other_rsa("b")])).await;
    let jwks = JwksServer::start(key_set(&[key])).await;
    let (server, tokens, clock) = serve_with_jwks(&jwks).await;
    let too_many: Vec<Value> = (0..101).map(|_| key.jwk()).collect();
    let mut weak = key.jwk();
    weak["n"] = base64(&key.modulus()[128..]).into();
    let mut curve = Key::p256("e").jwk();
    curve["crv"] = "secp256k1".into();
    for reply in [
        JwksReply::Status(500),
        JwksReply::Status(404),
        JwksReply::Status(204),
        JwksReply::Redirect(elsewhere.url.clone()),
        JwksReply::Endless,
        JwksReply::Body(String::new()),
        JwksReply::Body("<html>".to_owned()),
        JwksReply::Body("[]".to_owned()),
        JwksReply::Body("{}".to_owned()),
        JwksReply::Body("{\"keys\":{}}".to_owned()),
        JwksReply::Keys(json!([])),
        JwksReply::Keys(json!([1, "a", null, {}])),
        JwksReply::Keys(Value::Array(too_many)),
        JwksReply::Keys(json!([weak])),
        JwksReply::Keys(json!([curve])),
        JwksReply::Keys(json!([Key::ed25519("not configured").jwk()])),
        JwksReply::Keys(json!([{ "kty": "oct", "kid": "a", "alg": "HS256", "k": "c2VjcmV0" }])),
    ] {
        jwks.set_reply(reply.clone());
        let error = tokens.refresh().await.unwrap_err().to_string();
        assert!(error.contains("auth.jwks_url") && !error.contains('\n'), "{reply:?}: {error}");
        clock.advance_ms(60_000);
        assert_key_accepted(&server, key, &format!("{reply:?}")).await;
        // The issuer may have this key, so the service does not refuse the token with 401.
        let unknown = count(&server, "ann", &Key::other_rsa("b").token(&valid_claims())).await;
        assert_eq!(unknown.status, 503, "{reply:?}: {unknown:?}");
    }
    assert_eq!(elsewhere.request_count(), 0, "redirects are not followed");
}

#[tokio::test]
async fn cached_keys_are_not_trusted_after_a_day_without_refresh() {
    let key = Key::rsa("a");
    let jwks = JwksServer::start(key_set(&[key])).await;
    let (server, tokens, clock) = serve_with_jwks(&jwks).await;
    jwks.set_reply(JwksReply::Status(500));
    clock.advance_ms(DAY_MS - 1);
    tokens.refresh().await.unwrap_err();
    assert_key_accepted(&server, key, "within the day").await;
    clock.advance_ms(1);
    for path in ["/v1/users/ann/streams/count", "/health/ready"] {
        let response = call(&server, "GET", path, &key.token(&valid_claims())).await;
        response.assert_problem(503, "keys-unavailable", path);
    }
    jwks.set_reply(key_set(&[key]));
    tokens.refresh().await.unwrap();
    assert_key_accepted(&server, key, "after a refresh").await;
}

#[tokio::test]
async fn an_endless_jwks_response_is_cut_off() {
    let jwks = JwksServer::start(JwksReply::Endless).await;
    let (_, tokens, _) = serve_with_jwks(&jwks).await;
    let error = tokens.refresh().await.unwrap_err().to_string();
    assert!(error.contains("more than 262144 bytes"), "{error}");
}

#[tokio::test]
async fn requests_are_503_until_keys_are_loaded() {
    let key = Key::rsa("a");
    let jwks = JwksServer::start(JwksReply::Status(503)).await;
    let (server, tokens, _) = serve_with_jwks(&jwks).await;
    let good = key.token(&valid_claims());
    for (request, response) in [
        ("a good token", count(&server, "ann", &good).await),
        ("a malformed token", count(&server, "ann", "nonsense").await),
        ("no token", server.call("GET", "/v1/users/ann/streams/count").await),
        ("readiness", server.call("GET", "/health/ready").await),
    ] {
        response.assert_problem(503, "keys-unavailable", request);
        assert!(response.headers.contains_key("retry-after"), "{response:?}");
    }
    assert_eq!(server.call("GET", "/health/live").await.status, 200);
    assert_eq!(jwks.request_count(), 1, "requests cause no fetch while no keys are loaded");
    jwks.set_reply(key_set(&[key]));
    tokens.refresh().await.unwrap();
    assert_accepted(&server, &good, "after a refresh").await;
    assert_eq!(server.call("GET", "/health/ready").await.status, 200);
}

#[tokio::test]
async fn a_hanging_issuer_delays_few_requests_and_no_cached_keys() {
    let key = Key::rsa("a");
    let jwks = JwksServer::start(key_set(&[key])).await;
    let (server, tokens, clock) = serve_with_jwks(&jwks).await;
    jwks.set_reply(JwksReply::Hang);
    clock.advance_ms(60_000);
    let unknown = Key::other_rsa("b").token(&valid_claims());
    let with_unknown_key = (0..40).map(|_| count(&server, "ann", &unknown));
    let with_cached_key = async {
        eventually(async || jwks.request_count() == 2).await;
        let begun = std::time::Instant::now();
        assert_key_accepted(&server, key, "a cached key").await;
        assert!(begun.elapsed() < Duration::from_secs(1), "a token with a cached key must not wait for the issuer");
        let in_flight = server.metrics.in_flight.get();
        assert!(in_flight <= 17, "{in_flight} requests wait for the issuer");
    };
    let (responses, ()) = tokio::join!(join_all(with_unknown_key), with_cached_key);
    assert!(responses.iter().all(|response| response.status == 503), "{responses:?}");
    assert!(tokens.has_keys());
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_every_ten_minutes() {
    let (old, new) = (Key::rsa("old"), Key::p256("new"));
    let file = jwks_file(&[old.jwk()]);
    let tokens = TokenVerifier::open(file_settings(file.path()), Arc::new(ManualClock::default()), Arc::default())
        .await
        .unwrap();
    let verifies = async |key: Key| tokens.verify(&key.token(&valid_claims())).await.is_ok();
    write_jwks(&file, &[new.jwk()]);
    // `refresh_regularly` never returns, so each timeout expires.
    tokio::time::timeout(Duration::from_secs(599), tokens.refresh_regularly()).await.unwrap_err();
    assert!(verifies(old).await, "before ten minutes");
    tokio::time::timeout(Duration::from_secs(602), tokens.refresh_regularly()).await.unwrap_err();
    assert!(verifies(new).await && !verifies(old).await, "after ten minutes");
}

#[tokio::test]
async fn keys_not_usable_for_signatures_are_ignored() {
    const SYMMETRIC: &[u8] = b"a secret that everybody can read here";
    let key = Key::rsa("a");
    let changed = |name: &str, value: Value| {
        let mut key = Key::other_rsa("other").jwk();
        key[name] = value;
        key
    };
    for other in [
        changed("use", json!("enc")),
        changed("key_ops", json!(["encrypt"])),
        changed("alg", json!("RS512")),
        changed("alg", json!("HS256")),
        changed("alg", json!("none")),
        changed("kty", json!("EC")),
        changed("n", json!("not base64!")),
        changed("n", json!(base64(&[0xff; 1025]))),
        json!({ "kty": "oct", "kid": "other", "k": base64(SYMMETRIC) }),
    ] {
        let server = serve_with_keys(&[other.clone(), key.jwk()], &["RS256"]).await;
        let other = other.to_string();
        assert_key_refused(&server, Key::other_rsa("other"), &other).await;
        let header = json!({ "alg": "HS256", "kid": "other" });
        let symmetric = token(&header, &valid_claims(), |message| hs256(SYMMETRIC, message));
        assert_token_refused(&server, &symmetric, &other).await;
        // The usable key is the only one, so a token needs no key id.
        let nameless = key.token_with(&json!({ "alg": "RS256" }), &valid_claims());
        assert_accepted(&server, &nameless, &other).await;
    }
}

#[tokio::test]
async fn keys_with_a_wrong_curve_or_length_are_ignored() {
    let usable = Key::rsa("a");
    let short = |length| json!(base64(&vec![7; length]));
    for (key, name, value) in [
        (Key::ed25519("other"), "x", short(31)),
        (Key::ed25519("other"), "crv", json!("P-256")),
        (Key::p256("other"), "x", short(31)),
        (Key::p256("other"), "y", short(31)),
        (Key::p384("other"), "x", short(47)),
        (Key::p384("other"), "y", short(47)),
        (Key::p384("other"), "crv", json!("P-256")),
    ] {
        let mut changed = key.jwk();
        changed[name] = value;
        let server = serve_with_keys(&[changed.clone(), usable.jwk()], &ALGORITHMS).await;
        // The service must ignore the changed key, so the reason is an unknown key id and not an invalid signature.
        let refused = count(&server, "ann", &key.token(&valid_claims())).await;
        assert_eq!(refused.status, 401, "{changed}");
        assert!(
            refused.body["detail"].as_str().unwrap().contains("no key with the token's key id"),
            "{changed}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn keys_of_different_types_can_share_an_id() {
    let (rsa, curve) = (Key::rsa("same"), Key::p256("same"));
    let server = serve_with_keys(&[rsa.jwk(), curve.jwk()], &["RS256", "ES256"]).await;
    for key in [rsa, curve] {
        assert_key_accepted(&server, key, key.algorithms()[0]).await;
    }
}

#[tokio::test]
async fn an_unknown_key_reloads_the_key_file() {
    let (old, new) = (Key::rsa("old"), Key::p256("new"));
    let file = jwks_file(&[old.jwk()]);
    let server = serve(file_settings(file.path())).await;
    write_jwks(&file, &[new.jwk()]);
    assert_key_accepted(&server, new, "in the changed file").await;
}

#[tokio::test]
async fn an_invalid_key_file_is_an_error() {
    let file = jwks_file(&[]);
    let open_error = async |path: &Path| {
        let tokens = TokenVerifier::open(file_settings(path), Arc::new(ManualClock::default()), Arc::default()).await;
        tokens.err().unwrap().to_string()
    };
    let oversized = " ".repeat(300_000);
    for (text, reason) in
        [("", "is not a JWKS"), ("{\"keys\":[]}", "no key for any of"), (oversized.as_str(), "more than")]
    {
        std::fs::write(file.path(), text).unwrap();
        let error = open_error(file.path()).await;
        let named = error.contains(&file.path().display().to_string()) && error.contains("auth.jwks_file");
        assert!(named && error.contains(reason), "{error}");
    }
    let error = open_error("/no/such.json".as_ref()).await;
    assert!(error.contains("/no/such.json") && error.contains("cannot be read"), "{error}");
}
