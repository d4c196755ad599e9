//! Checks the section `grants`, and converts it to the settings of the grants.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::error::ConfigError;
use super::sections::{Auth, Config, GrantAlgorithm, GrantSubject, Grants};
use crate::http::grants::{FileAlgorithm, GrantKeys, GrantSettings, MAX_KEY_ID_BYTES};

/// A key for HMAC-SHA-256 must be at least as long as the hash (RFC 7518, section 3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;
const MAX_CLAIM_BYTES: usize = 256;

pub(super) fn check(grants: &Grants, auth: &Auth) -> Result<(), ConfigError> {
    check_sources(grants)?;
    check_secrets(grants, auth.hs256_secret.as_ref())?;
    check_claims(grants, auth)?;
    for (key, value) in [("grants.issuer", &grants.issuer), ("grants.audience", &grants.audience)] {
        if !(1..=MAX_CLAIM_BYTES).contains(&value.len()) {
            let problem = format!("must have 1 to {MAX_CLAIM_BYTES} bytes");
            return Err(ConfigError::invalid(key, format!("{value:?}"), problem));
        }
    }
    for (key, value) in [("grants.cookie", &grants.cookie), ("grants.query_parameter", &grants.query_parameter)] {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if value.is_empty() || !value.chars().all(is_allowed) {
            let problem = "must be a name of A-Z, a-z, 0-9, '_', '-' and '.'";
            return Err(ConfigError::invalid(key, format!("{value:?}"), problem));
        }
    }
    if let Some(id) = &grants.key_id
        && !((1..=MAX_KEY_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        let problem = format!("must be 1 to {MAX_KEY_ID_BYTES} visible ASCII characters");
        return Err(ConfigError::invalid("grants.key_id", format!("{id:?}"), problem));
    }
    Ok(())
}

/// Each algorithm needs its own source of the signing key. With `algorithm = "off"`, keys must be unset. Otherwise, a forgotten
/// algorithm would leave the media open unnoticed.
fn check_sources(grants: &Grants) -> Result<(), ConfigError> {
    let (has_file, has_secret) = (grants.key_file.is_some(), grants.secret.is_some());
    let (name, needs_file, needs_secret) = match grants.algorithm {
        GrantAlgorithm::Off => ("off", false, false),
        GrantAlgorithm::Es256 => ("ES256", true, false),
        GrantAlgorithm::EdDsa => ("EdDSA", true, false),
        GrantAlgorithm::Hs256 => ("HS256", false, true),
    };
    let has_published = !grants.published_keys.is_empty() && grants.algorithm == GrantAlgorithm::Off;
    let keys = [
        ("grants.key_file", has_file, needs_file),
        ("grants.secret", has_secret, needs_secret),
        ("grants.published_keys", has_published, false),
    ];
    for (key, is_set, is_needed) in keys {
        if is_set && !is_needed {
            return Err(ConfigError::hidden(key, format!("is not for grants.algorithm = \"{name}\"")));
        }
        if is_needed && !is_set {
            return Err(ConfigError::invalid("grants.algorithm", format!("\"{name}\""), format!("needs {key}")));
        }
    }
    Ok(())
}

/// Grants and tokens need different claims, because a key of grants can also be in the key set of tokens. Then, a grant with the
/// claims of a token would be a valid token.
fn check_claims(grants: &Grants, auth: &Auth) -> Result<(), ConfigError> {
    let is_same = auth.issuer.as_ref() == Some(&grants.issuer) && auth.audience.contains(&grants.audience);
    if is_same && grants.algorithm != GrantAlgorithm::Off {
        let problem = "must not be in auth.audience, because grants.issuer is the same as auth.issuer";
        return Err(ConfigError::invalid("grants.audience", format!("{:?}", grants.audience), problem));
    }
    Ok(())
}

/// `token_secret` is `auth.hs256_secret`.
fn check_secrets(grants: &Grants, token_secret: Option<&SecretString>) -> Result<(), ConfigError> {
    let mut secrets: Vec<(&str, &str)> = Vec::new();
    secrets.extend(grants.secret.iter().map(|secret| ("grants.secret", secret.expose_secret())));
    if grants.algorithm == GrantAlgorithm::Hs256 {
        secrets.extend(grants.published_keys.iter().map(|key| ("grants.published_keys", key.expose_secret())));
    }
    // Otherwise, a grant could be a valid token of the player, or a token a valid grant.
    let token_secret = token_secret.map(ExposeSecret::expose_secret);
    if let Some((key, _)) = secrets.iter().find(|(_, secret)| Some(*secret) == token_secret) {
        return Err(ConfigError::hidden(key, "must differ from auth.hs256_secret"));
    }
    if let Some(subject_key) = &grants.subject_key {
        // The hash of a user name that looks like a token would be a valid signature of this token.
        let subject_key = subject_key.expose_secret();
        if secrets.iter().any(|(_, secret)| *secret == subject_key) || Some(subject_key) == token_secret {
            return Err(ConfigError::hidden("grants.subject_key", "must differ from every other secret"));
        }
        secrets.push(("grants.subject_key", subject_key));
    }
    if let Some((key, _)) = secrets.iter().find(|(_, secret)| secret.len() < MIN_SECRET_BYTES) {
        return Err(ConfigError::hidden(key, format!("must have at least {MIN_SECRET_BYTES} bytes")));
    }
    match (grants.subject, &grants.subject_key) {
        (GrantSubject::Hashed, None) => {
            Err(ConfigError::invalid("grants.subject", "\"hashed\"", "needs grants.subject_key"))
        }
        (GrantSubject::Plain, Some(_)) => {
            Err(ConfigError::hidden("grants.subject_key", "is for grants.subject = \"hashed\""))
        }
        _ => Ok(()),
    }
}

impl Config {
    /// `None` if grants are off.
    pub fn grants(&self) -> Option<GrantSettings> {
        let grants = self.grants.clone();
        let files = |algorithm| GrantKeys::Files {
            algorithm,
            // `check` requires the file. With an empty path, the startup would fail.
            key_file: grants.key_file.clone().unwrap_or_default(),
            published: grants.published_keys.iter().map(|path| PathBuf::from(path.expose_secret())).collect(),
        };
        let keys = match grants.algorithm {
            GrantAlgorithm::Off => return None,
            GrantAlgorithm::Es256 => files(FileAlgorithm::Es256),
            GrantAlgorithm::EdDsa => files(FileAlgorithm::EdDsa),
            GrantAlgorithm::Hs256 => GrantKeys::Secrets { secret: grants.secret?, published: grants.published_keys },
        };
        Some(GrantSettings {
            keys,
            key_id: grants.key_id,
            issuer: grants.issuer,
            audience: grants.audience,
            leeway_s: grants.leeway_s.to_u32(),
            subject_key: grants.subject_key,
            cookie: grants.cookie,
            query_parameter: grants.query_parameter,
            content_path: grants.content_path,
        })
    }
}
