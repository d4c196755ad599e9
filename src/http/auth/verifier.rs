//! Verifies bearer tokens: finds the key, checks the signature and the standard claims, applies the claims policy.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;

use super::claims::Rules;
use super::json::Object;
use super::jwks_cache::JwksCache;
pub use super::jwks_cache::KeysError;
use super::{ALGORITHMS, Identity, MAX_TOKEN_BYTES, TokenError, TokenSettings};
use crate::clock::Clock;

/// How far the issuer's clock may be from this one's.
const LEEWAY_S: u64 = 30;

/// Checks tokens.
pub struct TokenVerifier {
    keyring: JwksCache,
    validation: Validation,
    rules: Rules,
}

impl TokenVerifier {
    /// Reads or fetches the keys. A set that cannot be fetched is no error: [`Tokens::keep_fresh`] goes on trying.
    ///
    /// # Errors
    /// A file of keys that cannot be read, or holds none.
    pub async fn open(settings: TokenSettings, clock: Arc<dyn Clock>) -> Result<Self, KeysError> {
        let TokenSettings { keys, algorithms, issuer, audience, user_claim, limit_claim, admin_scope } = settings;
        let named = |name: &String| ALGORITHMS.into_iter().find(|(known, _)| known == name).map(|(_, found)| found);
        let keyring = JwksCache::open(keys, algorithms.iter().filter_map(named).collect(), clock).await?;
        // Which algorithms are allowed is said for each key, never by the token.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        // Checked when it is there. Not required: none of Auth0, Cognito and Keycloak sends it.
        validation.validate_nbf = true;
        // By our own rules, since Cognito's access tokens have a `client_id` in its place.
        validation.validate_aud = false;
        validation.set_issuer(&[&issuer]);
        // Without this the library takes a token that has none of them.
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Ok(Self { keyring, validation, rules: Rules { issuer, audience, user_claim, limit_claim, admin_scope } })
    }

    /// Whether any token can be judged yet.
    pub fn has_keys(&self) -> bool {
        self.keyring.has_keys()
    }

    pub fn admin_scope(&self) -> &str {
        &self.rules.admin_scope
    }

    /// Fetches the keys again and again; never ends.
    pub async fn keep_fresh(&self) {
        self.keyring.keep_fresh().await;
    }

    /// Fetches the keys once more; the ones that are held stay if that fails.
    ///
    /// # Errors
    /// What went wrong, on one line.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        self.keyring.refresh().await
    }

    /// # Errors
    /// Whatever is wrong with the token, or that there are no keys yet.
    pub async fn check(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let Head { kid, algorithm } = Head::of(token)?;
        let key = self.keyring.find(kid.as_deref(), algorithm).await?;
        let validation = Validation { algorithms: key.algorithms.clone(), ..self.validation.clone() };
        let decoded = jsonwebtoken::decode::<Object>(token, &key.public, &validation);
        let claims = decoded.map_err(|error| explained(error.kind()))?.claims;
        self.rules.judge(&claims)
    }
}

/// What is believed of a token's header: which key to look for. `jwk`, `jku`, `x5u` and `x5c` are not looked at.
struct Head {
    kid: Option<String>,
    algorithm: Algorithm,
}

impl Head {
    fn of(token: &str) -> Result<Self, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: Object = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(TokenError::Header(name, "must be a text")),
        };
        // Whoever does not know an extension that is critical must refuse the token (RFC 7515, section 4.1.11).
        if header.get("crit").is_some() {
            return Err(TokenError::Header("crit", "no extension is known here"));
        }
        // Tokens for other purposes say so here (RFC 8725, section 3.11).
        if let Some(typ) = text("typ")? {
            let typ = typ.to_ascii_lowercase();
            if !matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt") {
                return Err(TokenError::Header("typ", "must be JWT or at+jwt"));
            }
        }
        let algorithm = text("alg")?.ok_or(TokenError::Header("alg", "must be there"))?;
        let algorithm = algorithm.parse().map_err(|_| TokenError::Algorithm)?;
        Ok(Self { kid: text("kid")?, algorithm })
    }
}

fn explained(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::InvalidAlgorithm | ErrorKind::MissingAlgorithm => TokenError::Algorithm,
        ErrorKind::InvalidIssuer => TokenError::Claim("iss".to_owned(), "is another issuer's"),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            TokenError::Claim(claim.clone(), "must be there, and of the right type")
        }
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            TokenError::Malformed
        }
        _ => TokenError::Signature,
    }
}
