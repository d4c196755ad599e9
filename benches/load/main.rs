//! A load tool for a running service: simulated players, what they measured, and whether a user ever had too many
//! streams (docs/LOAD-TESTING.md). Only wires the parts; what players may do is in players.rs.
//! `cargo run --release --example load -- --base-url http://127.0.0.1:8080 --players 1000 --duration 60`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod connections;
mod holds;
mod measurements;
mod options;
mod players;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod world;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use options::Options;
use report::Report;

fn main() -> ExitCode {
    let options = match Options::parse().settled() {
        Ok(options) => options,
        Err(error) => return refused(&error),
    };
    let json = options.json.clone();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refused(&error.to_string()),
    };
    let end = CancellationToken::new();
    let report = runtime.block_on(async {
        tokio::spawn(end_on_ctrl_c(end.clone()));
        run::run(options, end).await
    });
    match report.and_then(|report| write(&report, json.as_deref()).map(|()| report)) {
        Ok(report) if report.faults().is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => refused(&error),
    }
}

/// The first ends the run, and prints what there is; the second ends the process.
async fn end_on_ctrl_c(end: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        end.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    }
}

fn write(report: &Report, json: Option<&Path>) -> Result<(), String> {
    let text = serde_json::to_string(report).map_err(|error| error.to_string());
    match json {
        Some(file) if file == Path::new("-") => {
            eprint!("{report}");
            println!("{}", text?);
        }
        Some(file) => {
            print!("{report}");
            std::fs::write(file, text? + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
        }
        None => print!("{report}"),
    }
    Ok(())
}

fn refused(error: &str) -> ExitCode {
    eprintln!("load: {error}");
    ExitCode::from(2)
}
