//! Every log line at `info` or above has an event, and docs/MONITORING.md lists all events.

use std::collections::BTreeSet;

use crate::architecture::files;
use crate::documents::{read, section};

/// The calls to `info!`, `warn!` and `error!` in a source file: the line number, and the source after the opening
/// parenthesis.
fn log_calls(source: &str) -> Vec<(usize, &str)> {
    let mut calls = Vec::new();
    for name in ["info!(", "warn!(", "error!("] {
        for (at, _) in source.match_indices(name) {
            let is_whole_name = !source[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let line_start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let is_comment = source[line_start..at].trim_start().starts_with("//");
            if is_whole_name && !is_comment {
                calls.push((source[..at].lines().count(), &source[at + name.len()..]));
            }
        }
    }
    calls
}

/// The value of the field `event`, or `None` if it is not the first argument.
fn event(arguments: &str) -> Option<&str> {
    arguments.trim_start().strip_prefix("event = \"")?.split('"').next()
}

#[test]
fn every_log_line_has_an_event() {
    for (file, source) in files("src") {
        for (line, arguments) in log_calls(&source) {
            assert!(event(arguments).is_some(), "src/{file}:{line}: the first argument is not `event = \"…\"`");
        }
    }
}

#[test]
fn the_monitoring_guide_lists_every_event() {
    let sources = files("src");
    let logged: BTreeSet<&str> = sources
        .iter()
        .flat_map(|(_, source)| log_calls(source))
        .filter_map(|(_, arguments)| event(arguments))
        .collect();
    let text = read("docs/MONITORING.md");
    let rows = section(&text, "Log events").lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert_eq!(logged, listed);
}
