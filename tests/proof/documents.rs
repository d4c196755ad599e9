//! What the proofs say: on the terminal, and in docs/CORRECTNESS.md, whose figures they hold to what was found.

use std::io::Write as _;
use std::path::Path;

/// Past the capture of the test harness, so that a plain `cargo test` shows what was explored.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error");
}

/// Those of the texts that docs/CORRECTNESS.md does not say.
pub fn unsaid(texts: &[String]) -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CORRECTNESS.md");
    let docs = std::fs::read_to_string(docs).expect("docs/CORRECTNESS.md");
    texts.iter().filter(|text| !docs.contains(*text)).cloned().collect()
}

/// 1234567 as 1,234,567.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}
