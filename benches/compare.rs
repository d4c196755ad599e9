//! Compares the memory store over HTTP with an empty poem-openapi endpoint on poem's server, a bare hyper server, and axum with
//! scripts in Redis. The client uses 64 keep-alive connections in a closed loop. Server and client have one core each. Redis
//! runs on the server's core, except in the contender `heartbeat, Redis on client's core`. Each round measures every contender once.
//! Each ratio is calculated for every round, and the output shows the median, minimum and maximum of all rounds.
//! Requires `redis-server`. Run it with `just bench`, which builds the peers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::time::Duration;

use support::Series;
use support::closed_loop::{User, Workload, requests_per_s};
use support::process::{CLIENT_CORE, SERVER_CORE, SERVICE, Server, pin_self, pinned};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const RUN: Duration = Duration::from_secs(2);

fn main() {
    pin_self(CLIENT_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let service = Server::service(pinned(SERVER_CORE, SERVICE), &[("STORE__KIND", "memory")]).await;
    let empty = Server::peer("empty_endpoint", SERVER_CORE, &[]).await;
    let bare = Server::peer("bare_hyper", SERVER_CORE, &[]).await;
    let (redis, other_redis) = (Server::redis(SERVER_CORE).await, Server::redis(CLIENT_CORE).await);
    let axum = Server::peer("axum_redis", SERVER_CORE, &[&format!("redis://{}", redis.address)]).await;
    let other_axum = Server::peer("axum_redis", SERVER_CORE, &[&format!("redis://{}", other_redis.address)]).await;
    assert_eq!(heartbeat_bytes(&service).await, heartbeat_bytes(&empty).await, "update BODY_BYTES in the peer");
    let contenders = [
        ("empty poem-openapi endpoint", &empty, Workload::Heartbeat),
        ("heartbeat", &service, Workload::Heartbeat),
        ("start and stop", &service, Workload::StartAndStop),
        ("count", &service, Workload::Count),
        ("bare hyper server", &bare, Workload::Heartbeat),
        ("heartbeat, axum and Redis", &axum, Workload::Heartbeat),
        ("heartbeat, Redis on client's core", &other_axum, Workload::Heartbeat),
        ("start and stop, axum and Redis", &axum, Workload::StartAndStop),
        ("count, axum and Redis", &axum, Workload::Count),
    ];
    let mut results = contenders.map(|_| Series::default());
    for _ in 0..=ROUNDS {
        for ((_, server, workload), result) in contenders.iter().zip(&mut results) {
            let rate = requests_per_s(server.address, 0..CONNECTIONS, *workload, RUN);
            result.measure(&[server.id()], RUN, rate).await;
        }
    }
    println!("{:34} {:>10} {:>20} {:>16}", "", "requests/s", "over empty endpoint", "CPU us/request");
    for ((name, ..), result) in contenders.iter().zip(&results) {
        let (rate, cpu) = (result.rates().median, result.cpu_us().median);
        println!("{name:34} {rate:>10.0} {:>20} {cpu:>16.1}", result.rate_ratio(&results[0]));
    }
    for (service, axum) in [(1, 5), (1, 6), (2, 7), (3, 8)] {
        let ratio = results[service].rate_ratio(&results[axum]);
        println!("{} / {}: {ratio}", contenders[service].0, contenders[axum].0);
    }
}

/// The body length of a heartbeat response.
async fn heartbeat_bytes(server: &Server) -> usize {
    let mut user = User::connect(server.address, 0).await;
    user.connection.call(&user.heartbeat, 200).await.len()
}
