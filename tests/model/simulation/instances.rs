//! Several instances of the service on one store: each with its own clock, each may crash and come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::config::SharedHttpClient;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use stream_manager::clock::Clock;
use stream_manager::domain::names::UserName;
use stream_manager::limiter::Limiter;
use stream_manager::store::LeaseStore;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::telemetry::metrics::Metrics;
// Virtual time: it costs none, and is what the seed says.
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::asks::{Answer, Ask};
use super::clock::SkewedClock;
use super::network::Network;
use super::requests::TABLE;
use super::table::Table;
use super::watched::Watched;
use super::world::{CALL, World};
use super::wrong::WrongStore;
use crate::mutants::Mutant;

pub const INSTANCES: usize = 3;
/// The most that a clock may be off, in parts of a lease.
const SKEW_PART: i64 = 3;
const DRIFT_PPM: i64 = 10_000;

/// What keeps the leases.
#[derive(Clone)]
pub enum Backing {
    Memory(Watched),
    Table(Arc<Table>),
}

pub struct Instances {
    pub world: Arc<World>,
    pub backing: Backing,
    mutant: Option<Mutant>,
    random: Mutex<StdRng>,
    running: Vec<Mutex<Instance>>,
}

struct Instance {
    limiter: Arc<Limiter>,
    clock: SkewedClock,
    crashed: CancellationToken,
}

/// Why a client has no answer.
#[derive(Debug)]
pub enum NoAnswer {
    Down,
    Crashed,
    TimedOut,
    /// The service could not tell; the trace says why.
    Failed,
}

impl Instances {
    pub fn new(world: Arc<World>, backing: Backing, mutant: Option<Mutant>, random: StdRng) -> Arc<Self> {
        let mut instances = Self { world, backing, mutant, random: Mutex::new(random), running: Vec::new() };
        for _ in 0..INSTANCES {
            let clock = instances.clock();
            let instance = Mutex::new(instances.instance(clock));
            instances.running.push(instance);
        }
        Arc::new(instances)
    }

    /// One call of a client that waits no longer than `patience`.
    pub async fn call(&self, index: usize, ask: &Ask, patience: Duration) -> Result<Answer, NoAnswer> {
        let (limiter, crashed, clock) = {
            let instance = lock(&self.running[index]);
            (Arc::clone(&instance.limiter), instance.crashed.clone(), instance.clock)
        };
        if crashed.is_cancelled() {
            return Err(NoAnswer::Down);
        }
        let call = self.world.begin(ask, index, clock);
        let gone = tokio::select! {
            biased;
            () = self.world.over.cancelled() => return Err(NoAnswer::Down),
            () = crashed.cancelled() => NoAnswer::Crashed,
            () = sleep(patience) => NoAnswer::TimedOut,
            answer = CALL.scope(call, ask.of(&limiter)) => {
                self.world.end(call, &answer);
                return answer.map_err(|_| NoAnswer::Failed);
            }
        };
        self.world.note(format_args!("#{call} {gone:?}"));
        self.world.count("calls dropped");
        Err(gone)
    }

    pub fn crash(&self, index: usize) {
        self.world.note(format_args!("instance {index} crashes"));
        self.world.count("crashes");
        lock(&self.running[index]).crashed.cancel();
    }

    /// Back on the same host, or on another one.
    pub fn restart(&self, index: usize, other_host: bool) {
        let clock = if other_host { self.clock() } else { lock(&self.running[index]).clock };
        let instance = self.instance(clock);
        *lock(&self.running[index]) = instance;
        self.world.note(format_args!("instance {index} is back"));
    }

    /// What TTL, or the memory store's own sweep, deletes now.
    pub fn sweep(&self, users: &[UserName], clock: SkewedClock) {
        match &self.backing {
            Backing::Memory(watched) => watched.sweep(users, clock.now()),
            Backing::Table(table) => table.sweep(),
        }
    }

    fn clock(&self) -> SkewedClock {
        let mut random = lock(&self.random);
        let skew_ms = i64::from(self.world.policy.terms.duration_s) * 1000 / SKEW_PART;
        let clock = SkewedClock {
            started: self.world.started,
            offset_ms: random.random_range(-skew_ms..=skew_ms),
            drift_ppm: random.random_range(-DRIFT_PPM..=DRIFT_PPM),
        };
        self.world.note(format_args!("a clock {} ms off, drifting {} ppm", clock.offset_ms, clock.drift_ppm));
        clock
    }

    fn instance(&self, clock: SkewedClock) -> Instance {
        let mut random = lock(&self.random);
        let mut store: Arc<dyn LeaseStore> = match &self.backing {
            Backing::Memory(watched) => Arc::new(watched.clone()),
            Backing::Table(table) => {
                let http = SharedHttpClient::new(Network(Arc::clone(table)));
                Arc::new(DynamoStore::new(client::in_process(&settings(), http), TABLE))
            }
        };
        if let Some(mutant) = self.mutant {
            let random = Mutex::new(StdRng::seed_from_u64(random.next_u64()));
            store = Arc::new(WrongStore { store, mutant, random, world: Arc::clone(&self.world) });
        }
        let ids = StdRng::seed_from_u64(random.next_u64());
        let limiter = Limiter::new(store, Arc::new(clock), ids, Arc::new(Metrics::new()), self.world.policy);
        Instance { limiter: Arc::new(limiter), clock, crashed: CancellationToken::new() }
    }
}

fn settings() -> ClientSettings {
    ClientSettings {
        endpoint_url: None,
        region: None,
        connect_timeout: Duration::from_millis(500),
        attempt_timeout: Duration::from_millis(700),
        operation_timeout: Duration::from_millis(1800),
        max_attempts: 2,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
