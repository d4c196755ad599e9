//! Writes to standard output and standard error without panicking, unlike `println!`.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes to standard output. A closed pipe, as after `| head`, is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes the line `error: …` to standard error.
pub fn print_error(error: &anyhow::Error) {
    // There is no other place for an error of standard error itself.
    _ = writeln!(std::io::stderr(), "error: {}", one_line(error));
}

/// The error with its causes. Joins the lines that parsers use to show a position.
pub fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
