//! Runs one seed. The seed decides the users, the limits, the faults and the order of all events.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use stream_manager::domain::admission::AtLimit;
use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::lease::{LeaseTerms, StreamLimit};
use stream_manager::domain::names::UserName;
use stream_manager::domain::rules::{LimitMode, Rule, RuleName};
use stream_manager::limiter::Policy;
use stream_manager::store::memory::MemoryStore;
use tokio::runtime::Builder;

use super::clock::SkewedClock;
use super::context::{Report, RunContext};
use super::environment::Environment;
use super::faulty_requests::FaultyRequests;
use super::instances::{Instances, SharedStore};
use super::players::Player;
use super::recording_store::RecordingStore;
use super::table::Table;
use crate::mutants::Mutant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Memory,
    DynamoDb,
}

/// The duration of the players' activity, in virtual time.
const DURATION: Duration = Duration::from_secs(50);

/// Runs the simulation once. The same arguments always give the same report, on every thread.
pub fn run(seed: u64, store: StoreKind, mutant: Option<Mutant>) -> Report {
    // The SDK uses the `fastrand` generator of this thread for the jitter of its retries and for its request tokens.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, store, mutant))
}

async fn simulate(seed: u64, store: StoreKind, mutant: Option<Mutant>) -> Report {
    let mut random = StdRng::seed_from_u64(seed);
    let policy = Policy {
        default_limit: StreamLimit::new(random.random_range(1..=3)).unwrap(),
        at_limit: AtLimit::Reject,
        limit_mode: LimitMode::Enforce,
        // As high as the highest limit that the operator and the players use.
        hard_limit: StreamLimit::new(4).unwrap(),
        rules: if has_rules(seed) { rules() } else { Arc::default() },
        terms: LeaseTerms {
            duration_s: random.random_range(6..=8),
            heartbeat_interval_s: 2,
            retention_s: random.random_range(1..=10),
        },
    };
    let context = RunContext::new(seed, policy, fork(&mut random));
    let correct = SkewedClock::correct(context.started);
    let users = ["ann", "bob", "cyd"].map(|name| UserName::parse(name).unwrap());
    let users = users[..random.random_range(2..=3)].to_vec();
    let ttl_clock = SkewedClock { offset_ms: random.random_range(-500..=500), ..correct };
    let store = match store {
        StoreKind::Memory => {
            SharedStore::Memory(RecordingStore { store: Arc::new(MemoryStore::new()), context: Arc::clone(&context) })
        }
        StoreKind::DynamoDb => {
            let faulty_requests = FaultyRequests::new(mutant, Arc::clone(&context));
            SharedStore::Table(Table::new(Arc::clone(&context), faulty_requests, ttl_clock))
        }
    };
    let instances = Instances::new(Arc::clone(&context), store, mutant, fork(&mut random));
    tokio::select! {
        biased;
        () = context.stop.cancelled() => {}
        () = play(&instances, users, ttl_clock, &mut random) => {}
    }
    context.report()
}

async fn play(instances: &Arc<Instances>, users: Vec<UserName>, ttl_clock: SkewedClock, random: &mut StdRng) {
    let mut tasks = Vec::new();
    for number in 0..random.random_range(9..=13) {
        let player = Player {
            instances: Arc::clone(instances),
            number,
            labels: StdRng::seed_from_u64(instances.context.seed ^ (number as u64 + 1) << 32),
            user: users[user_index(number, users.len())].clone(),
            random: fork(random),
            until: DURATION,
            keys: 0,
        };
        tasks.push(tokio::spawn(player.play()));
    }
    let visitor = UserName::parse("dan").unwrap();
    let environment = Arc::new(Environment { instances: Arc::clone(instances), users, visitor, until: DURATION });
    tasks.push(tokio::spawn(Arc::clone(&environment).operator(fork(random))));
    tasks.push(tokio::spawn(Arc::clone(&environment).erasures(fork(random))));
    tasks.push(tokio::spawn(Arc::clone(&environment).visits(fork(random))));
    tasks.push(tokio::spawn(Arc::clone(&environment).support(fork(random))));
    tasks.push(tokio::spawn(Arc::clone(&environment).crashes(fork(random))));
    tasks.push(tokio::spawn(Arc::clone(&environment).outages(fork(random))));
    tasks.push(tokio::spawn(Arc::clone(&environment).ttl(fork(random), ttl_clock)));
    for task in tasks {
        task.await.unwrap();
    }
    environment.check_all_can_start(ttl_clock).await;
}

/// Whether a run has rules. The regression seeds are older than the rules, so runs with these remainders have none and still
/// reproduce.
fn has_rules(seed: u64) -> bool {
    !matches!(seed % 5, 1 | 4)
}

/// Rules that overlap, and one that forbids.
fn rules() -> Arc<[Rule]> {
    let rule = |name, max, labels: &[(&str, &str)], per: Option<&str>| Rule {
        name: RuleName::parse(name).unwrap(),
        max: StreamLimit::new(max).unwrap(),
        labels: labels_from(labels),
        per: per.map(|per| LabelName::parse(per).unwrap()),
        mode: LimitMode::Enforce,
    };
    Arc::new([
        rule("one UHD stream", 1, &[("quality", "uhd")], None),
        rule("one per channel", 1, &[], Some("channel")),
        rule("no children's UHD", 0, &[("quality", "uhd"), ("profile", "child")], None),
    ])
}

pub fn labels_from(labels: &[(&str, &str)]) -> Labels {
    let label = |(name, value): &(&str, &str)| (LabelName::parse(name).unwrap(), LabelValue::parse(value).unwrap());
    Labels::new(labels.iter().map(label).collect()).unwrap()
}

/// The last user has few players, so that expired leases stay stored until a later start.
fn user_index(player: usize, users: usize) -> usize {
    if player % 5 == 4 { users - 1 } else { player % (users - 1) }
}

fn fork(random: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(random.next_u64())
}
