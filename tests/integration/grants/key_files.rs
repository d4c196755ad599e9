//! The formats of key files, and the errors at startup.

use std::fs;
use std::sync::Arc;

use serde_json::json;
use stream_manager::clock::ManualClock;
use stream_manager::http::grants::authority::GrantAuthority;
use stream_manager::http::grants::{FileAlgorithm, GrantSettings};

use super::{Granting, JWKS, TestKey, assert_valid, file_settings, pem, verify_with_jwks};
use crate::test_app::TestApp;

/// The error for this signing key and these published keys.
async fn error(algorithm: FileAlgorithm, key: &str, published: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), key).unwrap();
    fs::write(folder.path().join("others"), published.unwrap_or_default()).unwrap();
    let files: &[&str] = if published.is_some() { &["others"] } else { &[] };
    open_error(file_settings(folder.path(), algorithm, files)).await
}

async fn open_error(settings: GrantSettings) -> String {
    let opened = GrantAuthority::open(settings, Arc::new(ManualClock::default()), Arc::default()).await;
    let error = opened.err().unwrap().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn pem_and_jwk_keys_sign() {
    for key in [TestKey::p256(), TestKey::ed25519()] {
        let comment = format!("A key for tests\n\n{}", key.pem().replace('\n', "\r\n"));
        let jwk = json!({ "keys": [key.jwk()] });
        for file in [key.pem(), comment, key.jwk().to_string(), format!("\n{:#}", key.jwk()), jwk.to_string()] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("key"), &file).unwrap();
            let settings = file_settings(folder.path(), key.algorithm(), &[]);
            let granting = Granting::start_in(folder, settings, TestApp::default()).await;
            let grant = granting.grant(json!({})).await;
            assert!(verify_with_jwks(&granting.server.call("GET", JWKS).await.body, &grant), "{file}");
            assert_valid(&granting.check(&grant).await, &file);
        }
    }
}

#[tokio::test]
async fn published_files_have_any_format() {
    let key = TestKey::p256();
    let (first, second) = (TestKey::ed25519(), TestKey::p256());
    for file in [
        first.pem() + &second.public_pem(),
        first.public_pem() + &second.pem(),
        json!({ "keys": [first.public_jwk(), second.jwk()] }).to_string(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), key.pem()).unwrap();
        fs::write(folder.path().join("others"), &file).unwrap();
        let settings = file_settings(folder.path(), key.algorithm(), &["others"]);
        let granting = Granting::start_in(folder, settings, TestApp::default()).await;
        let keys = granting.server.call("GET", JWKS).await.body["keys"].clone();
        assert_eq!((&keys[1]["x"], &keys[2]["x"]), (&first.public_jwk()["x"], &second.public_jwk()["x"]), "{file}");
        assert!(keys.to_string().find("\"d\"").is_none(), "private parts stay private");
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = open_error(file_settings(folder.path(), FileAlgorithm::Es256, &[])).await;
    let path = folder.path().join("key");
    assert!(missing.starts_with(&format!("grants.key_file {path:?} cannot be read: ")), "{missing}");
    fs::write(&path, TestKey::p256().pem()).unwrap();
    let missing = open_error(file_settings(folder.path(), FileAlgorithm::Es256, &["others"])).await;
    assert!(missing.starts_with("grants.published_keys ") && missing.contains("cannot be read"), "{missing}");
    fs::write(&path, vec![b' '; 65_537]).unwrap();
    let large = open_error(file_settings(folder.path(), FileAlgorithm::Es256, &[])).await;
    assert!(large.contains("more than 65536 bytes"), "{large}");
}

#[tokio::test]
async fn unsuitable_keys_are_explained() {
    use FileAlgorithm::{EdDsa, Es256};
    let (p256, ed25519, other) = (TestKey::p256(), TestKey::ed25519(), TestKey::p256());
    let mut mismatched = p256.jwk();
    mismatched["x"] = other.jwk()["x"].clone();
    let mut encryption = p256.jwk();
    encryption["use"] = "enc".into();
    let mut long_id = p256.jwk();
    long_id["kid"] = "x".repeat(129).into();
    let mut damaged = p256.pkcs8();
    damaged[60] ^= 1;
    let oct = json!({ "kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA" }).to_string();
    for (algorithm, key, problem) in [
        (Es256, String::new(), "is neither PEM nor a JWK"),
        (Es256, "key".to_owned(), "is neither PEM nor a JWK"),
        (Es256, "{".to_owned(), "is neither PEM nor a JWK"),
        (Es256, "{\"keys\":1}".to_owned(), "is neither PEM nor a JWK"),
        (Es256, ed25519.pem(), "is not a P-256 key"),
        (EdDsa, p256.pem(), "is not an Ed25519 key"),
        (Es256, p256.public_pem(), "has no private key in PKCS#8"),
        (Es256, p256.public_jwk().to_string(), "has no private key in PKCS#8"),
        (Es256, p256.pem() + &other.pem(), "must contain exactly one private key"),
        (Es256, pem("EC PRIVATE KEY", b"x"), "convert it with `openssl pkcs8 -topk8 -nocrypt`"),
        (Es256, pem("CERTIFICATE", b"x"), "has a key that is neither P-256 nor Ed25519"),
        (Es256, pem("PRIVATE KEY", b"x"), "has a key that is neither P-256 nor Ed25519"),
        (Es256, pem("PRIVATE KEY", &damaged), "has a key that is neither P-256 nor Ed25519"),
        (Es256, mismatched.to_string(), "has a key that is neither P-256 nor Ed25519"),
        (Es256, long_id.to_string(), "has a key id (kid) that is empty or longer than 128 bytes"),
        (Es256, encryption.to_string(), "has a key that is neither P-256 nor Ed25519"),
        (Es256, oct, "has a key that is neither P-256 nor Ed25519"),
    ] {
        let error = error(algorithm, &key, None).await;
        assert!(error.starts_with("grants.key_file ") && error.contains(problem), "{problem}: {error}");
    }
}

#[tokio::test]
async fn unsuitable_published_keys_are_explained() {
    let key = TestKey::p256();
    let mut off_curve = key.public_jwk();
    off_curve["x"] = key.public_jwk()["y"].clone();
    let rsa = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" });
    for published in [json!({ "keys": [off_curve] }), json!({ "keys": [rsa] }), json!({ "keys": [1] })] {
        let error = error(FileAlgorithm::Es256, &key.pem(), Some(&published.to_string())).await;
        assert!(error.starts_with("grants.published_keys ") && error.contains("neither P-256 nor"), "{error}");
    }
    let many: Vec<_> = (0..20).map(|_| TestKey::ed25519().public_jwk()).collect();
    let error = error(FileAlgorithm::Es256, &key.pem(), Some(&json!({ "keys": many }).to_string())).await;
    assert_eq!(error, "grants.published_keys: at most 19 keys can be published, there are 20");
}
