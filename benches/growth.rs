//! Measures how the time of an operation grows with the number of users, of leases per user, and of expired leases in the user's
//! partition. Prints the median time of each operation and, in parentheses, its ratio to the first row. Also measures the memory
//! per lease and the sweep pauses of the memory store, and the time to count all live streams, during which heartbeats are slower.
//! Uses one thread and no HTTP.
//! Run it with `cargo bench --bench growth`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stream_manager::clock::ManualClock;
use stream_manager::domain::admission::{StartOutcome, StartRequest};
use stream_manager::domain::lease::{Lease, StreamLimit};
use stream_manager::domain::names::{DeviceId, UserName};
use stream_manager::store::dynamodb::client::Client;
use stream_manager::store::dynamodb::{DynamoStore, codec};
use stream_manager::store::embedded::Embedded;
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{CountLiveStreams, HeartbeatRequest, LeaseStore, StartHint, StreamState};
use support::Spread;
use support::fixtures::{NOW, TABLE, TERMS, client_with_table, start_request, stream_id, user};

const MILLION: u64 = 1_000_000;
const MAX_LIMIT: u64 = 50;
/// Number of live streams in the section `live_streams`.
const STREAMS: u64 = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // This section must run first. Later, the store would reuse memory that other sections have freed, which is not counted.
        memory_and_sweep().await;
        users().await;
        leases("leases per user, memory store", 2000, async || Arc::new(MemoryStore::new()) as _).await;
        leases("leases per user, embedded store", 100, async || {
            Arc::new(DynamoStore::new(embedded_client().await, TABLE)) as _
        })
        .await;
        expired_leases().await;
        live_streams().await;
    });
}

async fn memory_and_sweep() {
    println!("memory store, a million active leases with device ids and content ids of 9 bytes");
    for per_user in [50, 3, 1] {
        let (store, before) = (MemoryStore::new(), resident_bytes());
        for n in 0..MILLION / per_user * per_user {
            let device_id = DeviceId::parse(&format!("device-{:02}", n % per_user)).ok();
            start(&store, &user(n / per_user), &StartRequest { device_id, ..request(n, MAX_LIMIT) }).await;
        }
        let bytes_per_lease = (resident_bytes() - before) / store.size().1 as u64;
        println!("{per_user:>3} leases per user: {bytes_per_lease} bytes per lease");
        if per_user == 1 {
            sweep(&store);
        } else {
            // Leak the store, so that the next store does not reuse its memory.
            std::mem::forget(store);
        }
    }
}

/// Measures how long requests have to wait while their shard is swept.
fn sweep(store: &MemoryStore) {
    for (name, now) in [("none expired", NOW), ("all expired", NOW.plus_s(100_000))] {
        let pauses: Vec<f64> = (0..store.shards())
            .map(|shard| {
                let start = Instant::now();
                store.sweep_shard(shard, now);
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        let (total_ms, pauses) = (pauses.iter().sum::<f64>() / 1e3, Spread::of(pauses));
        println!(
            "sweep, {name:12}: pauses of {:.0} us (median) and {:.0} us (max), {total_ms:.0} ms in total",
            pauses.median, pauses.max
        );
    }
    assert_eq!(store.size(), (0, 0));
}

async fn users() {
    let mut table = Table::new("users, memory store", OPERATIONS);
    for users in [1, 1000, MILLION] {
        let store = MemoryStore::new();
        for n in 0..users {
            start(&store, &user(n), &request(0, MAX_LIMIT)).await;
        }
        // The sample is spread over all users, so that its leases are not in the CPU cache.
        let sample: Vec<UserName> = (0..2000).map(|n| user(n * 7919 % users)).collect();
        table.row(users, &measure(&store, &sample, 1).await);
    }
}

async fn leases(title: &str, users: u64, new_store: impl AsyncFn() -> Arc<dyn LeaseStore>) {
    let mut table = Table::new(title, OPERATIONS);
    for leases in [1, 3, 10, 50] {
        let store = new_store().await;
        let users: Vec<UserName> = (0..users).map(user).collect();
        for user in &users {
            for n in (0..leases).rev() {
                start(&*store, user, &request(n, MAX_LIMIT)).await;
            }
        }
        table.row(leases, &measure(&*store, &users, leases).await);
    }
}

const OPERATIONS: [&str; 5] = ["start", "heartbeat", "list", "stop", "denied start"];

/// Returns the median time of each operation. Each user has `leases` leases, including stream 0. The limit is the same number, so
/// one more start is denied.
async fn measure(store: &dyn LeaseStore, users: &[UserName], leases: u64) -> [Duration; 5] {
    let mut times = [const { Vec::new() }; 5];
    for user in users {
        let denied = async {
            let outcome = store.start(user, &request(MILLION, leases), StartHint::ReadFirst, NOW).await.unwrap();
            assert!(matches!(outcome, StartOutcome::Denied(_)), "{outcome:?}");
        };
        times[4].push(timed(denied).await);
        times[1].push(timed(heartbeat(store, user, 0)).await);
        times[2].push(timed(list(store, user, leases)).await);
        times[3].push(timed(stop(store, user, 0)).await);
        times[0].push(timed(start(store, user, &request(0, leases))).await);
    }
    times.map(median)
}

/// Measures the effect of expired leases that TTL has not deleted yet, on a user without live leases.
async fn expired_leases() {
    let operations = ["start", "heartbeat", "list", "stop", "start of a device"];
    let mut table = Table::new("expired leases in the partition, embedded store", operations);
    for expired in [0, 10, 100, 1000] {
        let (client, user) = (embedded_client().await, user(0));
        for n in 0..expired {
            let lease = request(10_000 + n, MAX_LIMIT).lease(NOW.plus_ms(-100_000));
            let lease = Lease { expires_at: NOW.plus_ms(-1000), ..lease };
            let put = client.put_item().table_name(TABLE).set_item(Some(codec::encode_lease(&user, &lease)));
            put.send().await.unwrap();
        }
        let store = DynamoStore::new(client, TABLE);
        let mut times = [const { Vec::new() }; 5];
        for n in 0..50 {
            times[0].push(timed(start(&store, &user, &request(n, MAX_LIMIT))).await);
            times[1].push(timed(heartbeat(&store, &user, n)).await);
            times[2].push(timed(list(&store, &user, 1)).await);
            times[3].push(timed(stop(&store, &user, n)).await);
            let device = StartRequest { device_id: DeviceId::parse("device-99").ok(), ..request(n, MAX_LIMIT) };
            times[4].push(timed(start(&store, &user, &device)).await);
            stop(&store, &user, n).await;
        }
        table.row(expired, &times.map(median));
    }
}

async fn live_streams() {
    println!("\ncount of {STREAMS} live streams, one per user");
    let memory = Arc::new(MemoryStore::new());
    count_live_streams("memory", &*memory, Arc::clone(&memory) as _).await;
    let embedded = Arc::new(DynamoStore::new(embedded_client().await, TABLE));
    count_live_streams("embedded", &*embedded, Arc::clone(&embedded) as _).await;
}

/// Measures the duration of a count, and the durations of heartbeats during counts.
async fn count_live_streams(name: &str, store: &dyn LeaseStore, counted: Arc<dyn CountLiveStreams>) {
    for n in 0..STREAMS {
        start(store, &user(n), &request(0, MAX_LIMIT)).await;
    }
    let mut counts = Vec::new();
    for _ in 0..5 {
        let count = async { assert_eq!(counted.count_live_streams(NOW).await.unwrap(), STREAMS) };
        counts.push(timed(count).await);
    }
    let alone = heartbeats(store).await;
    let counting = tokio::spawn(async move {
        loop {
            counted.count_live_streams(NOW).await.unwrap();
        }
    });
    let meanwhile = heartbeats(store).await;
    counting.abort();
    println!(
        "{name:8}: {:.1?}; heartbeats {:.0} us (median) and {:.0} us (max), during a count {:.0} us and {:.0} us",
        median(counts),
        alone.median,
        alone.max,
        meanwhile.median,
        meanwhile.max
    );
}

/// The durations of heartbeats in microseconds, including the time until the runtime executes them.
async fn heartbeats(store: &dyn LeaseStore) -> Spread {
    let mut times = Vec::new();
    for n in 0..1000 {
        let heartbeat = async {
            tokio::task::yield_now().await;
            heartbeat(store, &user(n * 7919 % STREAMS), 0).await;
        };
        times.push(timed(heartbeat).await.as_secs_f64() * 1e6);
    }
    Spread::of(times)
}

async fn start(store: &dyn LeaseStore, user: &UserName, request: &StartRequest) {
    let outcome = store.start(user, request, StartHint::Optimistic, NOW).await.unwrap();
    assert!(matches!(outcome, StartOutcome::Started(_)), "{outcome:?}");
}

async fn heartbeat(store: &dyn LeaseStore, user: &UserName, n: u64) {
    let request = HeartbeatRequest { stream_id: stream_id(n), content_id: None, terms: TERMS };
    let heartbeat = store.heartbeat(user, &request, NOW.plus_ms(1)).await.unwrap();
    assert!(matches!(heartbeat.state, StreamState::Live(_)), "{heartbeat:?}");
}

async fn list(store: &dyn LeaseStore, user: &UserName, expected: u64) {
    assert_eq!(store.streams(user, NOW).await.unwrap().live.len() as u64, expected);
}

async fn stop(store: &dyn LeaseStore, user: &UserName, n: u64) {
    store.stop(user, stream_id(n)).await.unwrap();
}

fn request(n: u64, limit: u64) -> StartRequest {
    StartRequest { default_limit: StreamLimit::new(limit).unwrap(), ..start_request(n) }
}

async fn embedded_client() -> Client {
    client_with_table(Embedded::in_memory(Arc::new(ManualClock::at(NOW))).unwrap().http_client()).await
}

async fn timed(operation: impl Future<Output = ()>) -> Duration {
    let start = Instant::now();
    operation.await;
    start.elapsed()
}

/// The median, which other processes on the machine affect less than the mean.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The resident memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

struct Table(Option<[Duration; 5]>);

impl Table {
    fn new(title: &str, operations: [&str; 5]) -> Self {
        println!("\n{title}: microseconds (ratio to the first row)");
        println!("{:>9} {}", "", operations.map(|operation| format!("{operation:>20}")).concat());
        Self(None)
    }

    fn row(&mut self, size: u64, times: &[Duration; 5]) {
        let first = self.0.get_or_insert(*times);
        let cells = times.iter().zip(first).map(|(time, first)| {
            format!("{:>13.2} ({:>4.1})", time.as_secs_f64() * 1e6, time.as_secs_f64() / first.as_secs_f64())
        });
        println!("{size:>9} {}", cells.collect::<String>());
    }
}
