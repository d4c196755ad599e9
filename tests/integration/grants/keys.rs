//! The key set, and changes of keys without a restart.

use std::fs;

use serde_json::{Value, json};
use stream_manager::http::grants::{GrantKeys, GrantSettings};

use super::{
    Granting, JWKS, SECRET, TestKey, assert_refused, assert_valid, file_settings, part, secret_settings, settings,
    verify_with_jwks,
};
use crate::captured_log::CapturedLog;
use crate::test_app::TestApp;

const OTHER_SECRET: &str = "the next secret of service and CDN";

async fn key_ids(granting: &Granting) -> Vec<Value> {
    let jwks = granting.server.call("GET", JWKS).await.body;
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
}

/// A server with the signing key in the file `key`, and further keys in the JWKS file `others`.
async fn with_two_files(key: &TestKey, others: &[Value]) -> Granting {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), key.pem()).unwrap();
    fs::write(folder.path().join("others"), json!({ "keys": others }).to_string()).unwrap();
    let settings = file_settings(folder.path(), key.algorithm(), &["others"]);
    Granting::start_in(folder, settings, TestApp::default()).await
}

fn write(granting: &Granting, file: &str, content: impl AsRef<[u8]>) {
    fs::write(granting.folder.path().join(file), content).unwrap();
}

#[tokio::test]
async fn the_key_set_is_public_and_stable() {
    let (key, other) = (TestKey::p256(), TestKey::ed25519());
    let granting = with_two_files(&key, &[other.public_jwk()]).await;
    let set = granting.server.call("GET", JWKS).await;
    assert_eq!(granting.server.call("GET", JWKS).await.body.to_string(), set.body.to_string());
    let keys = set.body["keys"].as_array().unwrap();
    let named = |jwk: Value, algorithm: &str, index: usize| {
        let mut jwk = jwk;
        jwk["alg"] = algorithm.into();
        jwk["use"] = "sig".into();
        jwk["kid"] = keys[index]["kid"].clone();
        jwk
    };
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], named(key.public_jwk(), "ES256", 0), "no private part");
    assert_eq!(keys[1], named(other.public_jwk(), "EdDSA", 1));
    assert_eq!(set.headers["content-type"], "application/json; charset=utf-8");
}

#[tokio::test]
async fn key_ids_are_rfc_7638_thumbprints() {
    // The key and the thumbprint of RFC 8037, appendix A.3.
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let granting = with_two_files(&TestKey::p256(), &[jwk]).await;
    assert_eq!(key_ids(&granting).await[1], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[tokio::test]
async fn a_key_id_is_a_setting_or_in_the_jwk() {
    let key = TestKey::p256();
    let mut jwk = key.jwk();
    jwk["kid"] = "own".into();
    for (key_id, expected) in [(None, "own"), (Some("set".to_owned()), "set")] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), jwk.to_string()).unwrap();
        let settings = GrantSettings { key_id, ..file_settings(folder.path(), key.algorithm(), &[]) };
        let granting = Granting::start_in(folder, settings, TestApp::default()).await;
        assert_eq!(key_ids(&granting).await, [expected]);
        let grant = granting.grant(json!({})).await;
        assert_eq!(part(&grant, 0)["kid"], expected);
        assert_valid(&granting.check(&grant).await, expected);
    }
}

#[tokio::test]
async fn secrets_are_never_published() {
    let granting = Granting::with_secret().await;
    let set = granting.server.call("GET", JWKS).await;
    assert_eq!((set.status, set.body), (200, json!({ "keys": [] })));
}

#[tokio::test]
async fn further_secrets_are_accepted_and_do_not_sign() {
    let old = Granting::with_secret().await.grant(json!({})).await;
    let published = vec![SECRET.into()];
    let granting = Granting::start(settings(GrantKeys::Secrets { secret: OTHER_SECRET.into(), published })).await;
    let new = granting.grant(json!({})).await;
    assert_ne!(part(&new, 0)["kid"], part(&old, 0)["kid"]);
    assert_valid(&granting.check(&old).await, "the old secret");
    assert_valid(&granting.check(&new).await, "the new secret");
    assert_refused(&Granting::start(secret_settings()).await.check(&new).await, "not yet accepted");
}

#[tokio::test]
async fn keys_rotate_without_a_restart_or_a_refused_grant() {
    let (old, new) = (TestKey::p256(), TestKey::p256());
    let granting = with_two_files(&old, &[]).await;
    let first = granting.grant(json!({})).await;
    let old_id = part(&first, 0)["kid"].clone();

    write(&granting, "others", json!({ "keys": [new.public_jwk(), old.public_jwk()] }).to_string());
    granting.authority.reload().await;
    let published = granting.server.call("GET", JWKS).await.body;
    assert_eq!(published["keys"].as_array().unwrap().len(), 2, "the new key is published before it signs");
    assert_eq!(part(&granting.grant(json!({})).await, 0)["kid"], old_id);

    write(&granting, "key", new.pem());
    granting.authority.reload().await;
    let second = granting.grant(json!({})).await;
    assert_ne!(part(&second, 0)["kid"], old_id);
    assert!(verify_with_jwks(&published, &second), "a cached key set has the new key");
    for grant in [&first, &second] {
        assert_valid(&granting.check(grant).await, "both keys are accepted");
    }

    write(&granting, "others", json!({ "keys": [] }).to_string());
    granting.authority.reload().await;
    assert_refused(&granting.check(&first).await, "a withdrawn key, although the grant was verified before");
    assert_valid(&granting.check(&second).await, "the new key");
    assert_eq!(key_ids(&granting).await.len(), 1);
}

#[tokio::test]
async fn a_broken_key_file_keeps_the_old_key_and_is_logged_once() {
    let key = TestKey::p256();
    let granting = with_two_files(&key, &[]).await;
    let grant = granting.grant(json!({})).await;
    let (log, _guard) = CapturedLog::start();
    let events = async |file: &str, content: &str| {
        write(&granting, file, content);
        granting.authority.reload().await;
        granting.authority.reload().await;
        let events = log.take();
        events.into_iter().map(|line| (line["event"].clone(), line["error"].clone())).collect::<Vec<_>>()
    };
    for (file, content) in [
        ("key", "damaged"),
        ("key", "{\"kty\":\"EC\"}"),
        ("key", &TestKey::ed25519().pem()),
        ("key", &TestKey::p256().public_pem()),
        ("others", "[]"),
    ] {
        let logged = events(file, content).await;
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert_eq!(logged[0].0, "grant_keys_reload_failed");
        assert!(logged[0].1.as_str().unwrap().contains(file), "{logged:?}");
    }
    assert_valid(&granting.check(&grant).await, "the old key");
    assert_eq!(part(&granting.grant(json!({})).await, 0)["kid"], part(&grant, 0)["kid"]);
    fs::remove_file(granting.folder.path().join("others")).unwrap();
    for _ in 0..3 {
        granting.authority.reload().await;
    }
    assert_eq!(log.take().len(), 1, "a missing file");
    let other = TestKey::p256();
    let loaded = events("key", &other.pem()).await;
    assert_eq!((loaded.len(), &loaded[0].0), (1, &json!("grant_keys_loaded")), "{loaded:?}");
    assert_ne!(part(&granting.grant(json!({})).await, 0)["kid"], part(&grant, 0)["kid"]);
}

#[tokio::test]
async fn two_keys_with_one_id_keep_the_old_keys() {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let granting = with_two_files(&key, &[]).await;
    let grant = granting.grant(json!({})).await;
    let mut conflicting = other.public_jwk();
    conflicting["kid"] = part(&grant, 0)["kid"].clone();
    let (log, _guard) = CapturedLog::start();
    write(&granting, "others", json!({ "keys": [conflicting] }).to_string());
    granting.authority.reload().await;
    assert_eq!(log.take()[0]["event"], "grant_keys_reload_failed");
    assert_valid(&granting.check(&grant).await, "the old key");
    write(&granting, "others", json!({ "keys": [key.public_jwk()] }).to_string());
    granting.authority.reload().await;
    assert_eq!(key_ids(&granting).await.len(), 1, "the signing key in both files counts once");
}

#[tokio::test]
async fn an_unpublished_signing_key_is_reported() {
    let key = TestKey::p256();
    let granting = with_two_files(&key, &[]).await;
    let id = key_ids(&granting).await.remove(0);
    let mut with_same_id = TestKey::p256().jwk();
    with_same_id["kid"] = json!(id);
    let (log, _guard) = CapturedLog::start();
    for new_key in [TestKey::p256().pem(), key.pem(), with_same_id.to_string()] {
        write(&granting, "key", new_key);
        granting.authority.reload().await;
        let line = &log.take()[0];
        assert_eq!((&line["event"], &line["was_published"]), (&json!("grant_keys_loaded"), &json!(false)));
    }
}
