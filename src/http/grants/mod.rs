//! Grants: short-lived signed proofs of a live lease (JWT). With them, a CDN, an origin or a DRM licence server can refuse media
//! without a request to this service. Settings, result and errors. Grants are never logged.
//!
//! `jsonwebtoken` signs and verifies. docs/ENFORCEMENT.md describes the claims, the keys and what each place can enforce.

pub mod authority;
mod claims;
pub mod content_path;
pub(crate) mod forwarded;
mod key_parser;
mod key_ring;
mod key_watch;
pub(crate) mod live_leases;

use std::path::PathBuf;

use secrecy::SecretString;
use thiserror::Error;

use self::content_path::ContentPath;
use crate::domain::lease::Timestamp;
use crate::domain::names::StreamId;

/// Maximum length of a key id, because each grant contains one.
pub(crate) const MAX_KEY_ID_BYTES: usize = 128;

/// Longer grants are refused before they are decoded. Typical grants have 300–500 bytes.
const MAX_GRANT_BYTES: usize = 8192;

#[derive(Clone, Debug)]
pub struct GrantSettings {
    pub keys: GrantKeys,
    /// The id of the signing key. If it is `None`, the JWK's own id or the thumbprint (RFC 7638) of the key.
    pub key_id: Option<String>,
    pub issuer: String,
    pub audience: String,
    /// Time from the expiry of the lease to the expiry of the grant.
    pub leeway_s: u32,
    /// The key that hashes user names. `None` if grants contain the user names.
    pub subject_key: Option<SecretString>,
    /// The cookie in which a player sends its grant.
    pub cookie: String,
    /// The query parameter in which a player sends its grant.
    pub query_parameter: String,
    /// Where the paths of media contain the content.
    pub content_path: Option<ContentPath>,
}

/// The source of the signing key, and of further keys that are accepted.
#[derive(Clone, Debug)]
pub enum GrantKeys {
    Files {
        algorithm: FileAlgorithm,
        key_file: PathBuf,
        published: Vec<PathBuf>,
    },
    /// HS256.
    Secrets {
        secret: SecretString,
        published: Vec<SecretString>,
    },
}

/// A signature algorithm whose private key is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAlgorithm {
    Es256,
    EdDsa,
}

/// The content of a valid grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The user name or its hash.
    pub(crate) subject: String,
    pub(crate) stream_id: StreamId,
    pub(crate) content: Option<String>,
    pub(crate) expires_at: Timestamp,
}

/// A published key that verifies grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    pub(crate) key_id: String,
    pub(crate) point: PublicPoint,
}

/// The coordinates of a public key, in base64url.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicPoint {
    P256 { x: String, y: String },
    Ed25519 { x: String },
}

/// The reason why a grant is refused. The client receives this text, so it contains no part of the grant and no error text of a
/// library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum GrantError {
    #[error("the grant is longer than {MAX_GRANT_BYTES} bytes")]
    TooLong,
    #[error("the grant is not a signed JWT in compact form with a key id (kid)")]
    Malformed,
    #[error("the grant names an unknown key")]
    UnknownKey,
    #[error("the grant's signature algorithm is not allowed for its key")]
    Algorithm,
    #[error("the grant's signature is wrong")]
    Signature,
    #[error("the grant has another issuer or audience, or a claim is missing or has the wrong type")]
    Claims,
    #[error("the grant has expired")]
    Expired,
}

/// The reason why keys of grants cannot be used.
#[derive(Debug, Error)]
pub enum GrantKeyError {
    #[error("{setting} {path:?} cannot be read: {error}")]
    Unreadable { setting: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{setting} {path:?} {problem}")]
    Invalid { setting: &'static str, path: PathBuf, problem: KeyProblem },
    #[error("grants.key_id: two different keys have the id {0:?}; give each key its own id")]
    SameId(String),
    #[error("grants.published_keys: at most {max} keys can be published, there are {actual}")]
    TooMany { max: usize, actual: usize },
    #[error("grants: the signing key cannot sign")]
    Unusable,
}

/// What is wrong with a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyProblem {
    #[error("is neither PEM nor a JWK")]
    Format,
    #[error("has no private key in PKCS#8 (-----BEGIN PRIVATE KEY-----)")]
    NoPrivateKey,
    #[error("must contain exactly one private key")]
    NotOneKey,
    #[error("is not in PKCS#8; convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    NotPkcs8,
    #[error("is not a P-256 key, which ES256 needs")]
    NotP256,
    #[error("is not an Ed25519 key, which EdDSA needs")]
    NotEd25519,
    #[error("has a key that is neither P-256 nor Ed25519, or is damaged")]
    UnsupportedKey,
    #[error("has a key id (kid) that is empty or longer than {MAX_KEY_ID_BYTES} bytes")]
    KeyId,
}
