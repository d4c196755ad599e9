//! The log: lines for people or JSON for machines, on standard error.

use std::io::{self, IsTerminal};

use crate::config::{Log, LogFormat};

/// Starts logging for the rest of the process.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = log.filter()?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Pretty => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| error.to_string())
}
