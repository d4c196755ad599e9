//! One run: a seed decides the users, the limits, the weather and everything after.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use stream_manager::domain::admission::AtLimit;
use stream_manager::domain::lease::{LeaseTerms, StreamLimit};
use stream_manager::domain::names::UserName;
use stream_manager::limiter::Policy;
use stream_manager::store::memory::MemoryStore;
use tokio::runtime::Builder;

use super::clock::SkewedClock;
use super::instances::{Backing, Instances};
use super::mutations::Mutations;
use super::players::Player;
use super::surroundings::Surroundings;
use super::table::Table;
use super::watched::Watched;
use super::world::{Report, World};
use crate::mutants::Mutant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Memory,
    DynamoDb,
}

/// How long the players play, in virtual time.
const PLAYED: Duration = Duration::from_secs(50);

/// The same arguments give the same report, on whatever thread and whenever.
pub fn run(seed: u64, store: Store, mutant: Option<Mutant>) -> Report {
    // The SDK draws the jitter of its retries and its tokens from this thread's generator.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(played(seed, store, mutant))
}

async fn played(seed: u64, store: Store, mutant: Option<Mutant>) -> Report {
    let mut random = StdRng::seed_from_u64(seed);
    let policy = Policy {
        default_limit: StreamLimit::new(random.random_range(1..=3)).expect("a limit"),
        at_limit: AtLimit::Reject,
        terms: LeaseTerms { duration_s: random.random_range(6..=8), retention_s: random.random_range(1..=10) },
        heartbeat_interval_s: 2,
    };
    let world = World::new(policy, fork(&mut random));
    let right = SkewedClock::right(world.started);
    let users = ["ann", "bob", "cyd"].map(|name| UserName::parse(name).expect("a name"));
    let users = users[..random.random_range(2..=3)].to_vec();
    let ttl_clock = SkewedClock { offset_ms: random.random_range(-500..=500), ..right };
    let backing = match store {
        Store::Memory => Backing::Memory(Watched { store: Arc::new(MemoryStore::new()), world: Arc::clone(&world) }),
        Store::DynamoDb => {
            Backing::Table(Table::new(Arc::clone(&world), Mutations::new(mutant, Arc::clone(&world)), ttl_clock))
        }
    };
    let instances = Instances::new(Arc::clone(&world), backing, mutant, fork(&mut random));
    tokio::select! {
        biased;
        () = world.over.cancelled() => {}
        () = scene(&instances, users, ttl_clock, &mut random) => {}
    }
    world.report()
}

async fn scene(instances: &Arc<Instances>, users: Vec<UserName>, ttl_clock: SkewedClock, random: &mut StdRng) {
    let mut running = Vec::new();
    for number in 0..random.random_range(9..=13) {
        let player = Player {
            instances: Arc::clone(instances),
            number,
            user: users[whose(number, users.len())].clone(),
            random: fork(random),
            until: PLAYED,
            keys: 0,
        };
        running.push(tokio::spawn(player.play()));
    }
    let around = Arc::new(Surroundings { instances: Arc::clone(instances), users, until: PLAYED });
    running.push(tokio::spawn(Arc::clone(&around).operator(fork(random))));
    running.push(tokio::spawn(Arc::clone(&around).support(fork(random))));
    running.push(tokio::spawn(Arc::clone(&around).crashes(fork(random))));
    running.push(tokio::spawn(Arc::clone(&around).outages(fork(random))));
    running.push(tokio::spawn(Arc::clone(&around).ttl(fork(random), ttl_clock)));
    for task in running {
        task.await.expect("nobody panics");
    }
    around.nobody_is_stuck().await;
}

/// The last user is a quiet one, whose dead streams nobody clears away for a while.
fn whose(number: usize, users: usize) -> usize {
    if number % 5 == 4 { users - 1 } else { number % (users - 1) }
}

fn fork(random: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(random.next_u64())
}
