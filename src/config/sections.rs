//! The sections of settings and how each value is read. What values are allowed together is in `checks`.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Config {
    pub server: Server,
    pub store: Store,
    pub embedded: Embedded,
    pub dynamodb: DynamoDb,
    pub lease: Lease,
    pub limits: Limits,
    pub auth: Auth,
    pub rate: Rate,
    pub cors: Cors,
    pub log: Log,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Server {
    pub bind: SocketAddr,
    pub management_bind: SocketAddr,
    pub demo: Demo,
    #[serde(deserialize_with = "whole")]
    pub worker_threads: u64,
    #[serde(deserialize_with = "whole")]
    pub header_read_timeout_s: u64,
    #[serde(deserialize_with = "whole")]
    pub request_timeout_s: u64,
    #[serde(deserialize_with = "whole")]
    pub write_timeout_s: u64,
    #[serde(deserialize_with = "whole")]
    pub max_head_bytes: u64,
    #[serde(deserialize_with = "whole")]
    pub max_headers: u64,
    #[serde(deserialize_with = "whole")]
    pub max_uri_bytes: u64,
    #[serde(deserialize_with = "whole")]
    pub max_body_bytes: u64,
    #[serde(deserialize_with = "whole")]
    pub max_connections: u64,
    #[serde(deserialize_with = "whole")]
    pub max_in_flight: u64,
    #[serde(deserialize_with = "whole")]
    pub deregistration_s: u64,
    #[serde(deserialize_with = "whole")]
    pub drain_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Demo {
    Loopback,
    On,
    Off,
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
    pub sync: SyncMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
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
pub struct Auth {
    pub mode: AuthMode,
    pub jwks_url: Option<String>,
    pub jwks_file: Option<PathBuf>,
    #[serde(serialize_with = "hidden")]
    pub hs256_secret: Option<SecretString>,
    #[serde(deserialize_with = "list")]
    pub algorithms: Vec<String>,
    pub issuer: Option<String>,
    #[serde(deserialize_with = "list")]
    pub audience: Vec<String>,
    pub user_claim: String,
    pub limit_claim: String,
    pub admin_scope: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    None,
    Jwt,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Rate {
    #[serde(deserialize_with = "whole")]
    pub starts_per_minute: u64,
    #[serde(deserialize_with = "whole")]
    pub heartbeats_per_minute: u64,
    #[serde(deserialize_with = "whole")]
    pub max_users: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Cors {
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
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

impl Log {
    /// Reads the filter. A word alone must be a level: `EnvFilter` would take a misspelt one for a module, and log nothing.
    /// A space before a word would shift what `EnvFilter` 0.3.23 reads of it, and panic within a character of several bytes.
    pub fn filter(&self) -> Result<EnvFilter, String> {
        let words: Vec<&str> = self.filter.split(',').map(str::trim).collect();
        let mut alone = words.iter().filter(|word| !word.contains(['=', '[']));
        if let Some(word) = alone.find(|word| word.parse::<LevelFilter>().is_err()) {
            return Err(format!("{word:?} is not a level; a module is written as module=level"));
        }
        EnvFilter::try_new(words.join(",")).map_err(|error| error.to_string())
    }
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

/// Texts, as a list or separated by commas, which is all that the environment has.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let refusal = || D::Error::custom("must be a list of texts, or one text with commas");
    let texts: Vec<String> = match Value::deserialize(deserializer)? {
        Value::String(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        Value::Array(values) => {
            let texts = values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(refusal));
            texts.collect::<Result<_, _>>()?
        }
        _ => return Err(refusal()),
    };
    if texts.iter().any(String::is_empty) {
        return Err(D::Error::custom("must not contain an empty text"));
    }
    Ok(texts)
}

/// An empty object where there is a secret: it says that one is set, and not which.
fn hidden<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| serde_json::Map::new()).serialize(serializer)
}
