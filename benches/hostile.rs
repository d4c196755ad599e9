//! What 2,000 idle and slow connections cost the others: how long heartbeats take on 32 connections at a fixed rate, far
//! below what the service can do, alone and beside them. Prints both and their ratio.
//! `cargo bench --bench hostile`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use service::{Client, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

const PLAYERS: u64 = 32;
const EVERY: Duration = Duration::from_millis(40);
const RUN: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;
const HOSTILE: usize = 2000;

fn main() {
    // Each takes a descriptor here, and one in the service.
    _ = rlimit::increase_nofile_limit(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let service = Service::start(&[("STORE__KIND", "memory")]).await;
        heartbeats(service.address).await;
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.extend(heartbeats(service.address).await);
            let hostile: Vec<_> = (0..HOSTILE).map(|n| tokio::spawn(hostile(service.address, n % 4))).collect();
            // Until all are connected: what they cost by being there is looked for, not the rush.
            tokio::time::sleep(Duration::from_secs(3)).await;
            beside.extend(heartbeats(service.address).await);
            hostile.iter().for_each(tokio::task::JoinHandle::abort);
        }
        let [alone, beside] = [alone, beside].map(|mut took| {
            took.sort();
            let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
            (at(0.5), at(0.99), at(0.999))
        });
        println!(
            "alone                     p50 {:>6.0} us, p99 {:>6.0} us, p99.9 {:>6.0} us",
            alone.0, alone.1, alone.2
        );
        println!(
            "beside 2,000 connections  p50 {:>6.0} us, p99 {:>6.0} us, p99.9 {:>6.0} us",
            beside.0, beside.1, beside.2
        );
        println!(
            "ratio                     p50 {:>6.2},    p99 {:>6.2},    p99.9 {:>6.2}",
            beside.0 / alone.0,
            beside.1 / alone.1,
            beside.2 / alone.2
        );
    });
}

/// How long each heartbeat took, from when it was due: a late one is the service's fault too.
async fn heartbeats(address: SocketAddr) -> Vec<Duration> {
    let players = (0..PLAYERS).map(|n| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let stream = client.started(&format!("/v1/users/user-{n}/streams")).await;
            let mut due = interval(EVERY);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut took, until) = (Vec::new(), Instant::now() + RUN);
            while Instant::now() < until {
                let due = due.tick().await;
                assert_eq!(client.call("POST", &format!("{stream}/heartbeat")).await.0, 200);
                took.push(due.elapsed());
            }
            assert_eq!(client.call("DELETE", &stream).await.0, 204);
            took
        })
    });
    let players: Vec<_> = players.collect();
    let mut all = Vec::new();
    for player in players {
        all.extend(player.await.expect("a player"));
    }
    all
}

/// Connects again and again, and is idle, sends a head or a body byte by byte, or asks for much and reads little.
async fn hostile(address: SocketAddr, kind: usize) {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        let first = match kind {
            0 => "",
            1 => "GET /health HTTP/1.1\r\n",
            2 => "POST /v1/users/mallory/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 16000\r\n\r\n{",
            _ => "GET /swagger HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        let more: &[u8] = match kind {
            1 => b"X-A: b\r\n",
            2 => b" ",
            _ => b"",
        };
        let mut slow = interval(Duration::from_millis(500));
        let mut open = stream.write_all(first.as_bytes()).await.is_ok();
        while open {
            slow.tick().await;
            open = match kind {
                3 => stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0),
                _ => stream.write_all(more).await.is_ok(),
            };
            // An idle one learns of its end by reading.
            if kind == 0 {
                open = stream.read(&mut [0; 1]).await.is_ok_and(|read| read > 0);
            }
        }
    }
}
