//! Verification of bearer tokens (JWT): settings, result and errors. Independent of routes and responses. Tokens are
//! never logged.
//!
//! `jsonwebtoken` checks the signature, `exp`, `nbf` and `iss`. This module adds checks against attacks that
//! `jsonwebtoken` does not stop. They are listed in docs/THREAT-MODEL.md, section "Tokens".

mod claims;
mod jwks;
mod jwks_cache;
pub(crate) mod key_file;
mod strict_object;
pub mod verifier;

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use thiserror::Error;

use crate::domain::labels::Labels;
use crate::domain::lease::StreamLimit;

/// The algorithms that the keys of a JWKS may use, with their names from RFC 7518, section 3.1, and RFC 8037 (`EdDSA`).
pub(crate) const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Longer tokens are rejected before they are decoded. Typical tokens are 1–2 kB.
const MAX_TOKEN_BYTES: usize = 8192;

/// Settings of token verification.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    pub keys: KeySource,
    /// The algorithms that the keys of a JWKS may use, such as `RS256`. A shared secret always uses HS256.
    pub algorithms: Vec<String>,
    pub issuer: String,
    pub audience: Vec<String>,
    pub user_claim: String,
    pub limit_claim: String,
    /// The claim with labels. `None` if tokens contain no labels.
    pub labels_claim: Option<String>,
    pub admin_scope: String,
}

/// The source of the verification keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A JWKS, fetched from this URL.
    Url(String),
    /// A JWKS in a file.
    File(PathBuf),
    Secret(SecretString),
}

/// The data that this service uses from a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The text of the user claim in NFC, not yet validated as a user name.
    pub user: String,
    /// Whether the caller may act for every user and set limits.
    pub admin: bool,
    /// The limit, if the token has a valid one.
    pub limit: Option<StreamLimit>,
    /// The labels of every stream that is started with this token.
    pub labels: Labels,
}

/// The reason why a token is rejected. The client receives this text, so it contains no part of the token and no error
/// text of a library.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("token verification keys are unavailable; retry")]
    NoKeys,
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("the token is not a signed JWT in compact form")]
    Malformed,
    #[error("token header {0}: {1}")]
    Header(&'static str, &'static str),
    #[error("the issuer's JWKS has no key with the token's key id (kid)")]
    UnknownKey,
    #[error("the token must name its key (kid), because the issuer has several keys")]
    NoKeyId,
    #[error("the token's signature algorithm is not allowed for its key")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired; get a new one")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("token claim {0}: {1}")]
    Claim(String, &'static str),
}
