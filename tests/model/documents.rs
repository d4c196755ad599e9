//! What the proofs say: on the terminal, and in docs/CORRECTNESS.md, whose figures that never vary they hold to what was
//! found.

use std::io::Write as _;
use std::path::Path;

use crate::mutants::Mutant;

/// Past the capture of the test harness, so that a plain `cargo test` shows what was explored.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error");
}

/// Holds docs/CORRECTNESS.md to what was found: these lines are in it, and these cells in the rows of their mutants.
pub fn must_say(lines: &[String], cells: &[(Mutant, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CORRECTNESS.md");
    let docs = std::fs::read_to_string(path).expect("docs/CORRECTNESS.md");
    let has = |mutant: &Mutant, cell: &str| {
        let mut rows = docs.lines().filter(|row| row.starts_with(&format!("| `{mutant:?}` |")));
        rows.any(|row| row.contains(&format!("| {cell} |")))
    };
    let lines = lines.iter().filter(|line| !docs.lines().any(|said| said == *line)).cloned();
    let cells = cells.iter().filter(|(mutant, cell)| !has(mutant, cell));
    let unsaid: Vec<String> = lines.chain(cells.map(|(mutant, cell)| format!("{mutant:?}: {cell}"))).collect();
    assert!(unsaid.is_empty(), "docs/CORRECTNESS.md tells another story than\n{}", unsaid.join("\n"));
}

/// 1234567 as 1,234,567.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}
