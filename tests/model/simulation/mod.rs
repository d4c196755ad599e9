//! The simulation runs the real limiter and stores with several instances, skewed clocks, simulated players and a
//! faulty network. Each run uses one thread and virtual time, and its seed decides every event. The checks cover every
//! write and every response.

mod api;
mod checker;
mod clock;
mod context;
mod dynamodb_json;
mod environment;
mod faults;
mod faulty_requests;
mod faulty_store;
mod instances;
mod network;
mod players;
mod recording_store;
mod run;
mod seeds;
mod state;
mod table;

use checker::violation::ViolationKind;
use run::{StoreKind, run};
use seeds::{SEEDS, assert_all_seeds_pass, assert_seed_passes, failure_report, search};

use crate::mutants::Mutant;
use crate::output::print_summary;

#[test]
fn dynamodb_store_passes_on_all_seeds() {
    assert_all_seeds_pass(StoreKind::DynamoDb);
}

#[test]
fn memory_store_passes_on_all_seeds() {
    assert_all_seeds_pass(StoreKind::Memory);
}

/// Other seeds run at the same time, to check that runs share no state.
#[test]
fn same_seed_gives_the_same_trace() {
    std::thread::scope(|scope| {
        scope.spawn(|| (2..6).for_each(|seed| _ = run(seed, StoreKind::DynamoDb, None)));
        for store in [StoreKind::DynamoDb, StoreKind::Memory] {
            for seed in [1, 7, 42, 1_000_003] {
                assert_trace_repeats(seed, store);
            }
        }
    });
}

fn assert_trace_repeats(seed: u64, store: StoreKind) {
    let (first, second) = (run(seed, store, None), run(seed, store, None));
    let difference = first.trace.iter().zip(&second.trace).find(|(one, other)| one != other);
    assert_eq!(difference, None, "seed {seed} on {store:?}");
    assert_eq!(first.trace.len(), second.trace.len(), "seed {seed} on {store:?}");
    assert_eq!(first.counts, second.counts, "seed {seed} on {store:?}");
}

/// Seeds that once found a defect of the service or of the checker.
#[test]
fn regression_seeds_pass() {
    // A query returns a mix of old and new items, and misses a lease that another request ends at the same time as an erasure.
    assert_seed_passes(StoreKind::DynamoDb, 39);
    // A heartbeat renews a lease after the read on which its eviction is based.
    assert_seed_passes(StoreKind::DynamoDb, 1);
    // A stream starts again after its first lease was deleted. Its first start had ended other streams.
    assert_seed_passes(StoreKind::Memory, 2386);
}

#[test]
fn simulation_detects_every_mutant() {
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL.into_iter().filter(|mutant| mutant.is_in_simulation()) {
        let result = search(StoreKind::DynamoDb, Some(mutant), SEEDS);
        assert!(result.counts.get("mutations").is_some_and(|times| *times > 0), "{mutant:?} changes nothing");
        match result.failure {
            Some((seed, report)) => {
                let violation = report.violation.unwrap();
                assert_ne!(violation.kind, ViolationKind::InvalidRequest, "{mutant:?}, seed {seed}: {violation}");
                let seeds = if seed == 0 { "1 seed".to_owned() } else { format!("{} seeds", seed + 1) };
                print_summary(&format!("simulation: {mutant:?} is detected after {seeds}: {violation}"));
            }
            None => survivors.push(mutant),
        }
    }
    assert_eq!(survivors, [], "undetected mutants");
}

#[test]
fn failing_seed_reports_its_violation_and_trace() {
    let report = run(1_000, StoreKind::DynamoDb, Some(Mutant::HeartbeatIgnoresEviction));
    let text = failure_report(1_000, StoreKind::DynamoDb, &report);
    assert!(text.starts_with("seed 1000 on DynamoDb: EndedLeaseChanged ("), "{text}");
    assert!(text.contains("VIOLATION EndedLeaseChanged"), "{text}");
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/simulation-DynamoDb-1000.txt");
    assert_eq!(std::fs::read_to_string(file).unwrap(), report.trace.join("\n"));
}
