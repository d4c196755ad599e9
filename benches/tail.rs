//! How long heartbeats on the memory store take below saturation: first as many as can be answered, then 70 % of that on a
//! schedule, timed from when each is due. And how soon the binary is ready, and its size. Service and client share the cores.
//! `cargo bench --bench tail`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use service::closed_loop::{Connection, Verb, request, requests_per_s};
use service::{Service, free_port};
use tokio::sync::mpsc;

const CONNECTIONS: usize = 64;
const SHARE: f64 = 0.7;
const ROUNDS: usize = 3;
const STARTS: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        start_up().await;
        let service = Service::start_by(binary(), &[("STORE__KIND", "memory")]).await;
        requests_per_s(service.address, CONNECTIONS, Verb::Heartbeat, Duration::from_secs(2)).await;
        for _ in 0..ROUNDS {
            let most = requests_per_s(service.address, CONNECTIONS, Verb::Heartbeat, Duration::from_secs(4)).await;
            let took = open_loop(service.address, most * SHARE, Duration::from_secs(8)).await;
            let us = |quantile| took.value_at_quantile(quantile) as f64 / 1e3;
            println!(
                "saturation {most:>7.0}/s; at {:.0} %: p50 {:>6.0} us, p99 {:>6.0} us, p99.9 {:>6.0} us; p99 over p50 {:.1}",
                SHARE * 100.0,
                us(0.5),
                us(0.99),
                us(0.999),
                us(0.99) / us(0.5)
            );
        }
    });
}

fn binary() -> Command {
    let mut binary = Command::new(env!("CARGO_BIN_EXE_stream-manager"));
    binary.stdout(Stdio::null());
    binary
}

/// From the start of the process to the first answer that it is ready.
async fn start_up() {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let (folder, address) = (tempfile::tempdir().expect("a folder"), free_port().await);
        let mut command = binary();
        command.current_dir(folder.path()).stderr(Stdio::null());
        command.env("STREAM_MANAGER__SERVER__BIND", address.to_string());
        command.env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", "127.0.0.1:0");
        command.env("STREAM_MANAGER__STORE__KIND", "memory");
        let begun = Instant::now();
        let mut child = command.spawn().expect("the binary");
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut connection = Connection::open(address).await;
        assert_eq!(connection.call(&request("GET", "/health/ready")).await.0, 200);
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        _ = child.kill();
        _ = child.wait();
    }
    took.sort_by(f64::total_cmp);
    println!("ready after {:.0} ms ({:.0}-{:.0})", took[STARTS / 2], took[0], took[STARTS - 1]);
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_stream-manager")).expect("the binary").len();
    println!("binary {:.1} MB, with what debuggers need", size as f64 / 1e6);
}

/// Each request on the next connection when it is due; what waits for an earlier answer is timed too.
async fn open_loop(address: SocketAddr, per_s: f64, run: Duration) -> Histogram<u64> {
    let (mut players, mut wake) = (Vec::new(), Vec::new());
    for n in 0..CONNECTIONS {
        let mut connection = Connection::open(address).await;
        let streams = format!("/v1/users/open-{n:04}/streams");
        let (status, body) = connection.call(&request("POST", &streams)).await;
        assert_eq!(status, 201);
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let stream = format!("{streams}/{}", body["streamId"].as_str().expect("an id"));
        let (sender, mut due) = mpsc::unbounded_channel::<Instant>();
        wake.push(sender);
        players.push(tokio::spawn(async move {
            let heartbeat = request("POST", &format!("{stream}/heartbeat"));
            let mut took = Histogram::<u64>::new(3).expect("a histogram");
            while let Some(due) = due.recv().await {
                assert_eq!(connection.call(&heartbeat).await.0, 200);
                took.record(due.elapsed().as_nanos() as u64).expect("a time");
            }
            connection.call(&request("DELETE", &stream)).await;
            took
        }));
    }
    // A thread, because the runtime's timer has steps of a millisecond, longer than an answer takes.
    std::thread::spawn(move || {
        let (begun, every) = (Instant::now(), 1.0 / per_s);
        for (n, player) in (0..(run.as_secs_f64() * per_s) as u64).zip((0..CONNECTIONS).cycle()) {
            let due = begun + Duration::from_secs_f64(n as f64 * every);
            if let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(left);
            }
            _ = wake[player].send(due);
        }
    });
    let mut took = Histogram::<u64>::new(3).expect("a histogram");
    for player in players {
        took.add(player.await.expect("a player")).expect("a histogram");
    }
    took
}
