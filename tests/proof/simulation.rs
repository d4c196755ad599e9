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
mod surroundings;
mod table;
mod violation;
mod watched;
mod world;
mod wrong;

use runs::{Store, run};

#[test]
fn smoke() {
    for store in [Store::Memory, Store::DynamoDb] {
        for seed in 0..10 {
            let report = run(seed, store, None);
            eprintln!("{store:?} {seed} {:?} {:?}", report.violation, report.tally);
            if report.violation.is_some() {
                for line in report.trace.iter().rev().take(60).rev() {
                    eprintln!("{line}");
                }
                break;
            }
        }
    }
}
