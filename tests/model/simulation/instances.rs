//! The instances of the service, which share one store. Each instance has its own clock, and can crash and restart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::config::SharedHttpClient;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use stream_manager::clock::Clock;
use stream_manager::domain::names::UserName;
use stream_manager::domain::rules::{LimitMode, Rule};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::LeaseStore;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::telemetry::metrics::Metrics;
// Uses virtual time, so that sleeping takes no real time and the seed decides the order of events.
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::api::{ApiRequest, ApiResponse};
use super::clock::SkewedClock;
use super::context::{CALL, RunContext};
use super::dynamodb_json::TABLE;
use super::faulty_store::FaultyStore;
use super::network::Network;
use super::recording_store::RecordingStore;
use super::table::Table;
use crate::mutants::Mutant;

pub const INSTANCES: usize = 3;
/// The maximum clock offset is the lease duration divided by this number.
const MAX_SKEW_DIVISOR: i64 = 3;
const MAX_DRIFT_PPM: i64 = 10_000;

/// The store that all instances share.
#[derive(Clone)]
pub enum SharedStore {
    Memory(RecordingStore),
    Table(Arc<Table>),
}

pub struct Instances {
    pub context: Arc<RunContext>,
    store: SharedStore,
    mutant: Option<Mutant>,
    random: Mutex<StdRng>,
    /// Draws the modes of the limits. If `None`, all instances enforce all limits.
    modes: Option<Mutex<StdRng>>,
    instances: Vec<Mutex<Instance>>,
}

struct Instance {
    limiter: Arc<Limiter>,
    policy: Policy,
    clock: SkewedClock,
    crashed: CancellationToken,
}

/// The reason why a client receives no response.
#[derive(Debug)]
pub enum NoResponse {
    Down,
    Crashed,
    TimedOut,
    /// The store failed. The trace contains the reason.
    Failed,
}

impl Instances {
    pub fn new(context: Arc<RunContext>, store: SharedStore, mutant: Option<Mutant>, random: StdRng) -> Arc<Self> {
        let modes = observes(context.seed).then(|| Mutex::new(StdRng::seed_from_u64(!context.seed)));
        let mut instances = Self { context, store, mutant, random: Mutex::new(random), modes, instances: Vec::new() };
        for _ in 0..INSTANCES {
            let clock = instances.draw_clock();
            let instance = Mutex::new(instances.start_instance(clock));
            instances.instances.push(instance);
        }
        Arc::new(instances)
    }

    /// Sends a client's request to an instance, and waits for at most `timeout`.
    pub async fn call(
        &self,
        index: usize,
        request: &ApiRequest,
        timeout: Duration,
    ) -> Result<ApiResponse, NoResponse> {
        let (limiter, crashed, clock, policy) = {
            let instance = lock(&self.instances[index]);
            (Arc::clone(&instance.limiter), instance.crashed.clone(), instance.clock, instance.policy.clone())
        };
        if crashed.is_cancelled() {
            return Err(NoResponse::Down);
        }
        let call = self.context.begin_call(request, index, clock, policy);
        let reason = tokio::select! {
            biased;
            () = self.context.stop.cancelled() => return Err(NoResponse::Down),
            () = crashed.cancelled() => NoResponse::Crashed,
            () = sleep(timeout) => NoResponse::TimedOut,
            response = CALL.scope(call, request.send(&limiter)) => {
                self.context.end_call(call, &response);
                return response.map_err(|_| NoResponse::Failed);
            }
        };
        self.context.log(format_args!("#{call} {reason:?}"));
        self.context.count("calls without response");
        Err(reason)
    }

    /// The current settings of an instance.
    pub fn policy(&self, index: usize) -> Policy {
        lock(&self.instances[index]).policy.clone()
    }

    pub fn crash(&self, index: usize) {
        self.context.log(format_args!("instance {index} crashes"));
        self.context.count("crashes");
        lock(&self.instances[index]).crashed.cancel();
    }

    /// Restarts a crashed instance, perhaps with other modes of its limits. If it restarts on another host, it gets a new clock.
    pub fn restart(&self, index: usize, other_host: bool) {
        let clock = if other_host { self.draw_clock() } else { lock(&self.instances[index]).clock };
        let instance = self.start_instance(clock);
        *lock(&self.instances[index]) = instance;
        self.context.log(format_args!("instance {index} restarts"));
    }

    /// Deletes expired items, as DynamoDB's TTL or the memory store's sweep does.
    pub fn sweep(&self, users: &[UserName], clock: SkewedClock) {
        match &self.store {
            SharedStore::Memory(store) => store.sweep(users, clock.now()),
            SharedStore::Table(table) => table.sweep(),
        }
    }

    fn draw_clock(&self) -> SkewedClock {
        let mut random = lock(&self.random);
        let max_skew_ms = i64::from(self.context.policy.terms.duration_s) * 1000 / MAX_SKEW_DIVISOR;
        let clock = SkewedClock {
            started: self.context.started,
            offset_ms: random.random_range(-max_skew_ms..=max_skew_ms),
            drift_ppm: random.random_range(-MAX_DRIFT_PPM..=MAX_DRIFT_PPM),
        };
        self.context.log(format_args!("new clock: offset {} ms, drift {} ppm", clock.offset_ms, clock.drift_ppm));
        clock
    }

    fn start_instance(&self, clock: SkewedClock) -> Instance {
        let mut random = lock(&self.random);
        let mut store: Arc<dyn LeaseStore> = match &self.store {
            SharedStore::Memory(store) => Arc::new(store.clone()),
            SharedStore::Table(table) => {
                let http = SharedHttpClient::new(Network(Arc::clone(table)));
                Arc::new(DynamoStore::new(client::in_process(&settings(), http), TABLE))
            }
        };
        if let Some(mutant) = self.mutant {
            let random = Mutex::new(StdRng::seed_from_u64(random.next_u64()));
            store = Arc::new(FaultyStore { store, mutant, random, context: Arc::clone(&self.context) });
        }
        let ids = StdRng::seed_from_u64(random.next_u64());
        let policy = self.draw_policy();
        let limiter = Limiter::new(store, Arc::new(clock), ids, Arc::new(Metrics::new()), policy.clone());
        Instance { limiter: Arc::new(limiter), policy, clock, crashed: CancellationToken::new() }
    }

    /// The settings of a new instance: those of the run, with modes that are drawn.
    fn draw_policy(&self) -> Policy {
        let policy = self.context.policy.clone();
        let Some(modes) = &self.modes else { return policy };
        let draw = || if lock(modes).random() { LimitMode::Observe } else { LimitMode::Enforce };
        let limit_mode = draw();
        let rules: Arc<[Rule]> = policy.rules.iter().map(|rule| Rule { mode: draw(), ..rule.clone() }).collect();
        let observed = rules.iter().filter(|rule| rule.mode == LimitMode::Observe).count();
        self.context.log(format_args!("new settings: {limit_mode:?}, {observed} rules in observe mode"));
        Policy { limit_mode, rules, ..policy }
    }
}

/// Whether limits can be in observe mode. The regression seeds are older than this mode, so runs with these remainders enforce all
/// limits and still reproduce.
fn observes(seed: u64) -> bool {
    !matches!(seed % 7, 1 | 4 | 6)
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
