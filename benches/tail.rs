//! Measures the latency of heartbeats on the memory store below saturation. First measures the maximum rate, and then sends requests
//! at 70 % of this rate on a fixed schedule. Latency counts from the time at which a request is due. A bare hyper server at the
//! same rate shows which part of the tail latency the machine causes. Server and client have one core each. Also measures the
//! startup time. Run it with `just bench`, which builds the bare server.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use support::Spread;
use support::closed_loop::{Connection, Workload, request, requests_per_s};
use support::open_loop::open_loop;
use support::process::{CLIENT_CORE, SERVER_CORE, SERVICE, Server, pin_self, pinned};

const CONNECTIONS: usize = 64;
const LOAD: f64 = 0.7;
const ROUNDS: usize = 3;
const STARTUPS: usize = 20;
const RUN: Duration = Duration::from_secs(8);

fn main() {
    pin_self(CLIENT_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        startup().await;
        let (service, bare) = (service().await, Server::peer("bare_hyper", SERVER_CORE, &[]).await);
        let saturation = |run| requests_per_s(service.address, 0..CONNECTIONS, Workload::Heartbeat, run);
        saturation(Duration::from_secs(2)).await;
        for _ in 0..ROUNDS {
            let max_rate = saturation(Duration::from_secs(4)).await;
            println!("saturation {max_rate:.0}/s; latency at {:.0} % of it:", LOAD * 100.0);
            for (name, server) in [("heartbeat", &service), ("bare hyper server", &bare)] {
                let windows = open_loop(server.address, 0..CONNECTIONS, max_rate * LOAD, RUN).await;
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
