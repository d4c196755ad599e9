//! Runs many seeds on two threads, prints a summary line, and reports a failing seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::checker::violation::Violation;
use super::context::Report;
use super::run::{StoreKind, run};
use crate::mutants::Mutant;
use crate::output::print_summary;

pub const SEEDS: Range<u64> = 0..200;
const THREADS: usize = 2;
const REPORTED_LINES: usize = 200;

/// Events that must occur on both stores. If an event never occurs, the simulation did not test that case.
const REQUIRED_EVENTS: [&str; 52] = [
    "TTL deletions",
    "admissions",
    "admissions under rules",
    "calls",
    "calls without response",
    "conflict",
    "contents changed",
    "crashes",
    "dead leases deleted",
    "delivered",
    "denials by the hard limit",
    "duplicated",
    "failed after apply",
    "failed before apply",
    "late",
    "leases erased",
    "limit changes",
    "lost in an outage",
    "outages",
    "overdue streams evicted before older ones",
    "renewals",
    "request lost",
    "requests",
    "response lost",
    "response: blocked",
    "response: denied",
    "response: denied by a rule",
    "response: ended",
    "response: erased",
    "response: existing",
    "response: forbidden by a rule",
    "response: inactive",
    "response: limit",
    "response: list",
    "response: none ended",
    "response: not found",
    "response: over a limit",
    "response: nothing to stop",
    "response: renewed",
    "response: slot freed",
    "response: started",
    "response: stream",
    "response: streams ended",
    "stops",
    "store failures",
    "streams ended by evictions of all",
    "streams ended by evictions of listed streams",
    "streams ended by limits",
    "streams ended by starts",
    "streams ended by starts under rules",
    "throttled",
    "users blocked",
];
/// Additional events that must occur on DynamoDB. The memory store reads in one step, has no request tokens
/// and leaves no tombstones.
const REQUIRED_EVENTS_ON_DYNAMODB: [&str; 9] = [
    "duplicate, applied again",
    "late, applied",
    "request token repeated",
    "response lost, applied",
    "starts after an erasure",
    "streams ended by erasures",
    "tombstones",
    "tombstones deleted",
    "torn reads",
];

pub struct SearchResult {
    pub counts: BTreeMap<&'static str, u64>,
    /// The lowest failing seed among the seeds that ran, and its report.
    pub failure: Option<(u64, Report)>,
    pub runs: u64,
}

/// Reads the seeds from `SIMULATION_SEEDS`, which is a range such as `2000..2800` or a count.
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return SEEDS };
    let number = |part: &str| {
        part.trim().parse().unwrap_or_else(|_| panic!("SIMULATION_SEEDS={text} is neither a range nor a count"))
    };
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

/// Runs the seeds until one fails.
pub fn search(store: StoreKind, mutant: Option<Mutant>, seeds: Range<u64>) -> SearchResult {
    let progress = progress_bar(&seeds, mutant);
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let result = Mutex::new(SearchResult { counts: BTreeMap::new(), failure: None, runs: 0 });
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
                    let mut result = result.lock().unwrap();
                    result.runs += 1;
                    for (event, times) in &report.counts {
                        *result.counts.entry(event).or_default() += times;
                    }
                    let lowest = result.failure.as_ref().is_none_or(|(lowest, _)| seed < *lowest);
                    if report.violation.is_some() && lowest {
                        stop.store(true, Ordering::SeqCst);
                        result.failure = Some((seed, report));
                    }
                }
            });
        }
    });
    progress.finish_and_clear();
    result.into_inner().unwrap()
}

/// Asserts that no seed fails. In runs of at least the default size, also asserts that every required event occurs.
pub fn assert_all_seeds_pass(store: StoreKind) {
    let seeds = seeds();
    let SearchResult { counts, failure, runs } = search(store, None, seeds.clone());
    if let Some((seed, report)) = failure {
        panic!("{}", failure_report(seed, store, &report));
    }
    let list = counts.iter().map(|(event, times)| format!("{event} {times}")).collect::<Vec<_>>().join(", ");
    print_summary(&format!("simulation on {store:?}: seeds {seeds:?}, {runs} runs, {list}"));
    if seeds.end - seeds.start < SEEDS.end {
        return;
    }
    let on_dynamodb: &[&str] = if store == StoreKind::DynamoDb { &REQUIRED_EVENTS_ON_DYNAMODB } else { &[] };
    for event in REQUIRED_EVENTS.iter().chain(on_dynamodb) {
        assert!(counts.get(event).is_some_and(|times| *times > 0), "{store:?}: {event:?} never occurred");
    }
}

pub fn assert_seed_passes(store: StoreKind, seed: u64) {
    let report = run(seed, store, None);
    if report.violation.is_some() {
        panic!("{}", failure_report(seed, store, &report));
    }
}

/// Returns the violation and the end of the trace. Writes the whole trace to a file.
pub fn failure_report(seed: u64, store: StoreKind, report: &Report) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{store:?}-{seed}.txt"));
    std::fs::write(&path, report.trace.join("\n")).unwrap();
    let from = report.trace.len().saturating_sub(REPORTED_LINES);
    let violation = report.violation.as_ref().map(Violation::to_string).unwrap_or_default();
    let mut text = format!("seed {seed} on {store:?}: {violation}\n");
    _ = writeln!(text, "the whole trace is in {}; its end:", path.display());
    text.push_str(&report.trace[from..].join("\n"));
    text
}

/// The bar is hidden for mutants. Without a terminal, it is shown only for searches of more seeds than the default.
fn progress_bar(seeds: &Range<u64>, mutant: Option<Mutant>) -> ProgressBar {
    let length = seeds.end.saturating_sub(seeds.start);
    let visible = mutant.is_none() && (length > SEEDS.end || std::io::stderr().is_terminal());
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(Some(length), target)
}
