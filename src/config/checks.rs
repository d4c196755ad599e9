//! Which settings are allowed, alone and together. Each refusal names the key, the value and what is allowed; a value that
//! may be secret is not shown.

use std::net::IpAddr;

use hyper::Uri;
use secrecy::ExposeSecret;

use super::{Auth, AuthMode, Config, ConfigError, Cors};
use crate::domain::lease::StreamLimit;
use crate::http::auth::ALGORITHMS;

/// An HMAC key is as long as its hash at least (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Every bound, and what must fit together.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let Config { server, dynamodb, lease, limits, rate, .. } = config;
    within("server.worker_threads", server.worker_threads, 0, 256)?;
    within("server.header_read_timeout_s", server.header_read_timeout_s, 1, 3600)?;
    within("server.request_timeout_s", server.request_timeout_s, 1, 300)?;
    within("server.write_timeout_s", server.write_timeout_s, 1, 3600)?;
    within("server.max_head_bytes", server.max_head_bytes, 8192, 1_048_576)?;
    within("server.max_headers", server.max_headers, 16, 1000)?;
    within("server.max_uri_bytes", server.max_uri_bytes, 1024, 65_534)?;
    within("server.max_body_bytes", server.max_body_bytes, 1024, 1_048_576)?;
    within("server.max_connections", server.max_connections, 1, 1_000_000)?;
    within("server.max_in_flight", server.max_in_flight, 1, 100_000)?;
    within("server.deregistration_s", server.deregistration_s, 0, 300)?;
    within("server.drain_s", server.drain_s, 0, 300)?;
    within("dynamodb.connect_timeout_ms", dynamodb.connect_timeout_ms, 10, 60_000)?;
    within("dynamodb.attempt_timeout_ms", dynamodb.attempt_timeout_ms, 10, 60_000)?;
    within("dynamodb.operation_timeout_ms", dynamodb.operation_timeout_ms, 10, 60_000)?;
    within("dynamodb.max_attempts", dynamodb.max_attempts, 1, 10)?;
    within("lease.duration_s", lease.duration_s, 2, 86_400)?;
    within("lease.heartbeat_interval_s", lease.heartbeat_interval_s, 1, 43_200)?;
    within("lease.retention_s", lease.retention_s, 1, 2_592_000)?;
    within("limits.streams_per_user", limits.streams_per_user, 1, u64::from(StreamLimit::MAX))?;
    within("rate.starts_per_minute", rate.starts_per_minute, 0, 1_000_000)?;
    within("rate.heartbeats_per_minute", rate.heartbeats_per_minute, 0, 1_000_000)?;
    within("rate.max_users", rate.max_users, 1, 10_000_000)?;
    at_most(
        ("lease.heartbeat_interval_s", lease.heartbeat_interval_s),
        ("half of lease.duration_s", lease.duration_s / 2),
    )?;
    at_most(
        ("dynamodb.connect_timeout_ms", dynamodb.connect_timeout_ms),
        ("dynamodb.attempt_timeout_ms", dynamodb.attempt_timeout_ms),
    )?;
    at_most(
        ("dynamodb.attempt_timeout_ms", dynamodb.attempt_timeout_ms),
        ("dynamodb.operation_timeout_ms", dynamodb.operation_timeout_ms),
    )?;
    at_most(
        ("dynamodb.operation_timeout_ms", dynamodb.operation_timeout_ms),
        ("server.request_timeout_s less one millisecond", server.request_timeout_s * 1000 - 1),
    )?;
    let name = &dynamodb.table;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    // DynamoDB's own rule for table names.
    if !(3..=255).contains(&name.len()) || !name.chars().all(allowed) {
        let problem = "must be 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'";
        return Err(invalid("dynamodb.table", format!("{name:?}"), problem));
    }
    let path = config.embedded.path.to_string_lossy();
    // SQLite takes these for something else than the name of a file.
    if config.embedded.path.file_name().is_none() || path.starts_with(':') || path.starts_with("file:") {
        return Err(invalid("embedded.path", format!("{path:?}"), "must name a file"));
    }
    if let Some(url) = &dynamodb.endpoint_url
        && plain_url(url).is_none()
    {
        // The value is not shown: it may hold a password.
        let problem = "must be http://HOST:PORT or https://HOST, without user and password";
        return Err(invalid("dynamodb.endpoint_url", "…".to_owned(), problem));
    }
    if dynamodb.region.as_deref() == Some("") {
        return Err(invalid("dynamodb.region", "\"\"".to_owned(), "must not be empty; leave it out"));
    }
    if let Err(error) = config.log.filter() {
        return Err(invalid("log.filter", format!("{:?}", config.log.filter), &error));
    }
    check_auth(&config.auth)?;
    check_origins(&config.cors)
}

fn check_auth(auth: &Auth) -> Result<(), ConfigError> {
    for (key, value) in [
        ("auth.user_claim", &auth.user_claim),
        ("auth.limit_claim", &auth.limit_claim),
        ("auth.admin_scope", &auth.admin_scope),
    ] {
        if value.is_empty() || value.contains(char::is_whitespace) {
            return Err(invalid(key, format!("{value:?}"), "must be a name without white space"));
        }
    }
    let sources = [
        ("auth.jwks_url", auth.jwks_url.is_some()),
        ("auth.jwks_file", auth.jwks_file.is_some()),
        ("auth.hs256_secret", auth.hs256_secret.is_some()),
    ];
    let others = [("auth.issuer", auth.issuer.is_some()), ("auth.audience", !auth.audience.is_empty())];
    if auth.mode == AuthMode::None {
        // Who has set any of them wants tokens checked; a mode that got lost must not leave the service open.
        return match sources.into_iter().chain(others).find(|(_, given)| *given) {
            Some((key, _)) => {
                Err(invalid(key, "…".to_owned(), "is for auth.mode = \"jwt\", and auth.mode is \"none\""))
            }
            None => Ok(()),
        };
    }
    let mut given = sources.into_iter().filter(|(_, given)| *given).map(|(key, _)| key);
    match (given.next(), given.next()) {
        (None, _) => {
            let problem = "needs one of auth.jwks_url, auth.jwks_file and auth.hs256_secret";
            return Err(invalid("auth.mode", "\"jwt\"".to_owned(), problem));
        }
        (Some(one), Some(_)) => {
            let problem = "must be the only one of auth.jwks_url, auth.jwks_file and auth.hs256_secret";
            return Err(invalid(one, "…".to_owned(), problem));
        }
        (Some(_), None) => {}
    }
    if auth.issuer.as_deref().is_none_or(str::is_empty) {
        return Err(invalid("auth.issuer", "\"\"".to_owned(), "must be set: the iss that tokens have"));
    }
    if auth.audience.is_empty() {
        return Err(invalid(
            "auth.audience",
            "[]".to_owned(),
            "must be set: the aud that tokens for this service have",
        ));
    }
    if auth.hs256_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < MIN_SECRET_BYTES) {
        let problem = format!("must have at least {MIN_SECRET_BYTES} bytes");
        return Err(invalid("auth.hs256_secret", "…".to_owned(), &problem));
    }
    if auth.hs256_secret.is_none() {
        let known = |name: &String| ALGORITHMS.iter().any(|(known, _)| known == name);
        if auth.algorithms.is_empty() || !auth.algorithms.iter().all(known) {
            let names: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
            let problem = format!("must be one or more of {}", names.join(", "));
            return Err(invalid("auth.algorithms", format!("{:?}", auth.algorithms), &problem));
        }
    }
    let url = auth.jwks_url.as_deref().map(plain_url);
    if url.is_some_and(|url| !url.is_some_and(|url| url.scheme_str() == Some("https") || is_loopback(&url))) {
        let problem = "must be https://HOST/PATH, or http:// on loopback, without user and password";
        return Err(invalid("auth.jwks_url", "…".to_owned(), problem));
    }
    Ok(())
}

/// An origin as browsers send it (RFC 6454, section 6.1): compared byte by byte, so it must be written so.
fn check_origins(cors: &Cors) -> Result<(), ConfigError> {
    for origin in &cors.allowed_origins {
        // A star is good in a host's name, but no browser has one, and patterns there are none.
        let written = !origin.contains('*')
            && plain_url(origin).is_some_and(|url| {
                let authority = url.authority().map(hyper::http::uri::Authority::as_str).unwrap_or_default();
                *origin == format!("{}://{}", url.scheme_str().unwrap_or_default(), authority.to_ascii_lowercase())
            });
        if !written {
            let problem = "must be written as browsers send it: https://HOST or http://HOST:PORT, in lower case, without a path";
            return Err(invalid("cors.allowed_origins", format!("{origin:?}"), problem));
        }
    }
    Ok(())
}

/// HTTP or HTTPS, and nobody's password in it.
fn plain_url(url: &str) -> Option<Uri> {
    let url = url.parse::<Uri>().ok()?;
    let authority = url.authority()?;
    let plain = matches!(url.scheme_str(), Some("http" | "https")) && !authority.as_str().contains('@');
    plain.then_some(url)
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(key, value.to_string(), &format!("must be {least} to {most}")))
}

fn at_most((key, value): (&str, u64), (bound, most): (&str, u64)) -> Result<(), ConfigError> {
    if value <= most {
        return Ok(());
    }
    Err(invalid(key, value.to_string(), &format!("must be at most {most} ({bound})")))
}

fn invalid(key: &str, value: String, problem: &str) -> ConfigError {
    ConfigError::Invalid { key: key.to_owned(), value, problem: problem.to_owned() }
}
