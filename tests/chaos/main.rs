//! A race of several processes on one table: clients of a few users against three instances of the service, while one
//! instance is killed and the store is restarted and frozen under load. Loopback only, bounded in time.
//!
//! It sleeps, unlike the other tests: processes, leases and the store's TTL go by the host's clock here.
//!
//! `cargo test --release --test race -- --seconds 30`, and with `--attack` what [`attack`] says.

#![allow(clippy::expect_used, reason = "a harness that cannot go on ends there, and takes its processes with it")]

mod api;
mod attack;
mod board;
mod finale;
mod player;
mod process;
mod standin;
mod table;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, StartWith};
use crate::board::{Board, CHANGES, GRACE};
use crate::player::Player;
use crate::process::{Instance, Launch};
use crate::standin::StandIn;
use crate::table::Table;

const INSTANCES: usize = 3;
const USERS: usize = 5;
const AWAY: Duration = Duration::from_secs(3);
/// Longer than `dynamodb.operation_timeout_ms` of the instances: requests must begin and end in it.
const FROZEN: Duration = Duration::from_secs(6);

/// Races clients against three instances of the service on one table.
#[derive(Clone, Copy, Parser)]
struct Arguments {
    /// How long the race goes on, without what comes before and after
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(20..=3600))]
    seconds: u64,
    /// Decides what the clients do, as far as timing lets it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Kill, freeze and put off the clock of instances, and hurt their connections to the store; then judge each answer
    #[arg(long, conflicts_with = "ttl")]
    attack: bool,
    /// Also wait for a TTL deletion by the store: up to 150 seconds more
    #[arg(long)]
    ttl: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("race-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for logs");
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    let limit = Duration::from_secs(arguments.seconds + if arguments.ttl { 480 } else { 300 });
    // Leaving the future on any way drops, and so kills, all that was started.
    let passed = tokio::select! {
        passed = timeout(limit, run(arguments, &directory)) => passed.unwrap_or_else(|_| {
            println!("race: did not end within {limit:?}");
            false
        }),
        _ = tokio::signal::ctrl_c() => false,
        _ = terminate.recv() => false,
    };
    if passed {
        std::fs::remove_dir_all(&directory).expect("the directory goes");
        println!("race: PASSED\n1 passed, 0 failed");
        ExitCode::SUCCESS
    } else {
        println!("logs: {}\nrace: FAILED\n0 passed, 1 failed", directory.display());
        ExitCode::FAILURE
    }
}

async fn run(arguments: Arguments, directory: &Path) -> bool {
    if arguments.attack { attack::attack(arguments, directory).await } else { race(arguments, directory).await }
}

async fn race(arguments: Arguments, directory: &Path) -> bool {
    let Arguments { seconds, seed, clients, ttl, .. } = arguments;
    println!("race: seed {seed}, {seconds} s, {clients} clients, {USERS} users, {INSTANCES} instances");
    StandIn::install().await;
    let [store_port, ports @ ..] = process::free_ports::<{ 1 + 2 * INSTANCES }>();
    let mut stand_in = StandIn::start(store_port, directory).await;
    process::migrate(store_port).await;
    let mut instances = Vec::new();
    for number in 0..INSTANCES {
        let ports = [ports[2 * number], ports[2 * number + 1]];
        let (directory, environment) = (directory.to_owned(), Vec::new());
        instances.push(Instance::start(Launch { number, ports, store_port, directory, environment }).await);
    }
    let board = Arc::new(Board::default());
    let api = Arc::new(Api::new(Arc::clone(&board), instances, None));
    let table = Table::new(store_port);

    let (stop_players, stop_watching) = (CancellationToken::new(), CancellationToken::new());
    let watch = watch(&table, &board, &stop_watching);
    let players = players(&api, seed, clients, &stop_players);

    let begin = Instant::now();
    let at = |share: f64| begin + Duration::from_secs_f64(seconds as f64 * share);
    sleep_until(at(0.15)).await;
    println!("{:>5.1} s  instance 0 is killed (SIGKILL)", begin.elapsed().as_secs_f64());
    api.instances[0].kill().await;
    sleep_until(at(0.25)).await;
    restart(&mut stand_in, &api, begin).await;
    sleep_until(at(0.65)).await;
    freeze(&stand_in, &api, begin).await;
    sleep_until(at(1.0)).await;
    stop_players.cancel();
    all_end(players, "a client", &board).await;
    println!("{:>5.1} s  the clients have stopped", begin.elapsed().as_secs_f64());

    finale::all_users_have_their_limit(&api, &table, USERS).await;
    if ttl {
        finale::after_a_ttl_deletion(&api, &table, USERS).await;
    }
    stop_watching.cancel();
    all_end(watch, "the observer", &board).await;
    board.expect(stand_in.runs(), || "the stand-in has died".to_owned());
    instances_end_well(&api, directory).await;

    let mut notes = board.lock();
    verdict::sum_up(&mut notes);
    verdict::race_was_one(&mut notes, &survivors(&api));
    verdict::conclude(&notes)
}

fn watch(table: &Table, board: &Arc<Board>, stop: &CancellationToken) -> JoinSet<()> {
    (0..USERS).map(|user| table.clone().watch(user, Arc::clone(board), stop.clone())).collect()
}

fn players(api: &Arc<Api>, seed: u64, clients: usize, stop: &CancellationToken) -> JoinSet<()> {
    (0..clients).map(|number| Player::new(Arc::clone(api), seed, number, USERS).play(stop.clone())).collect()
}

async fn all_end(mut tasks: JoinSet<()>, who: &str, board: &Board) {
    while let Some(task) = tasks.join_next().await {
        board.expect(task.is_ok(), || format!("{who} broke: {task:?}"));
    }
}

fn survivors(api: &Api) -> Vec<usize> {
    (0..INSTANCES).filter(|number| api.instances[*number].alive()).collect()
}

async fn instances_end_well(api: &Api, directory: &Path) {
    let board = &api.board;
    for number in survivors(api) {
        let instance = &api.instances[number];
        board.expect(instance.runs().await, || format!("instance {number} has died"));
        board.expect(instance.stop().await, || format!("instance {number} does not end well on SIGTERM"));
    }
    let logs: Vec<PathBuf> = (0..INSTANCES).map(|number| directory.join(format!("instance-{number}.log"))).collect();
    for log in logs {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        board.expect(!text.contains("panicked"), || format!("a panic in {}", log.display()));
    }
}

/// The stand-in ends, keeping its state, and is started again under load.
async fn restart(stand_in: &mut StandIn, api: &Arc<Api>, begin: Instant) {
    let board = &api.board;
    println!("{:>5.1} s  the store is stopped (SIGTERM)", begin.elapsed().as_secs_f64());
    board.trouble_begins("restart");
    stand_in.stop().await;
    board.store_is_down();
    tokio::join!(tokio::time::sleep(AWAY), probe(api));
    board.store_comes_back();
    stand_in.start_again().await;
    board.store_is_back();
    recover(api).await;
    println!("{:>5.1} s  the store is back, and so is the service", begin.elapsed().as_secs_f64());
}

/// The stand-in stands still with its connections open, then does all at once what has piled up meanwhile.
async fn freeze(stand_in: &StandIn, api: &Arc<Api>, begin: Instant) {
    let board = &api.board;
    println!("{:>5.1} s  the store is frozen (SIGSTOP)", begin.elapsed().as_secs_f64());
    board.trouble_begins("freeze");
    stand_in.freeze().await;
    board.store_is_down();
    tokio::join!(tokio::time::sleep(FROZEN), probe(api));
    board.store_comes_back();
    stand_in.thaw();
    board.store_is_back();
    recover(api).await;
    println!("{:>5.1} s  the store goes on (SIGCONT), and so does the service", begin.elapsed().as_secs_f64());
}

/// Asks until every verb has worked on every instance, or the grace is over; what counts is in the verdict.
async fn recover(api: &Arc<Api>) {
    let back = Instant::now();
    let wanted = CHANGES.len() * api.instances.iter().filter(|instance| instance.alive()).count();
    while back.elapsed() < GRACE {
        probe(api).await;
        if api.board.lock().recovered() >= wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every verb on every instance that is left, so that none depends on what the clients happen to do. A stream that
/// nobody knows must not be called unknown while the store is away.
async fn probe(api: &Arc<Api>) {
    const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";
    let mut probes = JoinSet::new();
    for number in (0..INSTANCES).filter(|number| api.instances[*number].alive()) {
        let api = Arc::clone(api);
        probes.spawn(async move {
            let plain = StartWith::default();
            let start = api.start(number, number % USERS, &plain);
            let (beat, stop) = (api.heartbeat(number, 0, NOBODYS), api.stop(number, 0, NOBODYS, false));
            tokio::join!(start, beat, stop);
        });
    }
    while let Some(probe) = probes.join_next().await {
        api.board.expect(probe.is_ok(), || format!("a probe broke: {probe:?}"));
    }
}
