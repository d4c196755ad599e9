//! The memory store through HTTP against what else could stand there: an empty poem-openapi endpoint on poem's own server, a
//! bare hyper server, and axum with a script in Redis. 64 kept connections in a closed loop; who is measured has one core (Redis
//! too, or the client's as the second line of it says), and the client has the other. All take turns, and a ratio is that of one
//! round's rates, the median of the rounds with the least and the greatest.
//! `cargo build --profile bench -p peers && cargo bench --bench compare`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use service::closed_loop::{Connection, Verb, player, request, requests_per_s};
use service::cores::{CLIENT, MEASURED, Peer, cpu_seconds, pin_self, pinned, spread};
use service::{Service, free_port, listening};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);

fn main() {
    // Before there are threads, so that all have it.
    pin_self(CLIENT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare());
}

async fn compare() {
    let mut binary = pinned(MEASURED, env!("CARGO_BIN_EXE_stream-manager"));
    binary.stdout(Stdio::null());
    let ours = Service::start_by(binary, &[("STORE__KIND", "memory")]).await;
    let (empty, bare) = (Peer::start("empty", MEASURED, &[]).await, Peer::start("bare", MEASURED, &[]).await);
    assert_eq!(heartbeats_bytes(ours.address).await, heartbeats_bytes(empty.address).await, "set BYTES in the peer");
    let (beside, apart) = (redis(MEASURED).await, redis(CLIENT).await);
    let line =
        |name, verb, address, process| Line { name, verb, address, process, rates: Vec::new(), cpu_us: Vec::new() };
    let mut lines = [
        line("empty poem-openapi endpoint", Verb::Heartbeat, empty.address, empty.child.id()),
        line("heartbeat", Verb::Heartbeat, ours.address, ours.id()),
        line("start and stop", Verb::StartAndStop, ours.address, ours.id()),
        line("count", Verb::Count, ours.address, ours.id()),
        line("bare hyper server", Verb::Heartbeat, bare.address, bare.child.id()),
        line("axum and Redis, heartbeat", Verb::Heartbeat, beside.web.address, beside.web.child.id()),
        line("  Redis on the client's core", Verb::Heartbeat, apart.web.address, apart.web.child.id()),
        line("axum and Redis, start and stop", Verb::StartAndStop, beside.web.address, beside.web.child.id()),
        line("axum and Redis, count", Verb::Count, beside.web.address, beside.web.child.id()),
    ];
    for round in 0..=ROUNDS {
        for line in &mut lines {
            let before = cpu_seconds(line.process);
            let rate = requests_per_s(line.address, CONNECTIONS, line.verb, RUN).await;
            // The first round warms up.
            if round > 0 {
                line.rates.push(rate);
                line.cpu_us.push((cpu_seconds(line.process) - before) * 1e6 / (rate * RUN.as_secs_f64()));
            }
        }
    }
    println!("{:32} {:>10} {:>20} {:>22}", "", "requests/s", "of the empty one", "CPU us a request");
    for line in &lines {
        let [least, middle, greatest] =
            spread(line.rates.iter().zip(&lines[0].rates).map(|(own, empty)| own / empty));
        println!(
            "{:32} {:>10.0} {middle:>8.2} ({least:.2}-{greatest:.2}) {:>22.1}",
            line.name,
            spread(line.rates.iter().copied())[1],
            spread(line.cpu_us.iter().copied())[1]
        );
    }
    for (ours, theirs) in [(1, 5), (1, 6), (2, 7), (3, 8)] {
        let ratios = lines[ours].rates.iter().zip(&lines[theirs].rates).map(|(own, theirs)| own / theirs);
        let [least, middle, greatest] = spread(ratios);
        println!("{} over {}: {middle:.2} ({least:.2}-{greatest:.2})", lines[ours].name, lines[theirs].name.trim());
    }
}

/// How long the body of the answer is.
async fn heartbeats_bytes(address: SocketAddr) -> usize {
    let mut connection = Connection::open(address).await;
    let stream = player(&mut connection, 0).await;
    let (status, body) = connection.call(&request("POST", &format!("{stream}/heartbeat"))).await;
    assert_eq!(status, 200);
    body.len()
}

/// One verb of one server.
struct Line {
    name: &'static str,
    verb: Verb,
    address: SocketAddr,
    process: u32,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

struct WithRedis {
    web: Peer,
    _redis: Peer,
}

/// Keeps nothing on the disk, as the memory store does not.
async fn redis(core: &str) -> WithRedis {
    let address = free_port().await;
    let port = address.port().to_string();
    let mut command = pinned(core, "redis-server");
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).stdout(Stdio::null());
    let redis = Peer { address, child: command.spawn().expect("redis-server, from Debian's package of the name") };
    listening(address).await;
    let web = Peer::start("redis", MEASURED, &[&format!("redis://{address}")]).await;
    WithRedis { web, _redis: redis }
}
