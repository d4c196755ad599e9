//! `report`: evaluates event files, and shows what other limits would have denied.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use stream_manager::report::{Report, evaluate, html, text};
use tempfile::Builder;

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

/// The first bytes of each page. A file that begins otherwise is not overwritten.
const PAGE_START: &[u8] = b"<!DOCTYPE html>";
/// `rw-r--r--`: the permissions of a page, so that a web server can read it.
const PAGE_MODE: u32 = 0o644;

pub fn run(arguments: &ReportArguments) -> Result<ExitCode> {
    if let Some(folder) = arguments.files.iter().find(|file| file.is_dir()) {
        bail!("{0} is a directory; pass its files: {0}/*.jsonl", folder.display());
    }
    if let Some(page) = &arguments.html {
        check_target(page, &arguments.files)?;
    }
    // Draws on standard error, and only if that is a terminal.
    let progress = ProgressBar::new(0);
    let report = evaluate(&arguments.files, &progress)?;
    if report.totals.events == 0 && has_lines(&report) {
        match arguments.files.as_slice() {
            [file] => bail!("no line of {} is an event of stream-manager", file.display()),
            _ => bail!("no line of the files is an event of stream-manager"),
        }
    }
    if let Some(file) = &arguments.html {
        let page = html::page(&report)?;
        write_page(file, &page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&if arguments.json { text::json(&report) } else { text::text(&report) })?;
    Ok(ExitCode::SUCCESS)
}

fn has_lines(report: &Report) -> bool {
    let input = &report.totals.input;
    input.broken_lines + input.unknown_types + input.incomplete_last_lines > 0
}

/// Refuses a page that would overwrite an input or another file that is not a page.
fn check_target(page: &Path, inputs: &[PathBuf]) -> Result<()> {
    if page == Path::new("-") {
        bail!("--html needs the name of a file");
    }
    let file = match File::open(page) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.with_context(|| format!("cannot read {}", page.display()))?,
    };
    let target = page.canonicalize()?;
    let is_input = inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == target));
    let mut start = Vec::new();
    if !is_input && file.metadata()?.is_file() {
        file.take(PAGE_START.len() as u64).read_to_end(&mut start)?;
    }
    if start != PAGE_START {
        bail!("{} exists and is not a report; name another file after --html", page.display());
    }
    Ok(())
}

/// Replaces the page only when it is complete.
fn write_page(file: &Path, page: &str) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = Builder::new().permissions(Permissions::from_mode(PAGE_MODE)).tempfile_in(folder)?;
    temporary.write_all(page.as_bytes())?;
    temporary.persist(file)?;
    Ok(())
}
