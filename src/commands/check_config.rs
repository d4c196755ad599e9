//! `check-config`: validates and prints the settings.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::output::print;
use super::settings;

pub fn run(file: Option<&Path>) -> Result<ExitCode> {
    let config = settings::load(file)?;
    config.check_exposure()?;
    print(&config.to_toml())?;
    Ok(ExitCode::SUCCESS)
}
