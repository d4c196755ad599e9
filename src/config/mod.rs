//! Settings: the only place that reads them. Three layers (built-in, file, environment), then checked as a whole; what
//! is wrong is said with its key, its value and what is allowed.

mod checks;
mod sections;

use std::collections::HashMap;
use std::fmt::Write;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use serde_json::Value;
use thiserror::Error;

pub use self::sections::*;
use crate::domain::admission::AtLimit;
use crate::domain::lease::{LeaseTerms, StreamLimit};
use crate::http::api::rate_limits::RateSettings;
use crate::http::auth::{KeySource, TokenSettings};
use crate::http::pipeline::app::Bounds;
use crate::http::server::ServerSettings;
use crate::limiter::Policy;
use crate::store::dynamodb::client::ClientSettings;

pub const DEFAULTS: &str = include_str!("default.toml");
const PREFIX: &str = "STREAM_MANAGER";

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the settings: {0}")]
    Unreadable(String),
    #[error("{key} = {value}: {problem}")]
    Invalid { key: String, value: String, problem: String },
    #[error("{0} is set, but settings in the environment begin with {PREFIX}__, such as {PREFIX}__SERVER__BIND")]
    Misspelt(String),
}

impl Config {
    /// Reads all layers and checks the result. `environment` is the whole environment of the process.
    pub fn load(file: Option<&Path>, environment: HashMap<String, String>) -> Result<Self, ConfigError> {
        let misspelt = environment.keys().find(|name| {
            let name = name.to_ascii_uppercase();
            name.starts_with(&format!("{PREFIX}_")) && !name.starts_with(&format!("{PREFIX}__"))
        });
        if let Some(name) = misspelt {
            return Err(ConfigError::Misspelt(name.clone()));
        }
        let mut layers = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(file) = file {
            layers = layers.add_source(File::from(file).format(FileFormat::Toml));
        }
        let environment = Environment::with_prefix(PREFIX)
            .prefix_separator("__")
            .separator("__")
            .ignore_empty(true)
            .source(Some(environment));
        let values: Value = layers
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| ConfigError::Unreadable(without_quotes(&error.to_string())))?;
        let config: Self = serde_path_to_error::deserialize(&values).map_err(|error| {
            let key = error.path().to_string();
            // serde's words for a value of the wrong type, and for one of several values, are Rust's.
            let problem = error.inner().to_string().replacen("unknown variant", "unknown value", 1);
            let of_type =
                problem.strip_prefix("invalid type: ").and_then(|problem| problem.rsplit_once(", expected "));
            let problem = match of_type {
                Some((_, "a string" | "string or map" | "path string")) => "must be a text".to_owned(),
                Some((_, "socket address")) => "must be a socket address".to_owned(),
                Some((_, expected)) => format!("must be {expected}"),
                None => problem,
            };
            let value = key.split('.').fold(&values, |value, part| &value[part]).to_string();
            // A secret may stand in the wrong place, or under a misspelt name; serde's words would hold it, too.
            let (value, problem) = match key.as_str() {
                "auth" => ("…".to_owned(), "must be a section of settings".to_owned()),
                "auth.hs256_secret" => ("…".to_owned(), "must be a text".to_owned()),
                _ if problem.starts_with("unknown field") => ("…".to_owned(), problem),
                _ => (value, problem),
            };
            // A variable that ends with its prefix.
            let key = if key.is_empty() { "\"\"".to_owned() } else { key };
            ConfigError::Invalid { key, value, problem }
        })?;
        checks::check(&config)?;
        Ok(config)
    }

    /// The settings in force, as a file that could be read again.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let sections = serde_json::to_value(self).unwrap_or_default();
        for (section, keys) in sections.as_object().into_iter().flatten() {
            _ = writeln!(text, "[{section}]");
            for (key, value) in keys.as_object().into_iter().flatten() {
                // JSON's strings and whole numbers are TOML's too, but for the one control character that JSON lets stand.
                _ = match value {
                    Value::Null => writeln!(text, "# {key} is not set"),
                    Value::Object(_) => writeln!(text, "# {key} is set, and not shown"),
                    value => writeln!(text, "{key} = {}", value.to_string().replace('\u{7f}', "\\u007f")),
                };
            }
            text.push('\n');
        }
        text
    }

    pub fn policy(&self) -> Policy {
        let second = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Policy {
            // Checked before: 1 to 50.
            default_limit: StreamLimit::new(self.limits.streams_per_user).unwrap_or(StreamLimit::DEFAULT),
            at_limit: match self.limits.at_limit {
                AtLimitSetting::Reject => AtLimit::Reject,
                AtLimitSetting::EvictOldest => AtLimit::EvictOldest,
            },
            terms: LeaseTerms {
                duration_s: second(self.lease.duration_s),
                retention_s: second(self.lease.retention_s),
            },
            heartbeat_interval_s: second(self.lease.heartbeat_interval_s),
        }
    }

    /// How many threads answer requests: as many as there are cores for this process, unless a number is set.
    pub fn worker_threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(size(self.server.worker_threads))
            .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// Whether the demo page is served.
    pub fn demo(&self) -> bool {
        match self.server.demo {
            Demo::Loopback => self.server.bind.ip().is_loopback(),
            Demo::On => true,
            Demo::Off => false,
        }
    }

    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_uri_bytes: size(self.server.max_uri_bytes),
            max_body_bytes: size(self.server.max_body_bytes),
            max_in_flight: size(self.server.max_in_flight),
            request_timeout: Duration::from_secs(self.server.request_timeout_s),
        }
    }

    pub fn server(&self) -> ServerSettings {
        ServerSettings {
            header_read_timeout: Duration::from_secs(self.server.header_read_timeout_s),
            write_timeout: Duration::from_secs(self.server.write_timeout_s),
            max_head_bytes: size(self.server.max_head_bytes),
            max_headers: size(self.server.max_headers),
            max_connections: size(self.server.max_connections),
            drain: Duration::from_secs(self.server.drain_s),
        }
    }

    pub fn client(&self) -> ClientSettings {
        let DynamoDb { endpoint_url, region, .. } = self.dynamodb.clone();
        ClientSettings {
            endpoint_url,
            region,
            connect_timeout: Duration::from_millis(self.dynamodb.connect_timeout_ms),
            attempt_timeout: Duration::from_millis(self.dynamodb.attempt_timeout_ms),
            operation_timeout: Duration::from_millis(self.dynamodb.operation_timeout_ms),
            max_attempts: u32::try_from(self.dynamodb.max_attempts).unwrap_or(u32::MAX),
        }
    }

    pub fn rate(&self) -> RateSettings {
        let a_minute = |value: u64| NonZeroU32::new(u32::try_from(value).unwrap_or(u32::MAX));
        RateSettings {
            starts_per_minute: a_minute(self.rate.starts_per_minute),
            heartbeats_per_minute: a_minute(self.rate.heartbeats_per_minute),
            max_users: size(self.rate.max_users),
        }
    }

    /// None when no tokens are asked for.
    pub fn tokens(&self) -> Option<TokenSettings> {
        let Auth { mode, jwks_url, jwks_file, hs256_secret, .. } = self.auth.clone();
        let keys = match (mode, jwks_url, jwks_file, hs256_secret) {
            (AuthMode::None, ..) => return None,
            (_, Some(url), _, _) => KeySource::Url(url),
            (_, _, Some(path), _) => KeySource::File(path),
            (_, _, _, Some(secret)) => KeySource::Secret(secret),
            // Checked before: there is one of them. Else no file has this name, and the service would not start.
            (_, None, None, None) => KeySource::File(PathBuf::new()),
        };
        Some(TokenSettings {
            keys,
            algorithms: self.auth.algorithms.clone(),
            issuer: self.auth.issuer.clone().unwrap_or_default(),
            audience: self.auth.audience.clone(),
            user_claim: self.auth.user_claim.clone(),
            limit_claim: self.auth.limit_claim.clone(),
            admin_scope: self.auth.admin_scope.clone(),
        })
    }
}

/// Without the lines of the file that the parser quotes, since one may hold a secret; it says the place as well.
fn without_quotes(error: &str) -> String {
    let quotes = |line: &&str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    error.lines().filter(|line| !quotes(line)).collect::<Vec<_>>().join(" ")
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
