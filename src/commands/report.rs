//! `report`: evaluates event files, and shows what other limits would have denied.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::ProgressBar;
use stream_manager::report::{evaluate, html, text};

use super::output::print;

#[derive(Args)]
pub struct ReportArguments {
    /// Event files of any number of instances, plain or compressed with gzip, in any order; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also write the report with charts to this file, as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(arguments: &ReportArguments) -> Result<ExitCode> {
    // Draws on standard error, and only if that is a terminal.
    let progress = ProgressBar::new(0);
    let report = evaluate(&arguments.files, &progress)?;
    if let Some(file) = &arguments.html {
        let page = html::page(&report)?;
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&if arguments.json { text::json(&report) } else { text::text(&report) })?;
    Ok(ExitCode::SUCCESS)
}
