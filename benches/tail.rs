//! How long heartbeats on the memory store take below saturation: first as many as can be answered, then 70 % of that on a
//! schedule, timed from when each is due. And how soon the binary is ready, and its size.
//! Service and client have a core each. The same on a bare server says what of the tail is the machine's.
//! `cargo build --profile bench -p peers && cargo bench --bench tail`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use service::closed_loop::{Connection, Verb, player, request, requests_per_s};
use service::cores::{CLIENT, MEASURED, Peer, pin_self, pinned, spread};
use service::{Service, free_port};

const CONNECTIONS: usize = 64;
const SHARE: f64 = 0.7;
const ROUNDS: usize = 3;
const STARTS: usize = 20;
const RUN: Duration = Duration::from_secs(8);
/// The host takes the cores away for milliseconds, some times a second. What it does to the tail is in most windows not.
const WINDOW: Duration = Duration::from_millis(50);

fn main() {
    pin_self(CLIENT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        start_up().await;
        let service = Service::start_by(binary(), &[("STORE__KIND", "memory")]).await;
        let bare = Peer::start("bare", MEASURED, &[]).await;
        requests_per_s(service.address, CONNECTIONS, Verb::Heartbeat, Duration::from_secs(2)).await;
        for _ in 0..ROUNDS {
            let most = requests_per_s(service.address, CONNECTIONS, Verb::Heartbeat, Duration::from_secs(4)).await;
            println!("saturation {most:.0}/s; at {:.0} % of it:", SHARE * 100.0);
            for (name, address) in [("heartbeats", service.address), ("bare hyper server", bare.address)] {
                let windows = open_loop(address, most * SHARE, RUN).await;
                let mut all = Histogram::<u64>::new(3).expect("a histogram");
                windows.iter().for_each(|window| all.add(window).expect("a histogram"));
                let [_, median, _] = spread(windows.iter().map(tail));
                let us = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
                println!(
                    "  {name:18} p50 {:>5.0} us, p99 {:>6.0} us, p99.9 {:>6.0} us; p99 over p50 {:>6.1}, in the median window {median:.1}",
                    us(0.5),
                    us(0.99),
                    us(0.999),
                    tail(&all),
                );
            }
        }
    });
}

/// p99 over p50.
fn tail(took: &Histogram<u64>) -> f64 {
    took.value_at_quantile(0.99) as f64 / took.value_at_quantile(0.5) as f64
}

fn binary() -> Command {
    let mut binary = pinned(MEASURED, env!("CARGO_BIN_EXE_stream-manager"));
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

/// Each request on the next connection when it is due; what waits for an earlier answer is timed too. A busy loop, because a
/// runtime's timers have steps of a millisecond, longer than an answer takes, and its wake-ups would be in the figures.
async fn open_loop(address: SocketAddr, per_s: f64, run: Duration) -> Vec<Histogram<u64>> {
    let mut players = Vec::new();
    for n in 0..CONNECTIONS {
        let mut connection = Connection::open(address).await;
        let heartbeat = request("POST", &format!("{}/heartbeat", player(&mut connection, n).await));
        players.push(Player { stream: connection.into_std(), heartbeat, due: VecDeque::new(), read: 0 });
    }
    // All answers to heartbeats are of one length.
    let length = players[0].answer_bytes();
    let (begun, every, all) = (Instant::now(), 1.0 / per_s, (run.as_secs_f64() * per_s) as u64);
    let window = |due: Instant| (due - begun).as_millis() / WINDOW.as_millis();
    let windows = 0..=window(begun + run);
    let mut took: Vec<_> = windows.map(|_| Histogram::<u64>::new(3).expect("a histogram")).collect();
    let (mut sent, mut answered, mut waiting) = (0, 0, Vec::new());
    while answered < all {
        let due = begun + Duration::from_secs_f64(sent as f64 * every);
        if sent < all && due <= Instant::now() {
            let n = sent as usize % CONNECTIONS;
            players[n].due.push_back(due);
            if players[n].due.len() == 1 {
                players[n].send();
                waiting.push(n);
            }
            sent += 1;
        }
        waiting.retain(|n| {
            let player = &mut players[*n];
            if !player.has_answer(length) {
                return true;
            }
            let due = player.due.pop_front().expect("asked");
            took[window(due) as usize].record(due.elapsed().as_nanos() as u64).expect("a time");
            answered += 1;
            !player.due.is_empty() && player.send()
        });
    }
    took.retain(|window| !window.is_empty());
    took
}

struct Player {
    stream: TcpStream,
    heartbeat: Vec<u8>,
    /// When the requests were due that have no answer yet. The first one was sent.
    due: VecDeque<Instant>,
    read: usize,
}

impl Player {
    fn send(&mut self) -> bool {
        self.stream.write_all(&self.heartbeat).is_ok()
    }

    fn has_answer(&mut self, length: usize) -> bool {
        let mut answer = [0; 1024];
        match self.stream.read(&mut answer) {
            Ok(read) => {
                assert!(self.read > 0 || answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
                self.read += read;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let whole = self.read == length;
        if whole {
            self.read = 0;
        }
        whole
    }

    /// Of a first one, which has all the time it needs.
    fn answer_bytes(&mut self) -> usize {
        self.send();
        std::thread::sleep(Duration::from_millis(100));
        self.stream.read(&mut [0; 1024]).expect("an answer")
    }
}
