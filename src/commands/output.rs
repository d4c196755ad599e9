//! Writes to standard output and standard error without panicking, unlike `println!`.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes to standard output. Ignores a closed pipe, such as with `| head`.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes the line `error: …` to standard error.
pub fn print_error(error: &anyhow::Error) {
    // If this write fails, there is no other place to report the error.
    _ = writeln!(std::io::stderr(), "error: {}", one_line(error));
}

/// Formats the error and its causes on one line. Messages from parsers can have several lines, which are joined.
pub fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
