//! Tokens.

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use secrecy::SecretString;

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

/// Checks tokens.
pub struct Tokens {}
