//! Prints how often each kind of fault occurred and how many requests it affected. Records a violation for every kind
//! that had no effect.

use std::time::Duration;

use super::history::{Call, FaultKind, InstanceFault};
use super::store_request::{NetworkFault, StoreRequest};
use crate::api::DENIED_BY_RULE;
use crate::process::LEASE_S;
use crate::recorder::Records;

pub fn summarize(records: &mut Records, calls: &[Call], faults: &[InstanceFault], requests: &[Vec<StoreRequest>]) {
    println!("\ninstance faults");
    for kind in [FaultKind::Killed, FaultKind::Frozen, FaultKind::Disconnected] {
        let faults: Vec<&InstanceFault> = faults.iter().filter(|fault| fault.kind == kind).collect();
        let hit = |fault: &&InstanceFault| calls.iter().filter(|call| fault.affects(call, Duration::ZERO)).count();
        let hits: usize = faults.iter().map(hit).sum();
        println!("  {kind:<12?} {:>5} times, {hits} requests", faults.len());
        check(records, !faults.is_empty() && hits > 0, || format!("not covered: {kind:?} hit no request"));
        if kind == FaultKind::Frozen {
            summarize_freezes(records, calls, &faults);
        }
    }
    println!("network faults, by request to the store");
    let all = || requests.iter().flatten();
    for fault in NetworkFault::ALL {
        let hit = || all().filter(|request| request.fault == Some(fault));
        let count = hit().count();
        let applied = hit().filter(|request| request.applied() && request.write).count();
        println!("  {fault:<20?} {count:>5} ({applied} applied writes)");
        let effective = if fault == NetworkFault::TruncateRequest { count > 0 } else { applied > 0 };
        check(records, effective, || format!("not covered: {fault:?} had no effect"));
    }
    let slow = all().filter(|request| request.fault.is_none() && request.was_hit_by_fault()).count();
    println!("  {slow} of {} requests were slow without a fault", all().count());
    let with_label = |label: &str| calls.iter().filter(|call| call.label == label).count();
    let labels = ["409", DENIED_BY_RULE, "404", "410 expired", "410 evicted", "410 replaced"];
    let counts: Vec<String> = labels.iter().map(|label| format!("{} × {label}", with_label(label))).collect();
    println!("history: {} responses checked, among them {}", calls.len(), counts.join(", "));
}

fn summarize_freezes(records: &mut Records, calls: &[Call], faults: &[&InstanceFault]) {
    let survived = |fault: &&InstanceFault| {
        let on_instance = calls.iter().filter(|call| call.instance == fault.instance);
        on_instance.filter(|call| call.begin < fault.from && call.end >= fault.to && call.status != 0).count()
    };
    let survivors: usize = faults.iter().map(survived).sum();
    let longest = faults.iter().map(|fault| fault.to - fault.from).max().unwrap_or_default();
    println!("    for at most {longest:.1?}; {survivors} frozen requests continued afterwards");
    let long_enough = longest > Duration::from_secs(LEASE_S);
    check(records, long_enough, || "not covered: no instance was frozen for longer than a lease".to_owned());
    check(records, survivors > 0, || "not covered: no frozen request continued afterwards".to_owned());
}

fn check(records: &mut Records, condition: bool, text: impl FnOnce() -> String) {
    if !condition {
        records.violation(text());
    }
}
