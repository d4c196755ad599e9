//! Prints a summary. Records a violation for every expected event that did not occur.

use crate::api::{DENIED_BY_RULE, LIMIT, NO_RESPONSE};
use crate::recorder::{RECOVERY_TIME, Records, WRITE_OPERATIONS};

/// Prints the summary and checks the number of held leases and the test's coverage.
pub fn summarize(records: &mut Records) {
    println!("\nresponses");
    for ((operation, label), count) in &records.responses {
        println!("  {operation:<10} {count:>7}  {label}");
    }
    println!("responses to requests that began and ended while the store was down");
    for ((outage, operation, label), count) in &records.responses_in_outage {
        println!("  {operation:<10} {count:>7}  {label}  ({outage})");
    }
    let failed: u64 = records.healthy_failures.values().sum();
    println!("503 while the store was healthy: {failed} of {} responses", records.healthy_responses);
    for (failure, count) in &records.healthy_failures {
        println!("  {failure}: {count}");
    }
    for outage in &records.outages {
        let writes = outage.recovered.iter().filter(|(key, _)| WRITE_OPERATIONS.contains(&key.1));
        let slowest = writes.map(|(_, after)| after.as_secs_f64()).fold(0.0, f64::max);
        println!("recovery after {}: start, heartbeat and stop on every instance within {slowest:.2} s", outage.name);
    }
    let seen = records.observations;
    println!(
        "table reads: {} ({} failed, {} incomplete), {} with the user at the limit; most members {}, most live leases {}, \
         most items of a user {}",
        seen.reads, seen.failed, seen.incomplete, seen.at_limit, seen.max_members, seen.max_live, seen.max_items
    );
    let held = records.max_held();
    println!(
        "leases held by a user at the same time, according to the responses: at most {held} ({} leases in total)",
        records.held_leases.len()
    );
    if held > LIMIT {
        records.violation(format!("clients of one user held {held} leases at the same time"));
    }
    for missing in missing_responses(records) {
        records.violation(missing);
    }
}

/// Records a violation for every write operation that was not called during an outage or did not recover in time after
/// it.
pub fn check_outages(records: &mut Records, live_instances: &[usize]) {
    for missing in outage_failures(records, live_instances) {
        records.violation(missing);
    }
}

/// Prints the violations. Returns true if there are none.
pub fn print_violations(records: &Records) -> bool {
    for violation in &records.violations {
        println!("VIOLATED: {violation}");
    }
    println!("violations: {}", records.violation_count);
    records.violation_count == 0
}

fn missing_responses(records: &Records) -> Vec<String> {
    let mut missing = Vec::new();
    let expected = [
        ("start", "201"),
        ("start", "200"),
        ("start", "409"),
        ("start", DENIED_BY_RULE),
        ("start", NO_RESPONSE),
        ("heartbeat", "200"),
        ("heartbeat", "404"),
        ("heartbeat", "410 evicted"),
        ("heartbeat", "410 replaced"),
        ("stop", "204"),
        ("evict", "204"),
        ("list", "200"),
    ];
    for (operation, label) in expected {
        if !records.responses.contains_key(&(operation, label.to_owned())) {
            missing.push(format!("not covered: no {operation} returned {label}"));
        }
    }
    if records.observations.at_limit == 0 {
        missing.push("not covered: no user was observed at the limit".to_owned());
    }
    missing
}

fn outage_failures(records: &Records, live_instances: &[usize]) -> Vec<String> {
    let mut failures = Vec::new();
    for outage in &records.outages {
        for operation in WRITE_OPERATIONS {
            let mut in_outage = records.responses_in_outage.keys();
            if !in_outage.any(|(name, other, _)| *name == outage.name && *other == operation) {
                failures.push(format!("not covered: no {operation} during the outage ({})", outage.name));
            }
            for instance in live_instances {
                match outage.recovered.get(&(*instance, operation)) {
                    Some(after) if *after <= RECOVERY_TIME => {}
                    after => failures.push(format!(
                        "instance {instance}: {operation} recovered after {after:?} instead of at most {RECOVERY_TIME:?} ({})",
                        outage.name
                    )),
                }
            }
        }
    }
    failures
}
