//! The simulation: the real service on both stores, several instances with wrong clocks, players who come and go, and a
//! network that does harm, all in one thread on virtual time. A seed decides everything; an oracle sees every write.

mod answers;
mod asks;
mod clock;
mod faults;
mod instances;
mod mutations;
mod network;
mod oracle;
mod players;
mod requests;
mod runs;
mod state;
mod suites;
mod surroundings;
mod table;
mod violation;
mod watched;
mod world;
mod wrong;

use runs::{Store, run};
use suites::{SEEDS, every_seed_keeps_the_rules, keeps_the_rules, search, told};
use violation::Rule;

use crate::documents::{must_say, say};
use crate::mutants::Mutant;

#[test]
fn seeds_on_dynamodb_keep_every_rule() {
    every_seed_keeps_the_rules(Store::DynamoDb);
}

#[test]
fn seeds_in_memory_keep_every_rule() {
    every_seed_keeps_the_rules(Store::Memory);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    // Beside other runs, as in a search: nothing of a run is the process's.
    std::thread::scope(|scope| {
        scope.spawn(|| (2..6).for_each(|seed| _ = run(seed, Store::DynamoDb, None)));
        traces_repeat();
    });
}

fn traces_repeat() {
    for store in [Store::DynamoDb, Store::Memory] {
        for seed in [1, 7, 42, 1_000_003] {
            let (first, second) = (run(seed, store, None), run(seed, store, None));
            let differs = first.trace.iter().zip(&second.trace).find(|(one, other)| one != other);
            assert_eq!(differs, None, "seed {seed} on {store:?}");
            assert_eq!(first.trace.len(), second.trace.len(), "seed {seed} on {store:?}");
            assert_eq!(first.tally, second.tally, "seed {seed} on {store:?}");
        }
    }
}

/// Seeds that once found something, in the service or in the oracle.
#[test]
fn seeds_that_once_found_something_keep_every_rule() {
    // TTL deletes leases of dead streams that no start has reaped: in memory their slots go with them.
    keeps_the_rules(Store::Memory, 7);
    // Retries that come back after an ending or a renewal: a put without its condition shows here, and in few others.
    keeps_the_rules(Store::DynamoDb, 19);
    keeps_the_rules(Store::DynamoDb, 28);
}

#[test]
fn every_wrong_version_is_caught_within_two_hundred_seeds() {
    let (mut survivors, mut cells) = (Vec::new(), Vec::new());
    for mutant in Mutant::ALL {
        let found = search(Store::DynamoDb, Some(mutant), SEEDS);
        assert!(found.tally.get("done wrong").is_some_and(|times| *times > 0), "{mutant:?} changes nothing");
        match found.failed {
            Some((seed, report)) => {
                let violation = report.violation.expect("a violation");
                assert_ne!(violation.rule, Rule::Misasked, "{mutant:?}, seed {seed}: {violation}");
                let seeds = if seed == 0 { "1 seed".to_owned() } else { format!("{} seeds", seed + 1) };
                say(&format!("simulation: {mutant:?} is caught after {seeds}: {violation}"));
                cells.push((mutant, format!("{:?}, {seeds}", violation.rule)));
            }
            None => {
                survivors.push(mutant);
            }
        }
    }
    assert_eq!(survivors, [], "wrong versions that no seed caught");
    must_say(&[], &cells);
}

#[test]
fn a_failing_seed_tells_its_violation_and_its_trace() {
    let report = run(1_000, Store::DynamoDb, Some(Mutant::HeartbeatIgnoresEviction));
    let text = told(1_000, Store::DynamoDb, &report);
    assert!(text.starts_with("seed 1000 on DynamoDb: CameBack ("), "{text}");
    assert!(text.contains("VIOLATION CameBack"), "{text}");
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/simulation-DynamoDb-1000.txt");
    assert_eq!(std::fs::read_to_string(file).expect("the whole trace"), report.trace.join("\n"));
}
