//! Chaos test. Clients of a few users call three instances of the service, which share one table. Meanwhile, the test
//! kills one instance, restarts the store and freezes the store. It uses only loopback addresses and ends within a
//! fixed time.
//!
//! Unlike most tests, this test sleeps, because processes, leases and the store's TTL use the host's clock.
//!
//! Run it with `cargo test --release --test chaos -- --seconds 30`. With `--faults`, it injects the faults that
//! [`faults`] describes.

#![allow(clippy::unwrap_used, reason = "a panic ends the test and kills the child processes")]

mod api;
mod client;
mod emulator;
mod faults;
mod final_checks;
mod process;
mod recorder;
mod report;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, StartOptions};
use crate::client::Client;
use crate::emulator::Emulator;
use crate::process::{Instance, LaunchOptions};
use crate::recorder::{RECOVERY_TIME, Recorder, WRITE_OPERATIONS};
use crate::table::Table;

const INSTANCES: usize = 3;
const USERS: usize = 5;
const RESTART_OUTAGE: Duration = Duration::from_secs(3);
/// Longer than the instances' `dynamodb.operation_timeout_ms`, so that some requests begin and end during the outage.
const FREEZE_OUTAGE: Duration = Duration::from_secs(6);

/// Runs clients against three instances of the service on one table, and checks every response.
#[derive(Clone, Copy, Parser)]
struct Arguments {
    /// Duration of the load, without setup and final checks
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(20..=3600))]
    seconds: u64,
    /// Seed of the clients' actions and of the faults. Timing still varies
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Kill and freeze instances, skew their clocks and disturb their connections to the store. Then check every response
    /// against the history
    #[arg(long, conflicts_with = "ttl")]
    faults: bool,
    /// Also wait for a TTL deletion by the store: up to 150 seconds more
    #[arg(long)]
    ttl: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let limit = Duration::from_secs(arguments.seconds + if arguments.ttl { 480 } else { 300 });
    // Dropping the future kills all child processes.
    let passed = tokio::select! {
        passed = timeout(limit, run(arguments, &directory)) => passed.unwrap_or_else(|_| {
            println!("chaos: not finished after {limit:?}");
            false
        }),
        _ = tokio::signal::ctrl_c() => false,
        _ = terminate.recv() => false,
    };
    if passed {
        std::fs::remove_dir_all(&directory).unwrap();
        println!("chaos: PASSED\n1 passed, 0 failed");
        ExitCode::SUCCESS
    } else {
        println!("logs: {}\nchaos: FAILED\n0 passed, 1 failed", directory.display());
        ExitCode::FAILURE
    }
}

async fn run(arguments: Arguments, directory: &Path) -> bool {
    if arguments.faults { faults::run(arguments, directory).await } else { run_outages(arguments, directory).await }
}

async fn run_outages(arguments: Arguments, directory: &Path) -> bool {
    let Arguments { seconds, seed, clients, ttl, .. } = arguments;
    println!("chaos: seed {seed}, {seconds} s, {clients} clients, {USERS} users, {INSTANCES} instances");
    Emulator::install().await;
    let [store_port, ports @ ..] = process::free_ports::<{ 1 + 2 * INSTANCES }>();
    let mut emulator = Emulator::start(store_port, directory).await;
    process::migrate(store_port).await;
    let mut instances = Vec::new();
    for number in 0..INSTANCES {
        let ports = [ports[2 * number], ports[2 * number + 1]];
        let (directory, environment) = (directory.to_owned(), Vec::new());
        instances.push(Instance::start(LaunchOptions { number, ports, store_port, directory, environment }).await);
    }
    let recorder = Arc::new(Recorder::default());
    let api = Arc::new(Api::new(Arc::clone(&recorder), instances, None));
    let table = Table::new(store_port);

    let (stop_clients, stop_observers) = (CancellationToken::new(), CancellationToken::new());
    let observers = spawn_observers(&table, &recorder, &stop_observers);
    let client_tasks = spawn_clients(&api, seed, clients, &stop_clients);

    let begin = Instant::now();
    let at = |share: f64| begin + Duration::from_secs_f64(seconds as f64 * share);
    sleep_until(at(0.15)).await;
    println!("{:>5.1} s  instance 0 killed (SIGKILL)", begin.elapsed().as_secs_f64());
    api.instances[0].kill().await;
    sleep_until(at(0.25)).await;
    restart_store(&mut emulator, &api, begin).await;
    sleep_until(at(0.65)).await;
    freeze_store(&emulator, &api, begin).await;
    sleep_until(at(1.0)).await;
    stop_clients.cancel();
    join_all(client_tasks, "client", &recorder).await;
    println!("{:>5.1} s  clients stopped", begin.elapsed().as_secs_f64());

    final_checks::all_users_can_start_up_to_their_limit(&api, &table, USERS).await;
    if ttl {
        final_checks::limit_holds_after_a_ttl_deletion(&api, &table, USERS).await;
    }
    stop_observers.cancel();
    join_all(observers, "observer", &recorder).await;
    recorder.check(emulator.is_running(), || "the DynamoDB emulator exited".to_owned());
    stop_instances(&api, directory).await;

    let mut records = recorder.lock();
    report::summarize(&mut records);
    report::check_outages(&mut records, &live_instances(&api));
    report::print_violations(&records)
}

fn spawn_observers(table: &Table, recorder: &Arc<Recorder>, stop: &CancellationToken) -> JoinSet<()> {
    (0..USERS).map(|user| table.clone().observe(user, Arc::clone(recorder), stop.clone())).collect()
}

fn spawn_clients(api: &Arc<Api>, seed: u64, clients: usize, stop: &CancellationToken) -> JoinSet<()> {
    (0..clients).map(|number| Client::new(Arc::clone(api), seed, number, USERS).run(stop.clone())).collect()
}

async fn join_all(mut tasks: JoinSet<()>, name: &str, recorder: &Recorder) {
    while let Some(task) = tasks.join_next().await {
        recorder.check(task.is_ok(), || format!("a task panicked ({name}): {task:?}"));
    }
}

fn live_instances(api: &Api) -> Vec<usize> {
    (0..INSTANCES).filter(|number| api.instances[*number].is_alive()).collect()
}

async fn stop_instances(api: &Api, directory: &Path) {
    let recorder = &api.recorder;
    for number in live_instances(api) {
        let instance = &api.instances[number];
        recorder.check(instance.is_running().await, || format!("instance {number} exited"));
        recorder.check(instance.stop().await, || format!("instance {number} did not stop cleanly on SIGTERM"));
    }
    let logs: Vec<PathBuf> = (0..INSTANCES).map(|number| directory.join(format!("instance-{number}.log"))).collect();
    for log in logs {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        recorder.check(!text.contains("panicked"), || format!("panic in {}", log.display()));
    }
}

/// Stops the emulator, which keeps its state, and starts it again under load.
async fn restart_store(emulator: &mut Emulator, api: &Arc<Api>, begin: Instant) {
    let recorder = &api.recorder;
    println!("{:>5.1} s  store stopped (SIGTERM)", begin.elapsed().as_secs_f64());
    recorder.begin_outage("restart");
    emulator.stop().await;
    recorder.store_is_down();
    // A real pause, because the emulator and the instances are real processes.
    tokio::join!(tokio::time::sleep(RESTART_OUTAGE), probe(api));
    recorder.store_may_be_up();
    emulator.launch().await;
    recorder.store_is_up();
    wait_for_recovery(api).await;
    println!("{:>5.1} s  store started, service recovered", begin.elapsed().as_secs_f64());
}

/// Freezes the emulator while its connections stay open. When the emulator resumes, it executes all queued requests at
/// once.
async fn freeze_store(emulator: &Emulator, api: &Arc<Api>, begin: Instant) {
    let recorder = &api.recorder;
    println!("{:>5.1} s  store frozen (SIGSTOP)", begin.elapsed().as_secs_f64());
    recorder.begin_outage("freeze");
    emulator.freeze().await;
    recorder.store_is_down();
    tokio::join!(tokio::time::sleep(FREEZE_OUTAGE), probe(api));
    recorder.store_may_be_up();
    emulator.resume();
    recorder.store_is_up();
    wait_for_recovery(api).await;
    println!("{:>5.1} s  store resumed (SIGCONT), service recovered", begin.elapsed().as_secs_f64());
}

/// Probes until every write operation has succeeded on every live instance, or until the recovery time is over. The
/// report checks the result.
async fn wait_for_recovery(api: &Arc<Api>) {
    let begin = Instant::now();
    let expected = WRITE_OPERATIONS.len() * api.instances.iter().filter(|instance| instance.is_alive()).count();
    while begin.elapsed() < RECOVERY_TIME {
        probe(api).await;
        if api.recorder.lock().recovered() >= expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Calls every write operation on every live instance, so that the checks do not depend on the clients' random actions.
/// While the store is down, the service must not report the unknown stream as not found.
async fn probe(api: &Arc<Api>) {
    const UNKNOWN_STREAM: &str = "00000000-0000-4000-8000-000000000000";
    let mut probes = JoinSet::new();
    for number in live_instances(api) {
        let api = Arc::clone(api);
        probes.spawn(async move {
            let options = StartOptions::default();
            let start = api.start(number, number % USERS, &options);
            let heartbeat = api.heartbeat(number, 0, UNKNOWN_STREAM);
            let stop = api.stop(number, 0, UNKNOWN_STREAM, false);
            tokio::join!(start, heartbeat, stop);
        });
    }
    join_all(probes, "probe", &api.recorder).await;
}
