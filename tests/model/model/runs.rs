//! The explorations, and what they must have come across.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use super::bounds::Bounds;
use super::{Event, Protocol, story};
use crate::documents::{grouped, must_say, say};
use crate::mutants::Mutant;

/// `PROOF_MODEL=long` explores the long list, each of its worlds for this long at most.
const LONG: Duration = Duration::from_secs(15 * 60);

struct Explored {
    unique: usize,
    depth: usize,
    seconds: f64,
    /// Whether nothing was left to explore.
    exhausted: bool,
    counterexample: Option<Counterexample>,
    events: Vec<u64>,
}

/// The way to the first broken promise.
struct Counterexample {
    steps: Vec<String>,
    broken: String,
}

fn explore(bounds: &Bounds, mutant: Option<Mutant>, threads: usize) -> Explored {
    let begin = Instant::now();
    let seen = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let model = Protocol { bounds: bounds.clone(), mutant, seen: Arc::clone(&seen) };
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).timeout(LONG);
    let checker = checker.spawn_bfs().join();
    let counterexample = checker.discoveries().into_iter().next().map(|(property, path)| {
        let broken = path.last_state().wrong.map_or(property.to_owned(), |wrong| format!("{wrong:?}"));
        let path = path.into_vec();
        let steps = path.windows(2).filter_map(|pair| Some(story::step(pair[0].1?, &pair[1].0)));
        Counterexample { steps: steps.collect(), broken }
    });
    Explored {
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: begin.elapsed().as_secs_f64(),
        exhausted: begin.elapsed() < LONG,
        counterexample,
        events: seen.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
    }
}

#[test]
fn no_promise_is_broken_in_any_reachable_state() {
    let long = std::env::var("PROOF_MODEL").is_ok_and(|choice| choice == "long");
    let mut events = [0; Event::COUNT];
    let mut unique = 0;
    for bounds in if long { Bounds::long() } else { Bounds::short() } {
        let explored = explore(&bounds, None, 2);
        let Explored { depth, seconds, .. } = explored;
        let end = if explored.exhausted { "all" } else { "out of time" };
        let states = grouped(explored.unique);
        say(&format!("model: {:<36} {states:>12} states, depth {depth:>2}, {seconds:>6.1} s, {end}", bounds.name));
        if let Some(Counterexample { steps, broken }) = explored.counterexample {
            panic!("{}: {broken}\n{}", bounds.name, steps.join("\n"));
        }
        assert!(long || explored.exhausted, "{} takes too long", bounds.name);
        events.iter_mut().zip(&explored.events).for_each(|(all, more)| *all += more);
        unique += explored.unique;
    }
    let seen: Vec<String> = Event::ALL.iter().map(|event| format!("{event:?} {}", events[*event as usize])).collect();
    say(&format!("model: {} states; steps into them: {}", grouped(unique), seen.join(", ")));
    let never: Vec<Event> = Event::ALL.into_iter().filter(|event| events[*event as usize] == 0).collect();
    assert_eq!(never, [], "never happened, so never checked");
    if !long {
        let states = grouped(unique);
        let row =
            format!("| `cargo test --test proof no_promise` (in CI) | {states}, each of nine worlds exhausted |");
        must_say(&[row], &[]);
    }
}

#[test]
fn every_wrong_version_breaks_a_promise_in_the_model() {
    let (mutants, found) =
        (Mutex::new(Mutant::ALL.iter().filter(|mutant| mutant.is_of_the_model())), Mutex::new(Vec::new()));
    let next = || mutants.lock().expect("no panic").next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(mutant) = next() {
                    let death = death_of(*mutant);
                    found.lock().expect("no panic").push((*mutant, death));
                }
            });
        }
    });
    let (mut cells, mut trap) = (Vec::new(), Vec::new());
    for (mutant, death) in found.into_inner().expect("no panic") {
        let (states, Counterexample { steps, broken }) = death.unwrap_or_else(|| panic!("{mutant:?} survives"));
        cells.push((mutant, format!("{broken}, {} steps, {} states", steps.len(), grouped(states))));
        if mutant == Mutant::RecountFromQuery {
            trap = steps;
        }
    }
    must_say(&trap, &cells);
}

/// One thread: the same counterexample after the same number of states every time, the shortest of its world.
fn death_of(mutant: Mutant) -> Option<(usize, Counterexample)> {
    let mut states = 0;
    for bounds in Bounds::short() {
        let explored = explore(&bounds, Some(mutant), 1);
        states += explored.unique;
        if let Some(counterexample) = explored.counterexample {
            let (broken, name) = (&counterexample.broken, bounds.name);
            say(&format!("model: {mutant:?} is caught: {broken} after {} states ({name})", grouped(states)));
            return Some((states, counterexample));
        }
    }
    None
}
