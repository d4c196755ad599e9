//! Prints the summary lines of the searches.

use std::io::Write as _;

/// Writes to the terminal directly, because the test harness hides the output of tests that pass.
pub fn print_summary(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// Formats 1234567 as 1,234,567.
pub fn with_separators(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
