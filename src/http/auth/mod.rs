//! Tokens: whether a bearer token (JWT) is good, and what it says. Knows neither routes nor answers, but for `caller`,
//! which stands between both. Only here are tokens read, and none is ever logged.
//!
//! The library checks signature, `exp`, `nbf` and `iss`; what it would let pass is refused before and after: see
//! docs/THREAT-MODEL.md, "Tokens", for the attacks.

mod claims;
mod json;
mod jwks;
mod jwks_cache;
pub mod verifier;

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use thiserror::Error;

use crate::domain::lease::StreamLimit;

/// The signatures that keys of a set may make, by their names (RFC 7518, section 3.1).
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
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

/// Real ones have one or two thousand; beyond this nothing is decoded.
const MAX_TOKEN_BYTES: usize = 8192;
/// What is asked of a token.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    pub keys: KeySource,
    /// Names out of [`ALGORITHMS`], for the keys of a set. A secret signs with HS256.
    pub algorithms: Vec<String>,
    pub issuer: String,
    pub audience: Vec<String>,
    pub user_claim: String,
    pub limit_claim: String,
    pub admin_scope: String,
}

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A key set (JWKS), fetched.
    Url(String),
    /// A key set (JWKS) in a file.
    File(PathBuf),
    Secret(SecretString),
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As the claim has it; not yet known to be a name that this service takes.
    pub user: String,
    /// Whether it speaks for every user, and may set limits.
    pub admin: bool,
    pub limit: Option<StreamLimit>,
}

/// Why a token is not good. Told to its sender: holds nothing of the token and nothing of the library.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("the keys that tokens are checked with cannot be had at the moment: try again")]
    NoKeys,
    #[error("the token must have at most {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("the token is not a signed JWT in compact form")]
    Malformed,
    #[error("the token's header {0}: {1}")]
    Header(&'static str, &'static str),
    #[error("the token's key is not known: the issuer's key set has no such kid")]
    UnknownKey,
    #[error("the token must say which key has signed it (kid): the issuer has several")]
    NoKeyNamed,
    #[error("the token is signed in a way that is not allowed for its key")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired: get a new one")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token's claim {0}: {1}")]
    Claim(String, &'static str),
}
