//! Reads the settings for a command.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use stream_manager::config::Config;

pub fn load(file: Option<&Path>) -> Result<Config> {
    Ok(Config::load(file, environment()?)?)
}

/// Returns the environment variables whose names start with `STREAM_MANAGER_`, in any case. A value that is not UTF-8 is an
/// error only if the name starts with `STREAM_MANAGER__`. Other names are not settings: `Config::load` ignores or rejects them.
pub fn environment() -> Result<HashMap<String, String>> {
    let candidates = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.to_ascii_uppercase().starts_with("STREAM_MANAGER_").then_some((name, value))
    });
    let variables = candidates.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(value) if !name.to_ascii_uppercase().starts_with("STREAM_MANAGER__") => {
            Ok((name, value.to_string_lossy().into_owned()))
        }
        Err(_) => bail!("the environment variable {name} is not UTF-8"),
    });
    variables.collect()
}
