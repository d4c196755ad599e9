//! The keys in use: signs and verifies grants, and remembers verified grants.

use std::sync::Arc;

use aws_lc_rs::digest;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::Serialize;
use uuid::Uuid;

use super::claims::{SignedClaims, VerifiedClaims};
use super::key_parser::Key;
use super::{Grant, GrantError, GrantKeyError, MAX_GRANT_BYTES, PublicKey, PublicPoint};

/// Maximum number of keys, including the signing key.
const MAX_KEYS: usize = 20;

/// Maximum number of remembered grants. A player sends the same grant with every segment. The entries take at most 50 MB,
/// usually 10 MB.
const MAX_VERIFIED: usize = 50_000;

pub(super) struct KeyRing {
    header: Header,
    encoding_key: EncodingKey,
    /// The signing key comes first.
    keys: Vec<VerificationKey>,
    /// Verified grants by the SHA-256 hash of the token. They are part of the key ring, so that new keys begin with an empty cache.
    verified: Cache<[u8; digest::SHA256_OUTPUT_LEN], Arc<Grant>>,
}

struct VerificationKey {
    id: String,
    thumbprint: String,
    decoding_key: DecodingKey,
    validation: Validation,
    /// `None` for a secret, which is not published.
    point: Option<PublicPoint>,
}

impl KeyRing {
    /// `key_id` replaces the id of the signing key.
    pub(super) fn new<'a>(
        signing: &Key,
        published: impl Iterator<Item = &'a Key>,
        key_id: Option<&str>,
        issuer: &str,
        audience: &str,
    ) -> Result<Self, GrantKeyError> {
        let encoding_key = signing.encoding_key.clone().ok_or(GrantKeyError::Unusable)?;
        let id = key_id.unwrap_or(&signing.id);
        let new = |key: &Key, id: &str| VerificationKey::new(key, id, issuer, audience);
        let mut keys = vec![new(signing, id)];
        for key in published {
            match keys.iter().find(|known| known.id == key.id) {
                None => keys.push(new(key, &key.id)),
                // The same key can be in several files, for example during a rotation.
                Some(known) if known.thumbprint == key.thumbprint => {}
                Some(_) => return Err(GrantKeyError::SameId(key.id.clone())),
            }
        }
        if keys.len() > MAX_KEYS {
            return Err(GrantKeyError::TooMany { max: MAX_KEYS - 1, actual: keys.len() - 1 });
        }
        let mut header = Header::new(signing.algorithm);
        header.kid = Some(id.to_owned());
        let ring = Self { header, encoding_key, keys, verified: Cache::new(MAX_VERIFIED) };
        ring.check_signature(issuer, audience).ok_or(GrantKeyError::Unusable)?;
        Ok(ring)
    }

    /// The id of the signing key.
    pub(super) fn signing_key_id(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }

    /// The number of keys that are accepted and do not sign.
    pub(super) fn published_keys(&self) -> usize {
        self.keys.len() - 1
    }

    /// Whether this ring has the signing key of `other`, with the same id.
    pub(super) fn has_signing_key_of(&self, other: &Self) -> bool {
        let signing = other.keys.first();
        signing
            .is_some_and(|new| self.keys.iter().any(|key| (&key.id, &key.thumbprint) == (&new.id, &new.thumbprint)))
    }

    /// The public keys, in the order of the settings.
    pub(super) fn public_keys(&self) -> Vec<PublicKey> {
        let public = |key: &VerificationKey| Some(PublicKey { key_id: key.id.clone(), point: key.point.clone()? });
        self.keys.iter().filter_map(public).collect()
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> jsonwebtoken::errors::Result<String> {
        jsonwebtoken::encode(&self.header, claims, &self.encoding_key)
    }

    /// Checks everything except the expiry.
    pub(super) fn verify(&self, token: &str) -> Result<Arc<Grant>, GrantError> {
        if token.len() > MAX_GRANT_BYTES {
            return Err(GrantError::TooLong);
        }
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        if let Some(grant) = self.verified.get(&hash) {
            return Ok(grant);
        }
        let grant = Arc::new(self.decode(token)?);
        self.verified.insert(hash, Arc::clone(&grant));
        Ok(grant)
    }

    /// Signs and verifies a sample, so that an unusable key is detected when it is loaded.
    fn check_signature(&self, issuer: &str, audience: &str) -> Option<()> {
        let jti = Uuid::nil();
        let (iss, aud, sub) = (issuer, audience, "sample");
        let sample = SignedClaims { iss, aud, sub, jti, iat: 0, exp: 0, content: None, labels: None };
        let token = self.sign(&sample).ok()?;
        self.decode(&token).ok().map(|_| ())
    }

    fn decode(&self, token: &str) -> Result<Grant, GrantError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| grant_error(error.kind()))?;
        let id = header.kid.ok_or(GrantError::Malformed)?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or(GrantError::UnknownKey)?;
        let decoded = jsonwebtoken::decode::<VerifiedClaims>(token, &key.decoding_key, &key.validation);
        let claims = decoded.map_err(|error| grant_error(error.kind()))?.claims;
        claims.into_grant().ok_or(GrantError::Claims)
    }
}

impl VerificationKey {
    fn new(key: &Key, id: &str, issuer: &str, audience: &str) -> Self {
        Self {
            id: id.to_owned(),
            thumbprint: key.thumbprint.clone(),
            decoding_key: key.decoding_key.clone(),
            validation: validation(key.algorithm, issuer, audience),
            point: key.point.clone(),
        }
    }
}

/// The key determines the algorithm, never the grant.
fn validation(algorithm: Algorithm, issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    // Without this setting, a grant without these claims would be accepted.
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // The caller compares the expiry with the clock, also that of a remembered grant.
    validation.validate_exp = false;
    validation
}

fn grant_error(kind: &ErrorKind) -> GrantError {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::MissingAlgorithm | ErrorKind::InvalidAlgorithmName => {
            GrantError::Algorithm
        }
        ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_) => GrantError::Claims,
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            GrantError::Malformed
        }
        _ => GrantError::Signature,
    }
}
