//! Tests that the correct protocol violates no invariant in any world, and that every mutant violates one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use super::counterexample;
use super::event::Event;
use super::model::ProtocolModel;
use super::worlds::World;
use crate::mutants::Mutant;
use crate::output::{print_summary, with_separators};

/// The time limit for one world. Only worlds of `MODEL_WORLDS=long` may reach it.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);

struct Exploration {
    states: usize,
    depth: usize,
    seconds: f64,
    /// Whether every state was explored.
    complete: bool,
    counterexample: Option<Counterexample>,
    events: Vec<u64>,
}

/// The first violation, and the steps that lead to it.
struct Counterexample {
    steps: Vec<String>,
    violation: String,
}

fn explore(world: &World, mutant: Option<Mutant>, threads: usize) -> Exploration {
    let begin = Instant::now();
    let events = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let model = ProtocolModel { world: world.clone(), mutant, events: Arc::clone(&events) };
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).timeout(TIMEOUT);
    let checker = checker.spawn_bfs().join();
    let counterexample = checker.discoveries().into_iter().next().map(|(property, path)| {
        let violation = path.last_state().violation.map_or(property.to_owned(), |violation| format!("{violation:?}"));
        let path = path.into_vec();
        let steps = path.windows(2).filter_map(|pair| Some(counterexample::describe(pair[0].1?, &pair[1].0)));
        Counterexample { steps: steps.collect(), violation }
    });
    Exploration {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: begin.elapsed().as_secs_f64(),
        complete: begin.elapsed() < TIMEOUT,
        counterexample,
        events: events.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
    }
}

#[test]
fn no_reachable_state_violates_an_invariant() {
    let long = std::env::var("MODEL_WORLDS").is_ok_and(|choice| choice == "long");
    let mut events = [0; Event::COUNT];
    let mut total = 0;
    for world in if long { World::long() } else { World::short() } {
        let exploration = explore(&world, None, 2);
        let Exploration { states, depth, seconds, complete, .. } = exploration;
        let end = if complete { "complete" } else { "timed out" };
        let count = with_separators(states);
        print_summary(&format!(
            "model: {:<36} {count:>12} states, depth {depth:>2}, {seconds:>6.1} s, {end}",
            world.name
        ));
        if let Some(Counterexample { steps, violation }) = exploration.counterexample {
            panic!("{}: {violation}\n{}", world.name, steps.join("\n"));
        }
        assert!(long || complete, "{} timed out", world.name);
        events.iter_mut().zip(&exploration.events).for_each(|(all, more)| *all += more);
        total += states;
    }
    let counts: Vec<String> =
        Event::ALL.iter().map(|event| format!("{event:?} {}", events[*event as usize])).collect();
    print_summary(&format!("model: {} states; events: {}", with_separators(total), counts.join(", ")));
    let missing: Vec<Event> = Event::ALL.into_iter().filter(|event| events[*event as usize] == 0).collect();
    assert_eq!(missing, [], "events that never occurred");
}

#[test]
fn model_detects_every_mutant() {
    let mutants = Mutex::new(Mutant::ALL.into_iter().filter(|mutant| mutant.is_in_model()));
    let next = || mutants.lock().unwrap().next();
    let survivors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(mutant) = next() {
                    if !is_detected(mutant) {
                        survivors.lock().unwrap().push(mutant);
                    }
                }
            });
        }
    });
    assert_eq!(survivors.into_inner().unwrap(), [], "undetected mutants");
}

/// Explores with one thread, so that each run finds the same shortest counterexample after the same number of states.
fn is_detected(mutant: Mutant) -> bool {
    let mut states = 0;
    for world in World::short() {
        let exploration = explore(&world, Some(mutant), 1);
        states += exploration.states;
        if let Some(Counterexample { steps, violation }) = exploration.counterexample {
            let (count, length) = (with_separators(states), steps.len());
            print_summary(&format!(
                "model: {mutant:?} is detected: {violation} in {length} steps, after {count} states ({})",
                world.name
            ));
            return true;
        }
    }
    false
}
