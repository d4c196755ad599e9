//! Verifies bearer tokens: finds the key, checks the signature and the standard claims, and applies the claims policy.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;
use tracing::warn;

use super::claims::{ClaimsPolicy, ValidClaims};
use super::jwks_cache::JwksCache;
use super::strict_object::StrictObject;
use super::{ALGORITHMS, Identity, MAX_TOKEN_BYTES, TokenError, TokenSettings};
use crate::clock::Clock;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;

pub use super::jwks_cache::JwksError;

/// Tolerated clock skew between the issuer and this host.
const LEEWAY_S: u64 = 30;

/// Ignored limit claims are logged at most once per interval, because every token of a misconfigured issuer has one.
const IGNORED_LIMIT_LOG_INTERVAL: Duration = Duration::from_secs(60);

pub struct TokenVerifier {
    jwks: JwksCache,
    validation: Validation,
    policy: ClaimsPolicy,
    metrics: Arc<Metrics>,
    ignored_limit_log: LogThrottle<()>,
    clock: Arc<dyn Clock>,
}

impl TokenVerifier {
    /// Loads the keys. A JWKS that cannot be fetched from a URL is not an error, because [`TokenVerifier::refresh_regularly`]
    /// retries.
    ///
    /// # Errors
    /// The key file cannot be read, or has no usable key.
    pub async fn open(
        settings: TokenSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JwksError> {
        let TokenSettings { keys, algorithms, issuer, audience, user_claim, limit_claim, labels_claim, admin_scope } =
            settings;
        let by_name = |name: &String| ALGORITHMS.into_iter().find(|(known, _)| known == name).map(|(_, found)| found);
        let jwks = JwksCache::open(keys, algorithms.iter().filter_map(by_name).collect(), Arc::clone(&clock)).await?;
        // `verify` replaces this algorithm with those of the key, so the token never decides which algorithms are
        // allowed.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        // Checks `nbf` only if the token has it, because Auth0, Cognito and Keycloak do not send it.
        validation.validate_nbf = true;
        // The claims policy checks the audience, because Cognito's access tokens have a `client_id` instead.
        validation.validate_aud = false;
        validation.set_issuer(&[&issuer]);
        // Without this setting, a token without these claims would be accepted.
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let policy = ClaimsPolicy { issuer, audience, user_claim, limit_claim, labels_claim, admin_scope };
        let ignored_limit_log = LogThrottle::new(IGNORED_LIMIT_LOG_INTERVAL, 1);
        Ok(Self { jwks, validation, policy, metrics, ignored_limit_log, clock })
    }

    /// Whether there are keys to verify tokens with.
    pub fn has_keys(&self) -> bool {
        self.jwks.has_keys()
    }

    pub(crate) fn admin_scope(&self) -> &str {
        &self.policy.admin_scope
    }

    /// Refreshes the keys periodically. Never returns.
    pub async fn refresh_regularly(&self) {
        self.jwks.refresh_regularly().await;
    }

    /// Refreshes the keys once. If that fails, the cached keys stay in use.
    ///
    /// # Errors
    /// The keys could not be loaded. The message is one line.
    pub async fn refresh(&self) -> Result<(), JwksError> {
        self.jwks.refresh().await
    }

    /// # Errors
    /// The token is invalid, or there are no keys to verify it ([`TokenError::NoKeys`]).
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let Header { kid, algorithm } = Header::parse(token)?;
        let key = self.jwks.find(kid.as_deref(), algorithm).await?;
        let validation = Validation { algorithms: key.algorithms.clone(), ..self.validation.clone() };
        let decoded = jsonwebtoken::decode::<StrictObject>(token, &key.decoding_key, &validation);
        let claims = decoded.map_err(|error| token_error(error.kind()))?.claims;
        let ValidClaims { identity, ignored_limit } = self.policy.validate(&claims)?;
        if ignored_limit {
            self.report_ignored_limit();
        }
        Ok(identity)
    }

    /// Does not log the value, because log lines must not contain any part of a token.
    fn report_ignored_limit(&self) {
        self.metrics.token_limit_claims_ignored.inc();
        if let Some(suppressed) = self.ignored_limit_log.allow(&(), self.clock.monotonic()) {
            let claim = &self.policy.limit_claim;
            warn!(
                event = "token_limit_claim_ignored",
                claim, suppressed, "the limit in a token is not a whole number from 0; ignored"
            );
        }
    }
}

/// The parts of a token's header that select the key. `jwk`, `jku`, `x5u` and `x5c` are ignored, because with them a
/// client could supply its own key.
struct Header {
    kid: Option<String>,
    algorithm: Algorithm,
}

impl Header {
    fn parse(token: &str) -> Result<Self, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: StrictObject = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        let string = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(TokenError::Header(name, "must be a string")),
        };
        // A token with an unknown critical extension must be rejected (RFC 7515, section 4.1.11). This service supports
        // no extensions.
        if header.get("crit").is_some() {
            return Err(TokenError::Header("crit", "critical extensions are not supported"));
        }
        // Tokens for other purposes, such as logout tokens, have a different `typ` (RFC 8725, section 3.11).
        if let Some(typ) = string("typ")? {
            let typ = typ.to_ascii_lowercase();
            if !matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt") {
                return Err(TokenError::Header("typ", "must be JWT or at+jwt"));
            }
        }
        let algorithm = string("alg")?.ok_or(TokenError::Header("alg", "is missing"))?;
        let algorithm = algorithm.parse().map_err(|_| TokenError::Algorithm)?;
        Ok(Self { kid: string("kid")?, algorithm })
    }
}

fn token_error(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::InvalidAlgorithm | ErrorKind::MissingAlgorithm => TokenError::Algorithm,
        ErrorKind::InvalidIssuer => TokenError::Claim("iss".to_owned(), "is not the trusted issuer"),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            TokenError::Claim(claim.clone(), "is missing or has the wrong type")
        }
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            TokenError::Malformed
        }
        _ => TokenError::Signature,
    }
}
