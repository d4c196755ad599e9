//! A load tool for a running service. It simulates players, measures latency, and checks that no user exceeds the limit. Example:
//! `cargo run --release --example load -- --base-url http://127.0.0.1:8080 --players 1000 --duration 60`

mod connection_pool;
mod limit_check;
mod measurements;
mod options;
mod player;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use options::Options;
use report::Report;

fn main() -> ExitCode {
    match run() {
        Ok(report) if report.failures().is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Report, String> {
    let options = Options::parse().resolve()?;
    let json = options.json.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.map_err(|error| error.to_string())?.block_on(async {
        let cancel = CancellationToken::new();
        tokio::spawn(cancel_on_ctrl_c(cancel.clone()));
        run::run(options, cancel).await
    })?;
    write(&report, json.as_deref())?;
    Ok(report)
}

/// The first Ctrl-C ends the run, which then prints its report. The second Ctrl-C ends the process at once.
async fn cancel_on_ctrl_c(cancel: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        cancel.cancel();
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
