//! Settings: the only place that reads them. Three layers (built-in, file, environment), then checked as a whole; what
//! is wrong is said with its key, its value and what is allowed.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use hyper::Uri;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::admission::AtLimit;
use crate::http::Bounds;
use crate::http::server::ServerSettings;
use crate::lease::{LeaseTerms, StreamLimit};
use crate::limiter::Policy;
use crate::store::dynamodb::client::ClientSettings;

pub const DEFAULTS: &str = include_str!("config/default.toml");
const PREFIX: &str = "STREAM_MANAGER";

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Config {
    pub server: Server,
    pub store: Store,
    pub embedded: Embedded,
    pub dynamodb: DynamoDb,
    pub lease: Lease,
    pub limits: Limits,
    pub log: Log,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Server {
    pub bind: SocketAddr,
    pub management_bind: SocketAddr,
    #[serde(deserialize_with = "whole")]
    pub header_read_timeout_s: u64,
    #[serde(deserialize_with = "whole")]
    pub request_timeout_s: u64,
    #[serde(deserialize_with = "whole")]
    pub max_body_bytes: u64,
    #[serde(deserialize_with = "whole")]
    pub max_connections: u64,
    #[serde(deserialize_with = "whole")]
    pub max_in_flight: u64,
    #[serde(deserialize_with = "whole")]
    pub drain_s: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Store {
    pub kind: StoreKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Embedded,
    DynamoDb,
    Memory,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Embedded {
    pub path: PathBuf,
    pub sync: Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    Normal,
    Full,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct DynamoDb {
    pub table: String,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    #[serde(deserialize_with = "whole")]
    pub connect_timeout_ms: u64,
    #[serde(deserialize_with = "whole")]
    pub attempt_timeout_ms: u64,
    #[serde(deserialize_with = "whole")]
    pub operation_timeout_ms: u64,
    #[serde(deserialize_with = "whole")]
    pub max_attempts: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Lease {
    #[serde(deserialize_with = "whole")]
    pub duration_s: u64,
    #[serde(deserialize_with = "whole")]
    pub heartbeat_interval_s: u64,
    #[serde(deserialize_with = "whole")]
    pub retention_s: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Limits {
    #[serde(deserialize_with = "whole")]
    pub streams_per_user: u64,
    pub at_limit: AtLimitSetting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AtLimitSetting {
    Reject,
    EvictOldest,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Pretty,
    Json,
}

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
            .map_err(|error| ConfigError::Unreadable(error.to_string()))?;
        let config: Self = serde_path_to_error::deserialize(&values).map_err(|error| {
            let key = error.path().to_string();
            let value = key.split('.').fold(&values, |value, part| &value[part]).to_string();
            // A variable that ends with its prefix.
            let key = if key.is_empty() { "\"\"".to_owned() } else { key };
            // serde's word for one of several values is Rust's.
            let problem = error.inner().to_string().replacen("unknown variant", "unknown value", 1);
            ConfigError::Invalid { key, value, problem }
        })?;
        config.check()?;
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
                    value => writeln!(text, "{key} = {}", value.to_string().replace('\u{7f}', "\\u007f")),
                };
            }
            text.push('\n');
        }
        text
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Self { server, dynamodb, lease, limits, .. } = self;
        within("server.header_read_timeout_s", server.header_read_timeout_s, 1, 3600)?;
        within("server.request_timeout_s", server.request_timeout_s, 1, 300)?;
        within("server.max_body_bytes", server.max_body_bytes, 1024, 1_048_576)?;
        within("server.max_connections", server.max_connections, 1, 1_000_000)?;
        within("server.max_in_flight", server.max_in_flight, 1, 100_000)?;
        within("server.drain_s", server.drain_s, 0, 300)?;
        within("dynamodb.connect_timeout_ms", dynamodb.connect_timeout_ms, 10, 60_000)?;
        within("dynamodb.attempt_timeout_ms", dynamodb.attempt_timeout_ms, 10, 60_000)?;
        within("dynamodb.operation_timeout_ms", dynamodb.operation_timeout_ms, 10, 60_000)?;
        within("dynamodb.max_attempts", dynamodb.max_attempts, 1, 10)?;
        within("lease.duration_s", lease.duration_s, 2, 86_400)?;
        within("lease.heartbeat_interval_s", lease.heartbeat_interval_s, 1, 43_200)?;
        within("lease.retention_s", lease.retention_s, 1, 2_592_000)?;
        within("limits.streams_per_user", limits.streams_per_user, 1, u64::from(StreamLimit::MAX))?;
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
        let path = self.embedded.path.to_string_lossy();
        // SQLite takes these for something else than the name of a file.
        if self.embedded.path.file_name().is_none() || path.starts_with(':') || path.starts_with("file:") {
            return Err(invalid("embedded.path", format!("{path:?}"), "must name a file"));
        }
        if let Some(url) = &dynamodb.endpoint_url {
            let parsed = url.parse::<Uri>().ok();
            let plain = parsed.as_ref().is_some_and(|url| {
                matches!(url.scheme_str(), Some("http" | "https"))
                    && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            });
            if !plain {
                // The value is not shown: it may hold a password.
                let problem = "must be http://HOST:PORT or https://HOST, without user and password";
                return Err(invalid("dynamodb.endpoint_url", "…".to_owned(), problem));
            }
        }
        if dynamodb.region.as_deref() == Some("") {
            return Err(invalid("dynamodb.region", "\"\"".to_owned(), "must not be empty; leave it out"));
        }
        if let Err(error) = self.log.filter() {
            return Err(invalid("log.filter", format!("{:?}", self.log.filter), &error));
        }
        Ok(())
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

    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_body_bytes: usize::try_from(self.server.max_body_bytes).unwrap_or(usize::MAX),
            max_in_flight: usize::try_from(self.server.max_in_flight).unwrap_or(usize::MAX),
            request_timeout: Duration::from_secs(self.server.request_timeout_s),
        }
    }

    pub fn server(&self) -> ServerSettings {
        ServerSettings {
            header_read_timeout: Duration::from_secs(self.server.header_read_timeout_s),
            max_connections: usize::try_from(self.server.max_connections).unwrap_or(usize::MAX),
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
}

impl Log {
    /// Reads the filter. A word alone must be a level: `EnvFilter` would take a misspelt one for a module, and log nothing.
    pub fn filter(&self) -> Result<EnvFilter, String> {
        let words = self.filter.split(',').map(str::trim);
        let mut alone = words.filter(|word| !word.contains(['=', '[']));
        if let Some(word) = alone.find(|word| word.parse::<LevelFilter>().is_err()) {
            return Err(format!("{word:?} is not a level; a module is written as module=level"));
        }
        EnvFilter::try_new(&self.filter).map_err(|error| error.to_string())
    }
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

/// A whole number, also as text, which is all that the environment has. `config` itself would round 1.5 and read `true`
/// as 1.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::String(digits) => digits.parse().ok(),
        value => value.as_u64(),
    };
    number.ok_or_else(|| D::Error::custom("must be a whole number"))
}
