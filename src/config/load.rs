//! Reads the settings from their layers: built-in defaults, file, environment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use config::{Environment, File, FileFormat};
use serde_json::Value;

use super::environment::PREFIX;
use super::error::ConfigError;
use super::sections::Config;
use super::{checks, cors, environment, rules};
use crate::telemetry::logging::LogFormat;

/// The lowest layer: the default of each setting. Its comments are the reference for users.
pub const DEFAULTS: &str = include_str!("default.toml");

impl Config {
    /// Reads all layers and checks the result. `environment` may contain variables that are not settings.
    ///
    /// # Errors
    /// The first problem: a file that cannot be read, an unknown key, or a value that is not allowed.
    pub fn load(file: Option<&Path>, environment: HashMap<String, String>) -> Result<Self, ConfigError> {
        let overrides = overrides(file, environment::settings_in(environment)?)?;
        let auth_mode_is_set = overrides.get::<Value>("auth.mode").is_ok();
        let layers = with_defaults(overrides)?;
        let mut values: Value = layers.try_deserialize().map_err(unreadable)?;
        rules::normalize(&mut values)?;
        let mut config: Self = serde_path_to_error::deserialize(&values).map_err(|error| invalid(&values, &error))?;
        config.auth_mode_is_set = auth_mode_is_set;
        cors::normalize(&mut config.cors)?;
        checks::check(&config)?;
        Ok(config)
    }

    /// Returns the log format even if the file or other settings are invalid.
    pub fn log_format(file: Option<&Path>, environment: &HashMap<String, String>) -> LogFormat {
        let format = |file| with_defaults(overrides(file, environment.clone()).ok()?).ok()?.get("log.format").ok();
        format(file).or_else(|| format(None)).unwrap_or(LogFormat::Pretty)
    }

    /// Returns `server.bind` even if other settings are invalid.
    ///
    /// # Errors
    /// The file cannot be read, or the address is invalid.
    pub fn bind(file: Option<&Path>, environment: HashMap<String, String>) -> Result<SocketAddr, ConfigError> {
        with_defaults(overrides(file, environment)?)?.get("server.bind").map_err(unreadable)
    }
}

/// The settings in the file and the environment.
fn overrides(file: Option<&Path>, environment: HashMap<String, String>) -> Result<config::Config, ConfigError> {
    let mut layers = config::Config::builder();
    if let Some(file) = file {
        layers = layers.add_source(File::from(file).format(FileFormat::Toml));
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .ignore_empty(true)
        .source(Some(environment));
    layers.add_source(environment).build().map_err(unreadable)
}

fn with_defaults(overrides: config::Config) -> Result<config::Config, ConfigError> {
    let defaults = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    defaults.add_source(overrides).build().map_err(unreadable)
}

/// Removes quoted configuration lines from the parser's error message, because they may contain a secret. Keeps the line and
/// column numbers.
fn unreadable(error: config::ConfigError) -> ConfigError {
    let is_quote = |line: &&str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let error = error.to_string();
    ConfigError::Unreadable(error.lines().filter(|line| !is_quote(line)).collect::<Vec<_>>().join(" "))
}

/// Adds the key and the value to serde's error, and replaces the names of Rust types with descriptions of the expected value.
fn invalid(values: &Value, error: &serde_path_to_error::Error<serde_json::Error>) -> ConfigError {
    let key = error.path().to_string();
    let problem = error.inner().to_string().replacen("unknown variant", "unknown value", 1);
    let expected = problem.strip_prefix("invalid type: ").and_then(|problem| problem.rsplit_once(", expected "));
    let problem = match expected {
        Some((_, "a string" | "string or map" | "path string")) => "must be a string".to_owned(),
        Some((_, "a map")) => "must be a table".to_owned(),
        Some((_, "socket address")) => "must be a socket address, such as 127.0.0.1:8080".to_owned(),
        Some((_, expected)) => format!("must be {expected}"),
        None => problem,
    };
    match key.as_str() {
        // The value may contain a misplaced secret, and serde's message may contain the value.
        "auth" | "grants" | "events" => return ConfigError::hidden(&key, "must be a section of settings"),
        "auth.hs256_secret" | "grants.secret" | "grants.subject_key" | "events.hash_key" => {
            return ConfigError::hidden(&key, "must be a string");
        }
        "grants.published_keys" => return ConfigError::hidden(&key, problem),
        // The key is empty if the name of an environment variable consists of the prefix alone.
        "" => return ConfigError::hidden("\"\"", problem),
        // A misspelled key may hold a secret, so its value is hidden.
        _ if problem.starts_with("unknown field") => return ConfigError::hidden(&key, problem),
        _ => {}
    }
    let value = match values.pointer(&json_pointer(&key)).unwrap_or(&Value::Null) {
        // Show a number from an environment variable without quotes, like a number from the file.
        Value::String(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.clone()
        }
        value => value.to_string(),
    };
    ConfigError::invalid(&key, value, problem)
}

/// Converts the path of a setting, such as `limits.rules[0].max`, to a JSON pointer.
fn json_pointer(path: &str) -> String {
    format!("/{}", path.replace(['.', '['], "/").replace(']', ""))
}
