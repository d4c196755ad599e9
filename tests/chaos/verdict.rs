//! The summary, and what must have happened for the race to mean anything.

use crate::api::LIMIT;
use crate::board::{CHANGES, GRACE, Notes};

/// Prints what was seen.
pub fn sum_up(notes: &mut Notes) {
    println!("\nanswers");
    for ((verb, label), count) in &notes.answers {
        println!("  {verb:<10} {count:>7}  {label}");
    }
    println!("answers to requests that began and ended while the store was away");
    for ((name, verb, label), count) in &notes.inside {
        println!("  {verb:<10} {count:>7}  {label}  ({name})");
    }
    let failed: u64 = notes.calm_failures.values().sum();
    println!("503 while the store was well: {failed} of {} answers", notes.calm_answers);
    for (what, count) in &notes.calm_failures {
        println!("  {what}: {count}");
    }
    for trouble in &notes.troubles {
        let slowest = trouble.recovered.iter().filter(|(key, _)| CHANGES.contains(&key.1));
        let slowest = slowest.map(|(_, after)| after.as_secs_f64()).fold(0.0, f64::max);
        println!(
            "recovery after {}: start, heartbeat and stop on every instance within {slowest:.2} s",
            trouble.name
        );
    }
    let seen = notes.observed;
    println!(
        "observations of the table: {} ({} while it was away, {} torn); {} with all slots taken; most members {}, \
         most live leases {}, most items of a user {}",
        seen.count, seen.failed, seen.torn, seen.full, seen.max_members, seen.max_live, seen.max_items
    );
    let held = notes.max_held();
    println!(
        "leases that clients certainly held at once, by their answers: at most {held} (of {})",
        notes.holds.len()
    );
    if held > LIMIT {
        notes.violation(format!("clients held {held} leases of one user at once"));
    }
    for missing in unseen(notes) {
        notes.violation(missing);
    }
}

/// Adds a violation for every trouble of a race that nobody felt or that did not end.
pub fn race_was_one(notes: &mut Notes, survivors: &[usize]) {
    for missing in unfelt(notes, survivors) {
        notes.violation(missing);
    }
}

/// Prints the violations; whether there were none.
pub fn conclude(notes: &Notes) -> bool {
    for violation in &notes.violations {
        println!("VIOLATED: {violation}");
    }
    println!("violations: {}", notes.violation_count);
    notes.violation_count == 0
}

fn unseen(notes: &Notes) -> Vec<String> {
    let mut missing = Vec::new();
    let wanted = [
        ("start", "201"),
        ("start", "200"),
        ("start", "409"),
        ("start", "no answer"),
        ("heartbeat", "200"),
        ("heartbeat", "404"),
        ("heartbeat", "410 evicted"),
        ("heartbeat", "410 replaced"),
        ("stop", "204"),
        ("evict", "204"),
        ("list", "200"),
    ];
    for (verb, label) in wanted {
        if !notes.answers.contains_key(&(verb, label.to_owned())) {
            missing.push(format!("no {verb} was ever answered {label}: the race did not test it"));
        }
    }
    if notes.observed.full == 0 {
        missing.push("no user was ever seen with all slots taken".to_owned());
    }
    missing
}

fn unfelt(notes: &Notes, survivors: &[usize]) -> Vec<String> {
    let mut missing = Vec::new();
    for trouble in &notes.troubles {
        for verb in CHANGES {
            if !notes.inside.keys().any(|(name, inside, _)| *name == trouble.name && *inside == verb) {
                missing.push(format!("no {verb} fell into the trouble ({})", trouble.name));
            }
            for instance in survivors {
                match trouble.recovered.get(&(*instance, verb)) {
                    Some(after) if *after <= GRACE => {}
                    after => missing.push(format!(
                        "instance {instance}: {verb} works only {after:?} after the store is back ({})",
                        trouble.name
                    )),
                }
            }
        }
    }
    missing
}
