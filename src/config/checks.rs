//! Rules that types and bounds cannot express, for example that one setting must not exceed another. Each error contains the
//! key and the allowed values, and also the given value unless it may be secret.

use std::net::IpAddr;

use hyper::Uri;
use secrecy::ExposeSecret;

use super::error::ConfigError;
use super::grants::MIN_SECRET_BYTES;
use super::sections::{Auth, AuthMode, Config, DynamoDb, Embedded, LIST_SYNTAX};
use super::{events, grants, rules};
use crate::http::auth::ALGORITHMS;

const KEY_SOURCES: &str = "auth.jwks_url, auth.jwks_file and auth.hs256_secret";

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let lease = &config.lease;
    at_most(
        ("lease.heartbeat_interval_s", lease.heartbeat_interval_s.get()),
        ("half of lease.duration_s", lease.duration_s.get() / 2),
    )?;
    check_timeouts(&config.dynamodb, config.server.request_timeout_s.get())?;
    check_dynamodb(&config.dynamodb)?;
    check_embedded(&config.embedded)?;
    rules::check(&config.limits.rules)?;
    if let Err(error) = config.log().filter() {
        return Err(ConfigError::invalid("log.filter", format!("{:?}", config.log.filter), error));
    }
    check_auth(&config.auth)?;
    grants::check(&config.grants, &config.auth)?;
    events::check(config)
}

impl Config {
    /// Refuses to serve other hosts without authentication, unless the operator has set `auth.mode`. Only `serve` and
    /// `check-config` call this check, because other commands do not serve requests.
    ///
    /// # Errors
    /// `server.bind` is not a loopback address, and `auth.mode` is neither in the file nor in the environment.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        if self.auth_mode_is_set || self.binds_to_loopback() {
            return Ok(());
        }
        Err(ConfigError::AuthModeNotSet(self.server.bind))
    }
}

fn check_timeouts(dynamodb: &DynamoDb, request_timeout_s: u64) -> Result<(), ConfigError> {
    let connect = ("dynamodb.connect_timeout_ms", dynamodb.connect_timeout_ms.get());
    let attempt = ("dynamodb.attempt_timeout_ms", dynamodb.attempt_timeout_ms.get());
    let operation = ("dynamodb.operation_timeout_ms", dynamodb.operation_timeout_ms.get());
    let request = ("server.request_timeout_s less one millisecond", request_timeout_s * 1000 - 1);
    at_most(connect, attempt)?;
    at_most(attempt, operation)?;
    at_most(operation, request)
}

fn check_dynamodb(dynamodb: &DynamoDb) -> Result<(), ConfigError> {
    let table = &dynamodb.table;
    // DynamoDB's rule for table names.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !(3..=255).contains(&table.len()) || !table.chars().all(is_allowed) {
        let problem = "must be 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'";
        return Err(ConfigError::invalid("dynamodb.table", format!("{table:?}"), problem));
    }
    if let Some(url) = &dynamodb.endpoint_url
        && parse_url(url).is_none()
    {
        // The URL may contain a password.
        let problem = "must be http://HOST:PORT or https://HOST, without user and password";
        return Err(ConfigError::hidden("dynamodb.endpoint_url", problem));
    }
    if dynamodb.region.as_deref() == Some("") {
        return Err(ConfigError::invalid("dynamodb.region", "\"\"", "must not be empty; remove the key instead"));
    }
    Ok(())
}

fn check_embedded(embedded: &Embedded) -> Result<(), ConfigError> {
    let path = embedded.path.to_string_lossy();
    // SQLite does not treat ":memory:" and "file:" URIs as file paths.
    if embedded.path.file_name().is_none() || path.starts_with(':') || path.starts_with("file:") {
        return Err(ConfigError::invalid("embedded.path", format!("{path:?}"), "must name a file"));
    }
    Ok(())
}

fn check_auth(auth: &Auth) -> Result<(), ConfigError> {
    for (key, value) in [
        ("auth.user_claim", &auth.user_claim),
        ("auth.limit_claim", &auth.limit_claim),
        ("auth.admin_scope", &auth.admin_scope),
    ]
    .into_iter()
    .chain(auth.labels_claim.as_ref().map(|claim| ("auth.labels_claim", claim)))
    {
        if value.is_empty() || value.contains(char::is_whitespace) {
            return Err(ConfigError::invalid(key, format!("{value:?}"), "must be a name without white space"));
        }
    }
    let sources = [
        ("auth.jwks_url", auth.jwks_url.is_some()),
        ("auth.jwks_file", auth.jwks_file.is_some()),
        ("auth.hs256_secret", auth.hs256_secret.is_some()),
    ];
    if auth.mode == AuthMode::None {
        return check_auth_unset(auth, sources);
    }
    let mut set = sources.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key);
    match (set.next(), set.next()) {
        (None, _) => {
            return Err(ConfigError::invalid("auth.mode", "\"jwt\"", format!("needs one of {KEY_SOURCES}")));
        }
        (Some(key), Some(_)) => {
            return Err(ConfigError::hidden(key, format!("must be the only one of {KEY_SOURCES}")));
        }
        (Some(_), None) => {}
    }
    if auth.issuer.as_deref().is_none_or(str::is_empty) {
        return Err(ConfigError::invalid("auth.issuer", "\"\"", "must be set to the iss claim of the tokens"));
    }
    if auth.audience.is_empty() {
        let problem = "must be set to the aud claim of tokens for this service";
        return Err(ConfigError::invalid("auth.audience", "[]", problem));
    }
    check_keys(auth)
}

/// With `auth.mode = "none"`, key source, issuer, audience and labels claim must be unset. Otherwise, a forgotten `auth.mode` would
/// disable authentication unnoticed.
fn check_auth_unset(auth: &Auth, sources: [(&str, bool); 3]) -> Result<(), ConfigError> {
    let others = [
        ("auth.issuer", auth.issuer.is_some()),
        ("auth.audience", !auth.audience.is_empty()),
        ("auth.labels_claim", auth.labels_claim.is_some()),
    ];
    match sources.into_iter().chain(others).find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(ConfigError::hidden(key, "is for auth.mode = \"jwt\", but auth.mode is \"none\"")),
        None => Ok(()),
    }
}

fn check_keys(auth: &Auth) -> Result<(), ConfigError> {
    if auth.hs256_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < MIN_SECRET_BYTES) {
        let problem = format!("must have at least {MIN_SECRET_BYTES} bytes");
        return Err(ConfigError::hidden("auth.hs256_secret", problem));
    }
    if auth.hs256_secret.is_none() {
        let is_known = |name: &String| ALGORITHMS.iter().any(|(known, _)| known == name);
        if auth.algorithms.is_empty() || !auth.algorithms.iter().all(is_known) {
            let names: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
            let problem = format!("must be one or more of {}; {LIST_SYNTAX}", names.join(", "));
            return Err(ConfigError::invalid("auth.algorithms", format!("{:?}", auth.algorithms), problem));
        }
    }
    let url = auth.jwks_url.as_deref().map(parse_url);
    if url.is_some_and(|url| !url.is_some_and(|url| url.scheme_str() == Some("https") || is_loopback(&url))) {
        let problem = "must be https://HOST/PATH, or http:// on loopback, without user and password";
        return Err(ConfigError::hidden("auth.jwks_url", problem));
    }
    Ok(())
}

/// Returns `None` unless `url` is an HTTP or HTTPS URL without a user name or password.
fn parse_url(url: &str) -> Option<Uri> {
    let url = url.parse::<Uri>().ok()?;
    let authority = url.authority()?;
    let is_plain = matches!(url.scheme_str(), Some("http" | "https")) && !authority.as_str().contains('@');
    is_plain.then_some(url)
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn at_most((key, value): (&str, u64), (bound, max): (&str, u64)) -> Result<(), ConfigError> {
    if value <= max {
        return Ok(());
    }
    Err(ConfigError::invalid(key, value.to_string(), format!("must be at most {max} ({bound})")))
}
