//! Fault injection. The test kills and freezes instances and skews their clocks while clients call them. A proxy
//! between each instance and the store injects network faults. After the run, the checker verifies every response
//! against the whole history.
//!
//! Run it with `cargo test --test chaos -- --faults --seconds 60 --seed 7`. It needs the package `faketime`.

mod checker;
mod clock_skew;
mod fault_report;
pub mod history;
mod history_index;
mod proxy;
mod store_request;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::clock_skew::{MAX_SKEW_MS, SkewedClock};
use self::history::{FaultKind, History};
use self::history_index::HistoryIndex;
use self::proxy::{ATTEMPT_TIMEOUT, Proxy};
use crate::api::Api;
use crate::emulator::Emulator;
use crate::process::{self, Instance, LEASE_S, LaunchOptions};
use crate::recorder::{RECOVERY_TIME, Recorder, Records};
use crate::table::Table;
use crate::{Arguments, INSTANCES, USERS, final_checks, report};

/// Percentage of the writes to the store that get a fault. For reads, the percentage is a quarter of this value.
const NETWORK_FAULT_PERCENT: u64 = 20;
/// Duration of each phase of large or small clock skew.
const SKEW_PERIOD_S: u64 = 6;
/// Maximum time to wait for requests in flight. It exceeds every injected delay and the time that the store needs for
/// all queued requests.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

pub async fn run(arguments: Arguments, directory: &Path) -> bool {
    let Arguments { seconds, seed, clients, .. } = arguments;
    println!("faults: seed {seed}, {seconds} s, {clients} clients, {USERS} users, {INSTANCES} instances");
    let clocks: Option<Vec<_>> =
        (0..INSTANCES).map(|number| SkewedClock::new(directory, number).map(Arc::new)).collect();
    let Some(clocks) = clocks else {
        println!("cannot skew clocks: libfaketimeMT.so.1 is missing; run apt-get install faketime");
        return false;
    };
    println!(
        "clock skew: up to {MAX_SKEW_MS} ms ahead and behind, and one clock that drifts between them (faketime)"
    );
    Emulator::install().await;
    let [store_port, ports @ ..] = process::free_ports::<{ 1 + 3 * INSTANCES }>();
    let mut emulator = Emulator::start(store_port, directory).await;
    process::migrate(store_port).await;
    let (mut instances, mut proxies) = (Vec::new(), Vec::new());
    for number in 0..INSTANCES {
        let [public, management, proxy_port] = [ports[3 * number], ports[3 * number + 1], ports[3 * number + 2]];
        clocks[number].set(skew_ms(number, Duration::ZERO));
        let proxy = Proxy::start(proxy_port, store_port, seed.wrapping_mul(31).wrapping_add(number as u64)).await;
        let mut environment = clocks[number].environment();
        let attempt_timeout = ATTEMPT_TIMEOUT.as_millis().to_string();
        environment.push(("STREAM_MANAGER__DYNAMODB__CONNECT_TIMEOUT_MS", attempt_timeout.clone()));
        environment.push(("STREAM_MANAGER__DYNAMODB__ATTEMPT_TIMEOUT_MS", attempt_timeout));
        let (ports, directory) = ([public, management], directory.to_owned());
        let options = LaunchOptions { number, ports, store_port: proxy.port, directory, environment };
        instances.push(Instance::start(options).await);
        proxies.push(proxy);
    }
    let recorder = Arc::new(Recorder::default());
    let history = Arc::new(History::new(clocks));
    let api = Arc::new(Api::new(Arc::clone(&recorder), instances, Some(Arc::clone(&history))));
    let table = Table::new(store_port);
    let (stop_clients, stop_observers) = (CancellationToken::new(), CancellationToken::new());
    let observers = crate::spawn_observers(&table, &recorder, &stop_observers);

    let begin = Instant::now();
    // The whole fault period counts as one store outage.
    recorder.begin_outage("faults");
    let client_tasks = crate::spawn_clients(&api, seed, clients, &stop_clients);
    let until = begin + Duration::from_secs(seconds);
    proxies.iter().for_each(|proxy| proxy.set_fault_percent(NETWORK_FAULT_PERCENT));
    tokio::join!(inject_faults(&api, &history, &proxies, seed, until), move_clocks(&history, begin, until));
    proxies.iter().for_each(|proxy| proxy.set_fault_percent(0));
    history.clocks.iter().for_each(|clock| clock.set(0));
    println!("{:>5.1} s  faults ended", begin.elapsed().as_secs_f64());
    drain(&proxies, &recorder).await;
    recorder.store_is_up();
    crate::wait_for_recovery(&api).await;
    let recovered = recorder.lock().recovered();
    recorder.check(recovered >= 3 * INSTANCES, || format!("no recovery within {RECOVERY_TIME:?} after the faults"));
    stop_clients.cancel();
    crate::join_all(client_tasks, "client", &recorder).await;
    drain(&proxies, &recorder).await;
    final_checks::all_users_can_start_up_to_their_limit(&api, &table, USERS).await;
    stop_observers.cancel();
    crate::join_all(observers, "observer", &recorder).await;
    recorder.check(emulator.is_running(), || "the DynamoDB emulator exited".to_owned());
    crate::stop_instances(&api, directory).await;

    let mut records = recorder.lock();
    check_history(&mut records, &history, &proxies);
    report::summarize(&mut records);
    report::print_violations(&records)
}

/// Injects faults into random instances. The first three faults have three different kinds. The kinds of later faults
/// are random.
async fn inject_faults(api: &Arc<Api>, history: &Arc<History>, proxies: &[Arc<Proxy>], seed: u64, until: Instant) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xa77a);
    let mut injections = JoinSet::new();
    let locks: [Arc<Mutex<()>>; INSTANCES] = std::array::from_fn(|_| Arc::default());
    for number in 0.. {
        sleep(Duration::from_millis(random.random_range(300..1200))).await;
        let kind = match if number < 3 { number } else { random.random_range(0..3) } {
            0 => FaultKind::Frozen,
            1 => FaultKind::Killed,
            _ => FaultKind::Disconnected,
        };
        let instance = random.random_range(0..INSTANCES);
        let duration_ms = match kind {
            FaultKind::Frozen => LEASE_S * 1000 + random.random_range(200..1500),
            _ => random.random_range(200..1200),
        };
        // Leave time for the recovery from the fault.
        if Instant::now() + Duration::from_millis(duration_ms + 1000) > until {
            break;
        }
        // An instance has at most one fault at a time.
        let lock = Arc::clone(&locks[instance]).lock_owned().await;
        let injection = Injection { kind, instance, duration: Duration::from_millis(duration_ms), _lock: lock };
        injections.spawn(injection.run(Arc::clone(api), Arc::clone(history), Arc::clone(&proxies[instance])));
        // Usually, wait until this fault ends. In the remaining cases, two instances can have faults at the same time.
        if random.random_bool(0.7) {
            crate::join_all(std::mem::take(&mut injections), "fault injection", &api.recorder).await;
        }
    }
    crate::join_all(injections, "fault injection", &api.recorder).await;
    sleep_until(until).await;
}

struct Injection {
    kind: FaultKind,
    instance: usize,
    duration: Duration,
    _lock: OwnedMutexGuard<()>,
}

impl Injection {
    async fn run(self, api: Arc<Api>, history: Arc<History>, proxy: Arc<Proxy>) {
        let (from, target) = (Instant::now(), &api.instances[self.instance]);
        match self.kind {
            FaultKind::Frozen => target.freeze(self.duration).await,
            FaultKind::Killed => {
                target.kill().await;
                sleep(self.duration).await;
                target.restart().await;
            }
            FaultKind::Disconnected => proxy.disconnect(self.duration).await,
        }
        history.record_fault(self.kind, self.instance, from);
    }
}

async fn move_clocks(history: &History, begin: Instant, until: Instant) {
    while Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
        for (number, clock) in history.clocks.iter().enumerate() {
            clock.set(skew_ms(number, begin.elapsed()));
        }
    }
}

/// The clock of instance 0 is ahead, and the clock of instance 1 is behind. The third clock drifts between the two by
/// 0.1 s per second. The skew alternates between large and small. With large skew, instance 0 considers even a new
/// lease of instance 1 expired. With small skew, one instance can renew a lease while another considers the lease
/// expired.
fn skew_ms(number: usize, elapsed: Duration) -> i64 {
    let max = if elapsed.as_secs() / SKEW_PERIOD_S % 2 == 0 { MAX_SKEW_MS } else { MAX_SKEW_MS / 5 };
    match number {
        0 => max,
        1 => -max,
        _ => {
            let drift = i64::try_from(elapsed.as_millis()).unwrap_or(0) / 10 + MAX_SKEW_MS;
            ((drift % (4 * MAX_SKEW_MS) - 2 * MAX_SKEW_MS).abs() - MAX_SKEW_MS).clamp(-max, max)
        }
    }
}

/// Waits until no request to the store is in flight.
async fn drain(proxies: &[Arc<Proxy>], recorder: &Recorder) {
    let begin = Instant::now();
    while proxies.iter().any(|proxy| proxy.in_flight() > 0) && begin.elapsed() < DRAIN_TIMEOUT {
        // While the clients run, a request is almost always in flight, and the wait might never end. Therefore, wait only
        // for the longest delay of a request.
        let clients_run = recorder.lock().outages.last().is_some_and(|outage| outage.up.is_none());
        if clients_run && begin.elapsed() > 4 * ATTEMPT_TIMEOUT {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    recorder.check(begin.elapsed() < DRAIN_TIMEOUT, || "requests to the store are still in flight".to_owned());
}

fn check_history(records: &mut Records, history: &History, proxies: &[Arc<Proxy>]) {
    let mut calls = history.calls();
    calls.sort_by_key(|call| call.begin);
    let faults = history.faults();
    let requests: Vec<_> = proxies.iter().map(|proxy| std::mem::take(&mut *proxy.requests())).collect();
    let index = HistoryIndex::new(history, &calls, &faults, &requests, USERS);
    for call in calls.iter() {
        if let Err(problem) = checker::check(call, &index) {
            records.violation(format!("response contradicts the history: {problem}: {call}"));
        }
    }
    records.held_leases = index.held_leases();
    fault_report::summarize(records, &calls, &faults, &requests);
}
