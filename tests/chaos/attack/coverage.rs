//! How often each fault was done and whom it hit, and a violation for every fault that never bit.

use std::time::Duration;

use super::history::{Call, Kind, Spell};
use super::traffic::{Fault, StoreRequest};
use crate::board::Notes;
use crate::process::LEASE_S;

pub fn sum_up(notes: &mut Notes, calls: &[Call], spells: &[Spell], traffic: &[Vec<StoreRequest>]) {
    let lease = Duration::from_secs(LEASE_S);
    println!("\nfaults of instances");
    for kind in [Kind::Killed, Kind::Frozen, Kind::CutOff] {
        let of_it: Vec<&Spell> = spells.iter().filter(|spell| spell.kind == kind).collect();
        let hit = |spell: &Spell| calls.iter().filter(|call| spell.meets(call, Duration::ZERO)).count();
        let zombie = |spell: &Spell| {
            let survived = |call: &&Call| call.begin < spell.from && call.end >= spell.to && call.status != 0;
            calls.iter().filter(survived).filter(|call| call.instance == spell.instance).count()
        };
        let (hit, zombies): (usize, usize) =
            (of_it.iter().map(|spell| hit(spell)).sum(), of_it.iter().map(|spell| zombie(spell)).sum());
        println!("  {kind:<12?} {:>5} times, {hit} requests", of_it.len());
        must(notes, !of_it.is_empty() && hit > 0, || format!("{kind:?} hit nobody"));
        if kind == Kind::Frozen {
            let longest = of_it.iter().map(|spell| spell.to - spell.from).max().unwrap_or_default();
            println!("    for {longest:.1?} at most; {zombies} requests were frozen and went on");
            must(notes, longest > lease, || "no instance was frozen for longer than a lease".to_owned());
            must(notes, zombies > 0, || "no request was frozen and went on".to_owned());
        }
    }
    println!("faults of the network, by requests to the store (carried out)");
    for fault in Fault::ALL {
        let hurt = || traffic.iter().flatten().filter(|request| request.fault == Some(fault));
        let (all, applied) = (hurt().count(), hurt().filter(|request| request.applied() && request.write).count());
        println!("  {fault:<12?} {all:>5} ({applied} writes)");
        let bites = if fault == Fault::CutRequest { all > 0 } else { applied > 0 };
        must(notes, bites, || format!("{fault:?} never bit"));
    }
    let slow = traffic.iter().flatten().filter(|request| request.fault.is_none() && request.was_hurt()).count();
    println!("  and {slow} of {} were slow by themselves", traffic.iter().map(Vec::len).sum::<usize>());
    let checked = |label: &str| calls.iter().filter(|call| call.label == label).count();
    let labels = ["409", "404", "410 expired", "410 evicted", "410 replaced"];
    let texts: Vec<String> = labels.iter().map(|label| format!("{} × {label}", checked(label))).collect();
    println!("history: {} answers held against it, among them {}", calls.len(), texts.join(", "));
}

fn must(notes: &mut Notes, right: bool, text: impl FnOnce() -> String) {
    if !right {
        notes.violation(text());
    }
}
