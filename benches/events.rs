//! Compares heartbeats and starts with events to those without, on the memory store over HTTP. The client uses 64 keep-alive connections in
//! a closed loop. The service, with the thread that writes the events, and the client have one core each. Each round measures every
//! contender once. Each ratio is calculated for every round, and the output shows the median, minimum and maximum of all rounds.
//! Run it with `cargo bench --bench events`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::time::Duration;

use support::Series;
use support::closed_loop::{Workload, requests_per_s};
use support::process::{CLIENT_CORE, SERVER_CORE, SERVICE, Server, pin_self, pinned};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);
const KEY: &str = "a key with at least thirty-two bytes";

fn main() {
    pin_self(CLIENT_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let off = service(&[]).await;
    let plain = service(&[("EVENTS__SINK", "file"), ("EVENTS__USER", "plain")]).await;
    let hashed = service(&[("EVENTS__SINK", "file"), ("EVENTS__HASH_KEY", KEY)]).await;
    for (name, workload) in [("heartbeat", Workload::Heartbeat), ("start and stop", Workload::StartAndStop)] {
        let contenders = [("off", &off), ("plain", &plain), ("hashed", &hashed)];
        let mut results = contenders.map(|_| Series::default());
        for _ in 0..=ROUNDS {
            for ((_, server), result) in contenders.iter().zip(&mut results) {
                let rate = requests_per_s(server.address, 0..CONNECTIONS, workload, RUN);
                result.measure(&[server.id()], RUN, rate).await;
            }
        }
        println!("{name:16} {:>10} {:>20} {:>16} {:>20}", "requests/s", "over off", "CPU us/request", "over off");
        for ((events, _), result) in contenders.iter().zip(&results) {
            let (rate, cpu) = (result.rates().median, result.cpu_us().median);
            let (rate_ratio, cpu_ratio) = (result.rate_ratio(&results[0]), result.cpu_ratio(&results[0]));
            println!("events {events:9} {rate:>10.0} {rate_ratio:>20} {cpu:>16.1} {cpu_ratio:>20}");
        }
    }
}

async fn service(settings: &[(&str, &str)]) -> Server {
    let settings = [&[("STORE__KIND", "memory"), ("SERVER__WORKER_THREADS", "1")], settings].concat();
    Server::service(pinned(SERVER_CORE, SERVICE), &settings).await
}
