//! Where keys come from: a set that is fetched, fetched again, missing, wrong or slow, and a set in a file.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::http::auth::KeySource;
use stream_manager::http::auth::verifier::TokenVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::issuer::{Key, base64, hs256, token};
use super::{anns, assert_refused, count, server_with, settings};
use crate::server::TestServer;

/// What the issuer's address answers.
#[derive(Clone, Debug)]
pub enum Says {
    Keys(Value),
    Text(String),
    Status(u16),
    Redirect(String),
    /// More than is ever read; whether that was noticed shows in its being cut off.
    Endless,
    Nothing,
}

/// An issuer's key set on a loopback address.
pub struct Published {
    pub url: String,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
}

impl Published {
    pub async fn saying(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().expect("an address"));
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&says), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (answers, count) = (Arc::clone(&answers), Arc::clone(&count));
                tokio::spawn(async move { answer(stream, &answers, &count).await });
            }
        });
        Self { url, says, asked }
    }

    pub fn say(&self, says: Says) {
        *self.says.lock().expect("a lock") = says;
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: tokio::net::TcpStream, says: &Mutex<Says>, asked: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let says = says.lock().expect("a lock").clone();
    let (status, more, body) = match says {
        Says::Keys(keys) => (200, String::new(), json!({ "keys": keys }).to_string()),
        Says::Text(text) => (200, String::new(), text),
        Says::Status(status) => (status, String::new(), json!({ "keys": [Key::rsa("a").jwk()] }).to_string()),
        Says::Redirect(to) => (302, format!("Location: {to}\r\n"), String::new()),
        Says::Nothing => std::future::pending().await,
        Says::Endless => {
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
            while stream.write_all(&[b' '; 65536]).await.is_ok() {}
            return;
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// A service that fetches its keys there, and the clock by which it may fetch again.
async fn fetching(published: &Published) -> (TestServer, Arc<TokenVerifier>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let settings = settings(KeySource::Url(published.url.clone()), &["RS256", "ES256"]);
    let tokens =
        Arc::new(TokenVerifier::open(settings, clock.clone()).await.expect("a set that is away is no error"));
    let server = TestServer::with_tokens(Arc::clone(&tokens)).await;
    server.readiness.store_seen();
    (server, tokens, clock)
}

pub fn keys(keys: &[Key]) -> Says {
    Says::Keys(keys.iter().map(Key::jwk).collect())
}

#[tokio::test]
async fn an_unknown_key_has_the_set_fetched_at_most_once_a_minute() {
    let (old, new, third) = (Key::rsa("old"), Key::p256("new"), Key::other_rsa("third"));
    let published = Published::saying(keys(&[old])).await;
    let (server, _, clock) = fetching(&published).await;
    assert_eq!(count(&server, "ann", &old.token(&anns())).await.status, 200);
    assert_eq!(published.asked(), 1, "a known key costs nothing");

    published.say(keys(&[old, new]));
    let both = [new.token(&anns()), new.token(&anns())];
    let both = futures_util::future::join_all(both.iter().map(|token| count(&server, "ann", token))).await;
    assert!(both.iter().all(|answer| answer.status == 200), "each waits for the one fetch: {both:?}");
    assert_eq!(published.asked(), 2);

    published.say(keys(&[third]));
    for n in 0..20 {
        let made_up = Key::other_rsa(["a", "b", "third"][n % 3]);
        assert_refused(&count(&server, "ann", &made_up.token(&anns())).await, made_up.kid);
    }
    assert_eq!(published.asked(), 2, "an attacker cannot have the issuer asked");
    clock.advance_ms(59_999);
    assert_refused(&count(&server, "ann", &third.token(&anns())).await, "not yet");
    clock.advance_ms(1);
    assert_eq!(count(&server, "ann", &third.token(&anns())).await.status, 200);
    assert_eq!(published.asked(), 3);
    assert_refused(&count(&server, "ann", &old.token(&anns())).await, "a key that the issuer withdrew");
}

#[tokio::test]
async fn the_last_good_set_is_kept_whatever_the_issuer_says_meanwhile() {
    let key = Key::rsa("a");
    let elsewhere = Published::saying(keys(&[Key::other_rsa("b")])).await;
    let published = Published::saying(keys(&[key])).await;
    let (server, tokens, clock) = fetching(&published).await;
    let many: Vec<Value> = (0..101).map(|_| key.jwk()).collect();
    let mut weak = key.jwk();
    weak["n"] = base64(&key.modulus()[128..]).into();
    let mut curve = Key::p256("e").jwk();
    curve["crv"] = "secp256k1".into();
    for says in [
        Says::Status(500),
        Says::Status(404),
        Says::Status(204),
        Says::Redirect(elsewhere.url.clone()),
        Says::Endless,
        Says::Text(String::new()),
        Says::Text("<html>".to_owned()),
        Says::Text("[]".to_owned()),
        Says::Text("{}".to_owned()),
        Says::Text("{\"keys\":{}}".to_owned()),
        Says::Keys(json!([])),
        Says::Keys(json!([1, "a", null, {}])),
        Says::Keys(Value::Array(many)),
        Says::Keys(json!([weak])),
        Says::Keys(json!([curve])),
        Says::Keys(json!([Key::ed25519("not configured").jwk()])),
        Says::Keys(json!([{ "kty": "oct", "kid": "a", "alg": "HS256", "k": "c2VjcmV0" }])),
    ] {
        published.say(says.clone());
        let error = tokens.refresh().await.expect_err("no set").to_string();
        assert!(error.contains("auth.jwks_url") && !error.contains('\n'), "{says:?}: {error}");
        clock.advance_ms(60_000);
        assert_eq!(count(&server, "ann", &key.token(&anns())).await.status, 200, "{says:?}");
        let unknown = count(&server, "ann", &Key::other_rsa("b").token(&anns())).await;
        assert_eq!(unknown.status, 503, "nobody can say that the issuer has no such key: {says:?} {unknown:?}");
    }
    assert_eq!(elsewhere.asked(), 0, "no redirect is followed");
}

#[tokio::test]
async fn a_set_that_could_not_be_fetched_for_a_day_is_not_trusted_any_more() {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    let key = Key::rsa("a");
    let published = Published::saying(keys(&[key])).await;
    let (server, tokens, clock) = fetching(&published).await;
    published.say(Says::Status(500));
    clock.advance_ms(DAY_MS - 1);
    tokens.refresh().await.expect_err("no set");
    assert_eq!(count(&server, "ann", &key.token(&anns())).await.status, 200);
    clock.advance_ms(1);
    for path in ["/v1/users/ann/streams/count", "/health/ready"] {
        let answer = super::call(&server, "GET", path, &key.token(&anns())).await;
        assert_eq!((answer.status, &answer.body["code"]), (503, &json!("keys-unavailable")), "{answer:?}");
    }
    published.say(keys(&[key]));
    tokens.refresh().await.expect("keys");
    assert_eq!(count(&server, "ann", &key.token(&anns())).await.status, 200);
}

#[tokio::test]
async fn what_an_issuer_answers_without_end_is_cut_off() {
    let published = Published::saying(Says::Endless).await;
    let (_, tokens, _) = fetching(&published).await;
    let error = tokens.refresh().await.expect_err("no set").to_string();
    assert!(error.contains("more than 262144 bytes"), "{error}");
}

#[tokio::test]
async fn without_keys_nothing_is_judged_until_there_are_some() {
    let key = Key::rsa("a");
    let published = Published::saying(Says::Status(503)).await;
    let (server, tokens, _) = fetching(&published).await;
    let good = key.token(&anns());
    for answer in [
        count(&server, "ann", &good).await,
        count(&server, "ann", "nonsense").await,
        server.call("GET", "/v1/users/ann/streams/count").await,
        server.call("GET", "/health/ready").await,
    ] {
        assert_eq!((answer.status, &answer.body["code"]), (503, &json!("keys-unavailable")), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert_eq!(server.call("GET", "/health/live").await.status, 200);
    assert_eq!(published.asked(), 1, "calls do not ask for keys where there are none: the background does");
    published.say(keys(&[key]));
    tokens.refresh().await.expect("keys");
    assert_eq!(count(&server, "ann", &good).await.status, 200);
    assert_eq!(server.call("GET", "/health/ready").await.status, 200);
}

#[tokio::test]
async fn an_issuer_that_hangs_holds_up_few_and_none_whose_key_is_known() {
    let key = Key::rsa("a");
    let published = Published::saying(keys(&[key])).await;
    let (server, tokens, clock) = fetching(&published).await;
    published.say(Says::Nothing);
    clock.advance_ms(60_000);
    let unknown = Key::other_rsa("b").token(&anns());
    let made_up = (0..40).map(|_| count(&server, "ann", &unknown));
    let good = async {
        while published.asked() < 2 {
            tokio::task::yield_now().await;
        }
        let begun = std::time::Instant::now();
        assert_eq!(count(&server, "ann", &key.token(&anns())).await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "it waits for nothing");
        assert!(server.metrics.in_flight.get() <= 17, "few wait, and hold places: {:?}", server.metrics.in_flight);
    };
    let (refused, ()) = tokio::join!(futures_util::future::join_all(made_up), good);
    assert!(refused.iter().all(|answer| answer.status == 503), "{refused:?}");
    assert!(tokens.has_keys());
}

#[tokio::test(start_paused = true)]
async fn a_set_is_read_again_every_ten_minutes() {
    let (old, new) = (Key::rsa("old"), Key::p256("new"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), json!({ "keys": [old.jwk()] }).to_string()).expect("a write");
    let by_file = settings(KeySource::File(file.path().to_owned()), &["RS256", "ES256"]);
    let tokens = TokenVerifier::open(by_file, Arc::new(ManualClock::default())).await.expect("keys");
    std::fs::write(file.path(), json!({ "keys": [new.jwk()] }).to_string()).expect("a write");
    let too_early = tokio::time::timeout(Duration::from_secs(599), tokens.keep_fresh()).await;
    assert!(too_early.is_err() && tokens.check(&old.token(&anns())).await.is_ok(), "not yet");
    let long_enough = tokio::time::timeout(Duration::from_secs(602), tokens.keep_fresh()).await;
    assert!(long_enough.is_err(), "it never ends");
    assert!(tokens.check(&new.token(&anns())).await.is_ok() && tokens.check(&old.token(&anns())).await.is_err());
}

#[tokio::test]
async fn keys_that_are_not_for_signatures_are_passed_over() {
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
        json!({ "kty": "oct", "kid": "other", "k": base64(b"a secret that everybody can read here") }),
    ] {
        let server = server_with(&[other.clone(), key.jwk()], &["RS256"]).await;
        let named = Key::other_rsa("other").token(&anns());
        assert_refused(&count(&server, "ann", &named).await, &other.to_string());
        let symmetric = token(&json!({ "alg": "HS256", "kid": "other" }), &anns(), |message| {
            hs256(b"a secret that everybody can read here", message)
        });
        assert_refused(&count(&server, "ann", &symmetric).await, &other.to_string());
        // It does not count as one of several either.
        let nameless = key.token_with(&json!({ "alg": "RS256" }), &anns());
        assert_eq!(count(&server, "ann", &nameless).await.status, 200, "{other}");
    }
}

#[tokio::test]
async fn keys_of_two_types_may_have_one_name() {
    let (rsa, curve) = (Key::rsa("same"), Key::p256("same"));
    let server = server_with(&[rsa.jwk(), curve.jwk()], &["RS256", "ES256"]).await;
    for key in [rsa, curve] {
        assert_eq!(count(&server, "ann", &key.token(&anns())).await.status, 200);
    }
}

#[tokio::test]
async fn a_file_is_read_again_and_one_that_is_none_stops_the_start() {
    let (old, new) = (Key::rsa("old"), Key::p256("new"));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    write!(file, "{}", json!({ "keys": [old.jwk()] })).expect("a write");
    let clock = Arc::new(ManualClock::default());
    let by_file = |path: &std::path::Path| settings(KeySource::File(path.to_owned()), &["RS256", "ES256"]);
    let tokens = TokenVerifier::open(by_file(file.path()), clock.clone()).await.expect("keys");
    let server = TestServer::with_tokens(Arc::new(tokens)).await;
    std::fs::write(file.path(), json!({ "keys": [new.jwk()] }).to_string()).expect("a write");
    assert_eq!(count(&server, "ann", &new.token(&anns())).await.status, 200, "an unknown key has it read again");

    for (bad, why) in [("", "is not a key set"), ("{\"keys\":[]}", "no key for one of"), (" ", "is not a key set")] {
        let bad = if bad == " " { " ".repeat(300_000) } else { bad.to_owned() };
        std::fs::write(file.path(), &bad).expect("a write");
        let error =
            TokenVerifier::open(by_file(file.path()), clock.clone()).await.err().expect("an error").to_string();
        let named = error.contains(&file.path().display().to_string()) && error.contains("auth.jwks_file");
        assert!(named && (error.contains(why) || error.contains("more than")), "{error}");
    }
    let error =
        TokenVerifier::open(by_file("/no/such.json".as_ref()), clock).await.err().expect("an error").to_string();
    assert!(error.contains("/no/such.json") && error.contains("cannot be read"), "{error}");
}
