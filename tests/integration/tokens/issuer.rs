//! A token issuer: generated keys, and tokens with any header, claims and signature.

#![allow(clippy::unwrap_used, reason = "also part of a benchmark")]

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

#[derive(Clone, Copy)]
pub struct Key {
    pub kid: &'static str,
    pair: Pair,
}

#[derive(Clone, Copy)]
enum Pair {
    Rsa(&'static RsaKeyPair),
    P256(&'static EcdsaKeyPair),
    P384(&'static EcdsaKeyPair),
    Ed25519(&'static Ed25519KeyPair),
}

// Generate each key pair only once, because key generation is slow.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(rsa_pair);
static OTHER_RSA: LazyLock<RsaKeyPair> = LazyLock::new(rsa_pair);
static P256: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static P384: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn rsa_pair() -> RsaKeyPair {
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
}

impl Key {
    pub fn rsa(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Rsa(&RSA) }
    }

    pub fn other_rsa(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Rsa(&OTHER_RSA) }
    }

    pub fn p256(kid: &'static str) -> Self {
        Self { kid, pair: Pair::P256(&P256) }
    }

    pub fn p384(kid: &'static str) -> Self {
        Self { kid, pair: Pair::P384(&P384) }
    }

    pub fn ed25519(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Ed25519(&ED25519) }
    }

    /// The algorithms of this key. The first algorithm is its default.
    pub fn algorithms(&self) -> &'static [&'static str] {
        match self.pair {
            Pair::Rsa(_) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            Pair::P256(_) => &["ES256"],
            Pair::P384(_) => &["ES384"],
            Pair::Ed25519(_) => &["EdDSA"],
        }
    }

    /// The public key as a JWK without `alg`.
    pub fn jwk(&self) -> Value {
        let mut key = match self.pair {
            Pair::Rsa(_) => json!({ "kty": "RSA", "e": "AQAB", "n": base64(&self.modulus()) }),
            Pair::P256(pair) => ec_jwk("P-256", pair),
            Pair::P384(pair) => ec_jwk("P-384", pair),
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key().as_ref()) })
            }
        };
        key["kid"] = self.kid.into();
        key["use"] = "sig".into();
        key
    }

    pub fn modulus(&self) -> Vec<u8> {
        let Pair::Rsa(pair) = self.pair else { panic!("only RSA keys have a modulus") };
        pair.public_key().modulus().big_endian_without_leading_zero().to_vec()
    }

    /// The public key in PEM.
    pub fn pem(&self) -> String {
        let Pair::Rsa(pair) = self.pair else { panic!("this function supports only RSA keys") };
        let der: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let text = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    pub fn token(&self, claims: &Value) -> String {
        self.token_by(self.algorithms()[0], claims)
    }

    pub fn token_by(&self, algorithm: &str, claims: &Value) -> String {
        self.token_with(&json!({ "alg": algorithm, "kid": self.kid, "typ": "JWT" }), claims)
    }

    /// A token that is signed with the algorithm in the header if the key supports it, and with the default algorithm otherwise.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().filter(|name| self.algorithms().contains(name));
        token(header, claims, |message| self.sign(algorithm.unwrap_or(self.algorithms()[0]), message))
    }

    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self.pair {
            Pair::Rsa(pair) => {
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn ec_jwk(curve: &str, pair: &EcdsaKeyPair) -> Value {
    // The public key consists of the byte 4 and both coordinates.
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y) })
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

pub fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    token_from_text(&header.to_string(), &claims.to_string(), sign)
}

/// A token whose header and claims are any text, for example text that no JSON library writes.
pub fn token_from_text(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
    let signature = base64(&sign(message.as_bytes()));
    format!("{message}.{signature}")
}
