//! The sections of the settings, with the bounds of each number. `default.toml` explains every key. `checks` contains the rules
//! that involve several keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::bounded::Bounded;
use crate::domain::admission::AtLimit;
use crate::domain::labels::{LabelName, Labels};
use crate::domain::lease::StreamLimit;
use crate::domain::rules::{LimitMode, RuleName};
use crate::http::grants::content_path::ContentPath;
use crate::store::embedded::SyncMode;
use crate::telemetry::logging::LogFormat;

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
    pub grants: Grants,
    pub events: Events,
    pub rate: Rate,
    pub cors: Cors,
    pub log: Log,
    /// Whether `auth.mode` is in the file or the environment.
    #[serde(skip)]
    pub(super) auth_mode_is_set: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Server {
    pub bind: SocketAddr,
    pub management_bind: SocketAddr,
    pub demo: Page,
    pub swagger: Page,
    pub worker_threads: Bounded<0, 256>,
    pub header_read_timeout_s: Bounded<1, 3600>,
    pub request_timeout_s: Bounded<1, 300>,
    pub write_timeout_s: Bounded<1, 3600>,
    pub max_head_bytes: Bounded<8192, 1_048_576>,
    pub max_headers: Bounded<16, 1000>,
    pub max_uri_bytes: Bounded<1024, 65_534>,
    pub max_body_bytes: Bounded<1024, 1_048_576>,
    pub max_connections: Bounded<1, 1_000_000>,
    pub max_in_flight: Bounded<1, 100_000>,
    pub deregistration_s: Bounded<0, 300>,
    pub drain_s: Bounded<0, 300>,
}

/// Whether a page is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Page {
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

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct DynamoDb {
    pub table: String,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub connect_timeout_ms: Bounded<10, 60_000>,
    pub attempt_timeout_ms: Bounded<10, 60_000>,
    pub operation_timeout_ms: Bounded<10, 60_000>,
    pub max_attempts: Bounded<1, 10>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Lease {
    pub duration_s: Bounded<2, 86_400>,
    pub heartbeat_interval_s: Bounded<1, 43_200>,
    pub retention_s: Bounded<1, 2_592_000>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Limits {
    pub streams_per_user: Bounded<1, { StreamLimit::MAX as u64 }>,
    pub at_limit: AtLimit,
    pub mode: LimitMode,
    pub rules: Vec<RuleSettings>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a rule")]
pub struct RuleSettings {
    pub name: RuleName,
    pub max: Bounded<0, { StreamLimit::MAX as u64 }>,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub per: Option<LabelName>,
    /// The mode of this rule. `None` for the mode of the section.
    #[serde(default)]
    pub mode: Option<LimitMode>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Auth {
    pub mode: AuthMode,
    pub jwks_url: Option<String>,
    pub jwks_file: Option<PathBuf>,
    #[serde(serialize_with = "without_secret")]
    pub hs256_secret: Option<SecretString>,
    #[serde(deserialize_with = "list")]
    pub algorithms: Vec<String>,
    pub issuer: Option<String>,
    #[serde(deserialize_with = "list")]
    pub audience: Vec<String>,
    pub user_claim: String,
    pub limit_claim: String,
    pub labels_claim: Option<String>,
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
pub struct Grants {
    pub algorithm: GrantAlgorithm,
    pub key_file: Option<PathBuf>,
    #[serde(serialize_with = "without_secret")]
    pub secret: Option<SecretString>,
    /// Paths or secrets.
    #[serde(deserialize_with = "secret_list", serialize_with = "without_secrets")]
    pub published_keys: Vec<SecretString>,
    pub key_id: Option<String>,
    pub issuer: String,
    pub audience: String,
    pub leeway_s: Bounded<0, 300>,
    pub subject: GrantSubject,
    #[serde(serialize_with = "without_secret")]
    pub subject_key: Option<SecretString>,
    pub cookie: String,
    pub query_parameter: String,
    pub content_path: Option<ContentPath>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum GrantAlgorithm {
    #[serde(rename = "off")]
    Off,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "HS256")]
    Hs256,
}

/// Whether grants contain the user name or its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantSubject {
    Plain,
    Hashed,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Events {
    pub sink: EventSink,
    pub directory: PathBuf,
    pub keep_days: Bounded<1, 3650>,
    pub user: EventUser,
    #[serde(serialize_with = "without_secret")]
    pub hash_key: Option<SecretString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventSink {
    Off,
    Stdout,
    File,
}

/// How events identify users and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventUser {
    Hashed,
    Plain,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Rate {
    pub starts_per_minute: Bounded<0, 1_000_000>,
    pub heartbeats_per_minute: Bounded<0, 1_000_000>,
    pub max_users: Bounded<1, 10_000_000>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Cors {
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub allowed_headers: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of settings")]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// Part of error messages: how to write a list in an environment variable.
pub(super) const LIST_SYNTAX: &str =
    "in an environment variable, write a list as items with commas between them, such as a,b";

/// Accepts a list of strings. Also accepts one string with commas, because an environment variable cannot contain a list.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let wrong_type = || D::Error::custom("must be a list of strings, or one string with commas");
    let items: Vec<String> = match Value::deserialize(deserializer)? {
        // Rejects JSON and TOML syntax, because the items would contain brackets and quotes.
        Value::String(text) if text.trim_start().starts_with(['[', '"', '\'']) => {
            return Err(D::Error::custom(format!("must not contain brackets or quotes; {LIST_SYNTAX}")));
        }
        Value::String(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
        Value::Array(values) => {
            let items = values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong_type));
            items.collect::<Result<_, _>>()?
        }
        _ => return Err(wrong_type()),
    };
    if items.iter().any(String::is_empty) {
        return Err(D::Error::custom(format!("must not contain an empty item; {LIST_SYNTAX}")));
    }
    Ok(items)
}

fn secret_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretString>, D::Error> {
    Ok(list(deserializer)?.into_iter().map(SecretString::from).collect())
}

/// Serializes a list without secrets as it is, and other lists as [`without_secret`].
fn without_secrets<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    match secrets {
        [] => Vec::<String>::new().serialize(serializer),
        _ => serde_json::Map::new().serialize(serializer),
    }
}

/// Serializes a secret as an empty object, which shows only that a secret is set.
fn without_secret<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| serde_json::Map::new()).serialize(serializer)
}
