//! Many runs: seeds over two threads, one summary line, and all of what was found when a seed fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::runs::{Store, run};
use super::violation::Violation;
use super::world::Report;
use crate::documents::say;
use crate::mutants::Mutant;

pub const SEEDS: Range<u64> = 0..200;
const THREADS: usize = 2;
const SHOWN_LINES: usize = 200;

/// What every suite must have met, or it shows little.
const MET: [&str; 36] = [
    "TTL deletions",
    "admissions",
    "answer lost",
    "answered: already gone",
    "answered: denied",
    "answered: ended",
    "answered: existing",
    "answered: freed",
    "answered: limit",
    "answered: list",
    "answered: not found",
    "answered: over",
    "answered: renewed",
    "answered: started",
    "answered: stream",
    "calls",
    "calls dropped",
    "conflict",
    "crashes",
    "delivered",
    "ended by starts",
    "evictions",
    "failed, applied",
    "failed, not applied",
    "late",
    "limits set",
    "lost",
    "lost in an outage",
    "outages",
    "reaped",
    "renewals",
    "requests",
    "stops",
    "store failures",
    "throttled",
    "twice",
];
/// What the memory store cannot meet: its reads are one step, and it knows no tokens.
const MET_ON_THE_TABLE: [&str; 5] =
    ["answer lost, applied", "late, applied", "twice, applied again", "tokens known", "torn reads"];

/// What a search came to.
pub struct Search {
    pub tally: BTreeMap<&'static str, u64>,
    /// The lowest seed that broke a rule, of those that ran.
    pub failed: Option<(u64, Report)>,
    pub runs: u64,
}

/// The seeds that `PROOF_SEEDS` asks for: `from..to`, or how many.
pub fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("PROOF_SEEDS") else { return SEEDS };
    let number =
        |text: &str| text.trim().parse().unwrap_or_else(|_| panic!("PROOF_SEEDS={text}: from..to, or a count"));
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

/// Runs until a seed breaks a rule, or all are done.
pub fn search(store: Store, mutant: Option<Mutant>, seeds: Range<u64>) -> Search {
    let progress = progress(&seeds, mutant);
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let search = Mutex::new(Search { tally: BTreeMap::new(), failed: None, runs: 0 });
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = run(seed, store, mutant);
                    progress.inc(1);
                    let mut search = search.lock().expect("a lock");
                    search.runs += 1;
                    for (what, times) in &report.tally {
                        *search.tally.entry(what).or_default() += times;
                    }
                    let lower = search.failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest);
                    if report.violation.is_some() && lower {
                        stop.store(true, Ordering::SeqCst);
                        search.failed = Some((seed, report));
                    }
                }
            });
        }
    });
    progress.finish_and_clear();
    search.into_inner().expect("a lock")
}

/// All seeds keep all rules, and what could go wrong did.
pub fn every_seed_keeps_the_rules(store: Store) {
    let seeds = seeds();
    let Search { tally, failed, runs } = search(store, None, seeds.clone());
    if let Some((seed, report)) = failed {
        panic!("{}", told(seed, store, &report));
    }
    let counts = tally.iter().map(|(what, times)| format!("{what} {times}")).collect::<Vec<_>>().join(", ");
    say(&format!("simulation on {store:?}: seeds {seeds:?}, {runs} runs, {counts}"));
    if seeds.end - seeds.start < SEEDS.end {
        return;
    }
    let on_the_table: &[&str] = if store == Store::DynamoDb { &MET_ON_THE_TABLE } else { &[] };
    for what in MET.iter().chain(on_the_table) {
        assert!(tally.get(what).is_some_and(|times| *times > 0), "{store:?}: {what:?} never happened");
    }
}

pub fn keeps_the_rules(store: Store, seed: u64) {
    let report = run(seed, store, None);
    if report.violation.is_some() {
        panic!("{}", told(seed, store, &report));
    }
}

/// What a person needs to find the cause; the whole trace goes into a file.
pub fn told(seed: u64, store: Store, report: &Report) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{store:?}-{seed}.txt"));
    std::fs::write(&path, report.trace.join("\n")).expect("the trace is written");
    let from = report.trace.len().saturating_sub(SHOWN_LINES);
    let violation = report.violation.as_ref().map(Violation::to_string).unwrap_or_default();
    let mut text = format!("seed {seed} on {store:?}: {violation}\n");
    _ = writeln!(text, "the whole trace: {}; its end:", path.display());
    text.push_str(&report.trace[from..].join("\n"));
    text
}

/// Only for a search that takes a while, or that somebody watches.
fn progress(seeds: &Range<u64>, mutant: Option<Mutant>) -> ProgressBar {
    let length = seeds.end.saturating_sub(seeds.start);
    let shown = mutant.is_none() && (length > SEEDS.end || std::io::stderr().is_terminal());
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(Some(length), target)
}
