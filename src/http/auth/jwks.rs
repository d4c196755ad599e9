//! A key set (JWKS, RFC 7517): which keys of it are used, and for which signatures each. Pure.

use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use thiserror::Error;

use super::TokenError;

/// Issuers have two or three.
const MAX_KEYS: usize = 100;
/// What RSA needs at least (RFC 7518, section 3.3), and what the verifier takes at most.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

pub struct KeySet {
    keys: Vec<Arc<Key>>,
    /// A shared secret: the only key, whatever a token calls it.
    shared: bool,
}

pub struct Key {
    kid: Option<String>,
    /// The signatures that it may make; never empty, and all of its own type.
    pub algorithms: Vec<Algorithm>,
    pub public: DecodingKey,
}

/// Why a text is no key set; stands after the name of its place.
#[derive(Debug, Error)]
pub enum KeySetError {
    #[error("is not a key set: must be JSON, {{\"keys\":[…]}}")]
    NotASet,
    #[error("has {0} keys, more than {MAX_KEYS}")]
    TooMany(usize),
    #[error("has no key for one of auth.algorithms")]
    NoneUsable,
}

impl KeySet {
    /// Takes the keys that can check one of `allowed`, and passes over the others: issuers publish keys for
    /// encryption, and for algorithms to come.
    pub fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| KeySetError::NotASet)?;
        let keys = set["keys"].as_array().ok_or(KeySetError::NotASet)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        let keys: Vec<Arc<Key>> = keys.iter().filter_map(|key| Key::parse(key, allowed)).map(Arc::new).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoneUsable);
        }
        Ok(Self { keys, shared: false })
    }

    pub fn secret(secret: &[u8]) -> Self {
        let public = DecodingKey::from_secret(secret);
        let key = Key { kid: None, algorithms: vec![Algorithm::HS256], public };
        Self { keys: vec![Arc::new(key)], shared: true }
    }

    /// The key that a token names, if it may sign so.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, TokenError> {
        let mut named = self.keys.iter().filter(|key| self.shared || kid.is_none() || key.kid.as_deref() == kid);
        let Some(first) = named.next() else { return Err(TokenError::UnknownKey) };
        if kid.is_none() && self.keys.len() > 1 {
            return Err(TokenError::NoKeyNamed);
        }
        // Keys of several types may have one name (RFC 7517, section 4.5).
        let mut named = [first].into_iter().chain(named);
        named.find(|key| key.algorithms.contains(&algorithm)).map(Arc::clone).ok_or(TokenError::Algorithm)
    }
}

impl Key {
    fn parse(key: &Value, allowed: &[Algorithm]) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let verifies = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let fitting = signatures(&jwk.algorithm);
        let algorithms = allowed.iter().filter(|algorithm| fitting.contains(algorithm));
        // What the issuer says its key is for, it is for that alone.
        let own = jwk.common.key_algorithm;
        let algorithms = algorithms.filter(|algorithm| own.is_none_or(|own| own == KeyAlgorithm::from(**algorithm)));
        let algorithms: Vec<Algorithm> = algorithms.copied().collect();
        if algorithms.is_empty() {
            return None;
        }
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id, algorithms, public })
    }
}

/// What a key of this type can sign. Nothing for a symmetric key: a secret that is published is none.
fn signatures(key: &AlgorithmParameters) -> &'static [Algorithm] {
    match key {
        AlgorithmParameters::RSA(key) if RSA_BITS.contains(&rsa_bits(&key.n)) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match (&key.curve, bytes(&key.x), bytes(&key.y)) {
            (EllipticCurve::P256, 32, 32) => &[Algorithm::ES256],
            (EllipticCurve::P384, 48, 48) => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 && bytes(&key.x) == 32 => {
            &[Algorithm::EdDSA]
        }
        _ => &[],
    }
}

/// The library finds out at the first token only that a number has not the length of its curve.
fn bytes(number: &str) -> usize {
    BASE64_URL_SAFE_NO_PAD.decode(number).map_or(0, |bytes| bytes.len())
}

fn rsa_bits(modulus: &str) -> usize {
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    let leading = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
    let first = modulus.get(leading).map_or(0, |byte| byte.leading_zeros() as usize);
    (modulus.len() - leading) * 8 - first
}
