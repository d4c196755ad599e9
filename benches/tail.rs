//! Measures the latency of heartbeats on the memory store below saturation. First measures the maximum rate, and then sends requests
//! at 70 % of this rate on a fixed schedule. Latency counts from the time at which a request is due. A bare hyper server at the
//! same rate shows which part of the tail latency the machine causes. Server and client have one core each. Also measures the
//! startup time. Run it with `just bench`, which builds the bare server.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use support::Spread;
use support::closed_loop::{Connection, User, Workload, request, requests_per_s};
use support::process::{CLIENT_CORE, SERVER_CORE, SERVICE, Server, pin_self, pinned};

const CONNECTIONS: usize = 64;
const LOAD: f64 = 0.7;
const ROUNDS: usize = 3;
const STARTUPS: usize = 20;
const RUN: Duration = Duration::from_secs(8);
/// Latencies are also evaluated per window of this length. A hypervisor may pause a core for milliseconds several times per
/// second, but most windows contain no such pause.
const WINDOW: Duration = Duration::from_millis(50);

fn main() {
    pin_self(CLIENT_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        startup().await;
        let (service, bare) = (service().await, Server::peer("bare_hyper", SERVER_CORE, &[]).await);
        let saturation = |run| requests_per_s(service.address, CONNECTIONS, Workload::Heartbeat, run);
        saturation(Duration::from_secs(2)).await;
        for _ in 0..ROUNDS {
            let max_rate = saturation(Duration::from_secs(4)).await;
            println!("saturation {max_rate:.0}/s; latency at {:.0} % of it:", LOAD * 100.0);
            for (name, server) in [("heartbeat", &service), ("bare hyper server", &bare)] {
                let windows = open_loop(server.address, max_rate * LOAD, RUN).await;
                let mut all = Histogram::<u64>::new(3).unwrap();
                windows.iter().for_each(|window| all.add(window).unwrap());
                let median_window = Spread::of(windows.iter().map(tail_ratio)).median;
                let us = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
                println!(
                    "  {name:18} p50 {:>5.0} us, p99 {:>6.0} us, p99.9 {:>6.0} us; p99/p50 {:>6.1}, in the median window {median_window:.1}",
                    us(0.5),
                    us(0.99),
                    us(0.999),
                    tail_ratio(&all),
                );
            }
        }
    });
}

fn tail_ratio(latencies: &Histogram<u64>) -> f64 {
    latencies.value_at_quantile(0.99) as f64 / latencies.value_at_quantile(0.5) as f64
}

async fn service() -> Server {
    Server::service(pinned(SERVER_CORE, SERVICE), &[("STORE__KIND", "memory")]).await
}

/// Measures the time from the start of the process to its first successful readiness response.
async fn startup() {
    let mut times_ms = Vec::new();
    for _ in 0..STARTUPS {
        let start = Instant::now();
        let service = service().await;
        Connection::open(service.address).await.call(&request("GET", "/health/ready"), 200).await;
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let Spread { min, median, max } = Spread::of(times_ms);
    println!("ready after {median:.0} ms ({min:.0}-{max:.0})");
    let bytes = std::fs::metadata(SERVICE).unwrap().len();
    println!("binary {:.1} MB, with debug information", bytes as f64 / 1e6);
}

/// Sends requests at a fixed rate, on one connection after the other. A request waits until the previous request on its connection
/// has its response. Returns one histogram per window. Polls in a busy loop, because the runtime's timers have a resolution of one
/// millisecond, and a response takes less time than that.
async fn open_loop(address: SocketAddr, per_s: f64, run: Duration) -> Vec<Histogram<u64>> {
    let mut players = Vec::new();
    for n in 0..CONNECTIONS {
        let user = User::connect(address, n).await;
        let stream = user.connection.into_std();
        players.push(Player { stream, heartbeat: user.heartbeat, due: VecDeque::new(), received: 0 });
    }
    let response_bytes = players[0].response_bytes();
    let (start, interval_s, total) = (Instant::now(), 1.0 / per_s, (run.as_secs_f64() * per_s) as u64);
    let window = |due: Instant| (due - start).as_millis() / WINDOW.as_millis();
    let mut latencies: Vec<_> = (0..=window(start + run)).map(|_| Histogram::<u64>::new(3).unwrap()).collect();
    let (mut sent, mut completed, mut waiting) = (0, 0, Vec::new());
    while completed < total {
        let due = start + Duration::from_secs_f64(sent as f64 * interval_s);
        if sent < total && due <= Instant::now() {
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
            if !player.poll_response(response_bytes) {
                return true;
            }
            let due = player.due.pop_front().unwrap();
            latencies[window(due) as usize].record(due.elapsed().as_nanos() as u64).unwrap();
            completed += 1;
            !player.due.is_empty() && player.send()
        });
    }
    latencies.retain(|window| !window.is_empty());
    latencies
}

struct Player {
    stream: TcpStream,
    heartbeat: Vec<u8>,
    /// Due times of the requests without a response. Only the first of these requests has been sent.
    due: VecDeque<Instant>,
    received: usize,
}

impl Player {
    fn send(&mut self) -> bool {
        self.stream.write_all(&self.heartbeat).is_ok()
    }

    /// Reads the bytes that have arrived. Returns true once the response is complete.
    fn poll_response(&mut self, response_bytes: usize) -> bool {
        let mut response = [0; 1024];
        match self.stream.read(&mut response) {
            Ok(read) => {
                assert!(self.received > 0 || response.starts_with(b"HTTP/1.1 200 "), "{}", response.escape_ascii());
                self.received += read;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let complete = self.received == response_bytes;
        if complete {
            self.received = 0;
        }
        complete
    }

    /// The length of a heartbeat response, which is constant. Waits before it reads, so that the whole response has arrived.
    fn response_bytes(&mut self) -> usize {
        self.send();
        std::thread::sleep(Duration::from_millis(100));
        self.stream.read(&mut [0; 1024]).unwrap()
    }
}
