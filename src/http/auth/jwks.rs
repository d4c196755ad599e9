//! Reads a JWKS (RFC 7517) and selects the key that a token names.

use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use thiserror::Error;

use super::TokenError;

/// Maximum number of keys in a JWKS. Issuers usually publish two or three.
const MAX_KEYS: usize = 100;
/// Allowed sizes of an RSA key. RFC 7518, section 3.3, sets the minimum. The crypto library sets the maximum.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

pub(crate) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Whether the only key is a shared secret. The secret verifies every token, regardless of the token's `kid`.
    is_secret: bool,
}

pub(crate) struct Key {
    kid: Option<String>,
    /// The signature algorithms that this key may verify. Never empty. All of them match the type of the key.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) decoding_key: DecodingKey,
}

/// The reason why a JWKS is unusable. The caller's error puts the name of the source before this text.
#[derive(Debug, Error)]
pub enum KeySetError {
    #[error("is not a JWKS: must be JSON, {{\"keys\":[…]}}")]
    Malformed,
    #[error("has {0} keys (at most {MAX_KEYS} are allowed)")]
    TooMany(usize),
    #[error("has no key for any of auth.algorithms")]
    NoneUsable,
}

impl KeySet {
    /// Keeps the keys that can verify at least one of the `allowed` algorithms. Other keys are skipped, not rejected,
    /// because issuers also publish keys for encryption and for newer algorithms.
    pub(crate) fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let keys = set["keys"].as_array().ok_or(KeySetError::Malformed)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        let keys: Vec<Arc<Key>> = keys.iter().filter_map(|key| Key::parse(key, allowed)).map(Arc::new).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoneUsable);
        }
        Ok(Self { keys, is_secret: false })
    }

    pub(crate) fn from_secret(secret: &[u8]) -> Self {
        let decoding_key = DecodingKey::from_secret(secret);
        let key = Key { kid: None, algorithms: vec![Algorithm::HS256], decoding_key };
        Self { keys: vec![Arc::new(key)], is_secret: true }
    }

    /// Finds the key for a token with this `kid` and `algorithm`. A token without a `kid` is only accepted if the set has
    /// one key.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, TokenError> {
        let mut named = self.keys.iter().filter(|key| self.is_secret || kid.is_none() || key.kid.as_deref() == kid);
        let Some(first) = named.next() else { return Err(TokenError::UnknownKey) };
        if kid.is_none() && self.keys.len() > 1 {
            return Err(TokenError::NoKeyId);
        }
        // Keys of different types may have the same `kid` (RFC 7517, section 4.5).
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
        let possible = possible_algorithms(&jwk.algorithm);
        let algorithms = allowed.iter().filter(|algorithm| possible.contains(algorithm));
        // If the JWK has an `alg`, the key may verify only that algorithm.
        let own = jwk.common.key_algorithm;
        let algorithms = algorithms.filter(|algorithm| own.is_none_or(|own| own == KeyAlgorithm::from(**algorithm)));
        let algorithms: Vec<Algorithm> = algorithms.copied().collect();
        if algorithms.is_empty() {
            return None;
        }
        let decoding_key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id, algorithms, decoding_key })
    }
}

/// The algorithms that a key of this type can verify. Empty for a symmetric key, because a published secret is not
/// secret.
fn possible_algorithms(key: &AlgorithmParameters) -> &'static [Algorithm] {
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

/// The length of a coordinate in bytes, or 0 if it is malformed. `jsonwebtoken` would report a wrong length only when it
/// verifies a token.
fn bytes(coordinate: &str) -> usize {
    BASE64_URL_SAFE_NO_PAD.decode(coordinate).map_or(0, |bytes| bytes.len())
}

fn rsa_bits(modulus: &str) -> usize {
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    let leading = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
    let first = modulus.get(leading).map_or(0, |byte| byte.leading_zeros() as usize);
    (modulus.len() - leading) * 8 - first
}
