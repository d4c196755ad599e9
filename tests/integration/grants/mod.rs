//! Grants: signed with every start and heartbeat, checked for gateways, and verifiable with the published keys.

mod attacks;
mod check;
mod key_files;
mod keys;
mod process;
mod signing;

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::http::grants::authority::GrantAuthority;
use stream_manager::http::grants::{FileAlgorithm, GrantKeys, GrantSettings};
use stream_manager::telemetry::metrics::Metrics;
use tempfile::TempDir;

use crate::test_app::{STREAMS, TestApp, TestResponse, TestServer};

const ISSUER: &str = "https://streams.example.com";
const AUDIENCE: &str = "https://media.example.com";
const SECRET: &str = "a secret that only service and CDN know";
const CHECK: &str = "/v1/grants/check";
const JWKS: &str = "/.well-known/jwks.json";
const NOW_S: i64 = 1_790_000_000;

/// A key pair that can be written in every format of a key file.
pub struct TestKey {
    pair: Pair,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl TestKey {
    pub fn p256() -> Self {
        Self { pair: Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub fn ed25519() -> Self {
        Self { pair: Pair::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    pub fn pkcs8(&self) -> Vec<u8> {
        match &self.pair {
            Pair::P256(pair) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    pub fn pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8())
    }

    pub fn public_pem(&self) -> String {
        use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
        let der: PublicKeyX509Der = match &self.pair {
            Pair::P256(pair) => pair.public_key().as_der().unwrap(),
            Pair::Ed25519(pair) => pair.public_key().as_der().unwrap(),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    /// The raw public key.
    pub fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::P256(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub fn public_jwk(&self) -> Value {
        let public = self.public();
        match &self.pair {
            Pair::P256(_) => {
                let (x, y) = public[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": base64_url(x), "y": base64_url(y) })
            }
            Pair::Ed25519(_) => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64_url(&public) }),
        }
    }

    pub fn jwk(&self) -> Value {
        use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
        let mut jwk = self.public_jwk();
        jwk["d"] = match &self.pair {
            Pair::P256(pair) => {
                let private: EcPrivateKeyBin = pair.private_key().as_be_bytes().unwrap();
                base64_url(private.as_ref()).into()
            }
            Pair::Ed25519(pair) => {
                let seed: aws_lc_rs::encoding::Curve25519SeedBin = pair.seed().unwrap().as_be_bytes().unwrap();
                base64_url(seed.as_ref()).into()
            }
        };
        jwk
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub fn algorithm(&self) -> FileAlgorithm {
        match &self.pair {
            Pair::P256(_) => FileAlgorithm::Es256,
            Pair::Ed25519(_) => FileAlgorithm::EdDsa,
        }
    }
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub fn base64_url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A server with grants, and what tests need to look inside.
pub struct Granting {
    pub server: TestServer,
    pub authority: Arc<GrantAuthority>,
    pub metrics: Arc<Metrics>,
    pub folder: TempDir,
}

pub fn settings(keys: GrantKeys) -> GrantSettings {
    GrantSettings {
        keys,
        key_id: None,
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        leeway_s: 0,
        subject_key: None,
        cookie: "grant".to_owned(),
        query_parameter: "grant".to_owned(),
        content_path: None,
    }
}

pub fn secret_settings() -> GrantSettings {
    settings(GrantKeys::Secrets { secret: SecretString::from(SECRET), published: Vec::new() })
}

/// Settings whose signing key is in `folder/key`, and whose other keys are in the named files of `folder`.
pub fn file_settings(folder: &Path, algorithm: FileAlgorithm, published: &[&str]) -> GrantSettings {
    let published = published.iter().map(|name| folder.join(name)).collect();
    settings(GrantKeys::Files { algorithm, key_file: folder.join("key"), published })
}

impl Granting {
    pub async fn start(settings: GrantSettings) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings, TestApp::default()).await
    }

    /// A server that signs with HS256.
    pub async fn with_secret() -> Self {
        Self::start(secret_settings()).await
    }

    /// A server that signs with this key, in PEM.
    pub async fn with_key(key: &TestKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), key.pem()).unwrap();
        let settings = file_settings(folder.path(), key.algorithm(), &[]);
        Self::start_in(folder, settings, TestApp::default()).await
    }

    pub async fn start_in(folder: TempDir, settings: GrantSettings, app: TestApp) -> Self {
        let metrics = Arc::new(Metrics::new());
        let clock: Arc<ManualClock> = Arc::clone(&app.clock);
        let authority = GrantAuthority::open(settings, clock, Arc::clone(&metrics)).await.unwrap();
        let authority = Arc::new(authority);
        let server = TestApp { grants: Some(Arc::clone(&authority)), ..app }.serve().await;
        Self { server, authority, metrics, folder }
    }

    /// Starts a stream of `ann` and returns the response.
    pub async fn start_stream(&self, body: Value) -> TestResponse {
        let response = self.server.json("POST", STREAMS, body).await;
        assert_eq!(response.status, 201, "{response:?}");
        response
    }

    /// The grant of a new stream.
    pub async fn grant(&self, body: Value) -> String {
        self.start_stream(body).await.grant()
    }

    /// Checks a grant in `Authorization`.
    pub async fn check(&self, grant: &str) -> TestResponse {
        self.check_with(CHECK, &[("authorization", &format!("Bearer {grant}"))]).await
    }

    pub async fn check_with(&self, path: &str, headers: &[(&str, &str)]) -> TestResponse {
        self.server.send("GET", path, headers, Vec::new()).await
    }

    #[track_caller]
    pub fn assert_count(&self, outcome: &str, count: f64) {
        let series = format!("grant_checks_total{{outcome=\"{outcome}\"}}");
        assert_eq!(crate::metrics::value(&self.metrics, &series), Some(count), "{outcome}");
    }
}

impl TestResponse {
    pub fn grant(&self) -> String {
        self.body["grant"].as_str().unwrap_or_else(|| panic!("no grant: {self:?}")).to_owned()
    }
}

/// Asserts a 204.
#[track_caller]
pub fn assert_valid(response: &TestResponse, context: &str) {
    assert_eq!((response.status, &response.body), (204, &json!("")), "{context}: {response:?}");
}

/// Asserts a 401 with a challenge, and returns the `detail` of the problem.
#[track_caller]
pub fn assert_refused(response: &TestResponse, context: &str) -> String {
    response.assert_problem(401, "unauthorized", context);
    assert!(response.headers["www-authenticate"].starts_with("Bearer "), "{context}");
    response.body["detail"].as_str().unwrap().to_owned()
}

/// A part of a token as JSON: 0 is the header, 1 are the claims.
pub fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// Verifies a token like a CDN: with the key of a JWKS that the token names, and without the service's JWT library.
pub fn verify_with_jwks(jwks: &Value, token: &str) -> bool {
    let header = part(token, 0);
    let keys = jwks["keys"].as_array().unwrap();
    let Some(key) = keys.iter().find(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"]) else {
        return false;
    };
    let coordinate = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verified = match key["crv"].as_str().unwrap() {
        "P-256" => {
            let point = [vec![4], coordinate("x"), coordinate("y")].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message.as_bytes(), &signature)
        }
        _ => UnparsedPublicKey::new(&ED25519, coordinate("x")).verify(message.as_bytes(), &signature),
    };
    verified.is_ok()
}
