//! Mixed requests a second through HTTP on loopback, the client included: 64 connections that start, send four
//! heartbeats, count and stop. Prints each store's rate, and its share of the memory store's in the same run.
//! `cargo bench --bench requests`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use service::{Client, Service};

const CONNECTIONS: u64 = 64;
const RUN: Duration = Duration::from_secs(8);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let memory = measure(&[("STORE__KIND", "memory")]).await;
        println!("memory           {memory:>7.0} requests/s");
        let normal = measure(&[("STORE__KIND", "embedded"), ("EMBEDDED__SYNC", "normal")]).await;
        println!("embedded, normal {normal:>7.0} requests/s, {:.2} of memory", normal / memory);
        let full = measure(&[("STORE__KIND", "embedded"), ("EMBEDDED__SYNC", "full")]).await;
        println!("embedded, full   {full:>7.0} requests/s, {:.2} of memory", full / memory);
    });
}

/// Requests a second of the real binary with these settings.
async fn measure(settings: &[(&str, &str)]) -> f64 {
    let service = Service::start(settings).await;
    let begun = Instant::now();
    let clients = (0..CONNECTIONS).map(|n| tokio::spawn(play(service.address, n, begun + RUN)));
    let clients: Vec<_> = clients.collect();
    let mut requests = 0;
    for client in clients {
        requests += client.await.expect("a client");
    }
    requests as f64 / begun.elapsed().as_secs_f64()
}

/// One player after the other on one connection, until the time is up.
async fn play(address: SocketAddr, n: u64, until: Instant) -> u64 {
    let mut client = Client::connect(address).await;
    let streams = format!("/v1/users/user-{n}/streams");
    let mut requests = 0;
    while Instant::now() < until {
        let stream = client.started(&streams).await;
        for _ in 0..4 {
            assert_eq!(client.call("POST", &format!("{stream}/heartbeat")).await.0, 200);
        }
        assert_eq!(client.call("GET", &format!("{streams}/count")).await.0, 200);
        assert_eq!(client.call("DELETE", &stream).await.0, 204);
        requests += 7;
    }
    requests
}
