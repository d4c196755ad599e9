//! `check-config`: validates and prints the settings.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::output::print;
use super::settings;

pub fn run(file: Option<&Path>) -> Result<ExitCode> {
    print(&settings::load(file)?.to_toml())?;
    Ok(ExitCode::SUCCESS)
}
