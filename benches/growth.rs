//! What a verb costs as there is more of something: users, leases of the user who asks, expired leases in the user's partition.
//! Prints the median time of a verb, and how often the smallest's that is. One thread, no HTTP. `cargo bench --bench growth`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use stream_manager::clock::ManualClock;
use stream_manager::domain::admission::{AtLimit, StartOutcome, StartRequest};
use stream_manager::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{Label, StreamId, UserName};
use stream_manager::migrate;
use stream_manager::store::dynamodb::client::{self, Client, ClientSettings};
use stream_manager::store::dynamodb::{DynamoStore, codec};
use stream_manager::store::embedded::Embedded;
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{LeaseStore, StartHint, StoppedBy, StreamState};

const NOW: Timestamp = Timestamp::from_epoch_ms(1_790_000_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, retention_s: 3600 };
const TABLE: &str = "user-streams";
const VERBS: [&str; 5] = ["start", "heartbeat", "list", "stop", "start, refused"];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        users().await;
        leases("leases a user, memory", 2000, async || Arc::new(MemoryStore::new()) as _).await;
        leases("leases a user, embedded", 100, async || Arc::new(DynamoStore::new(table().await, TABLE)) as _).await;
        expired_leases().await;
        sweep().await;
    });
}

async fn users() {
    heading("users, memory", &VERBS);
    let mut smallest = None;
    for users in [1, 1000, 1_000_000] {
        let store = MemoryStore::new();
        for n in 0..users {
            admit(&store, &user(n), 0, 50).await;
        }
        // Spread over all of them, so that no lease is in a cache because it was just asked for.
        let asked: Vec<UserName> = (0..2000).map(|n| user(n * 7919 % users)).collect();
        row(users, &verbs(&store, &asked, 0, 50).await, &mut smallest);
    }
}

async fn leases(what: &str, calls: u64, store: impl AsyncFn() -> Arc<dyn LeaseStore>) {
    heading(what, &VERBS);
    let mut smallest = None;
    for leases in [1, 3, 10, 50] {
        let store = store().await;
        let asked: Vec<UserName> = (0..calls).map(user).collect();
        for user in &asked {
            for n in 1..leases {
                admit(&*store, user, n, 50).await;
            }
            admit(&*store, user, 0, 50).await;
        }
        // One of them stops first, so that there is room for the one that starts.
        row(leases, &verbs(&*store, &asked, leases - 1, leases).await, &mut smallest);
    }
}

/// One user's partition with expired leases that TTL has not yet deleted, and no members.
async fn expired_leases() {
    let verbs = ["start", "heartbeat", "list", "stop", "start of a device"];
    heading("expired leases in the partition, embedded", &verbs);
    let mut smallest = None;
    for expired in [0, 10, 100, 1000] {
        let client = table().await;
        let name = user(0);
        for n in 0..expired {
            let id = stream(10_000 + n);
            let lease = Lease { expires_at: NOW.plus_ms(-1000), ..request(id, 50).lease(NOW.plus_ms(-100_000)) };
            let put = client.put_item().table_name(TABLE).set_item(Some(codec::encode_lease(&name, &lease)));
            put.send().await.expect("a put");
        }
        let store = DynamoStore::new(client, TABLE);
        let calls = 50;
        let mut took = [const { Vec::new() }; 5];
        for n in 0..calls {
            took[0].push(timed(admit(&store, &name, n, 50)).await);
            took[1].push(timed(heartbeat(&store, &name, n)).await);
            took[2].push(
                timed(async { assert_eq!(store.streams(&name, NOW).await.expect("a list").live.len(), 1) }).await,
            );
            took[3].push(timed(stop(&store, &name, n)).await);
            let device = StartRequest { device_id: Label::parse("device-99").ok(), ..request(stream(n), 50) };
            took[4].push(
                timed(async {
                    let start = store.start(&name, &device, StartHint::Optimistic, NOW).await.expect("a start");
                    assert!(matches!(start, StartOutcome::Started(_)), "{start:?}");
                })
                .await,
            );
            stop(&store, &name, n).await;
        }
        row(expired, &took.map(median), &mut smallest);
    }
}

/// The longest that users of one shard wait for its sweep, a million leases in all.
async fn sweep() {
    println!("\nsweep of the memory store, a million leases of as many users");
    let store = MemoryStore::new();
    for n in 0..1_000_000 {
        admit(&store, &user(n), 0, 50).await;
    }
    for (what, now) in [("none expired", NOW), ("all expired", NOW.plus_s(100_000))] {
        let mut pauses: Vec<Duration> = Vec::with_capacity(store.shards());
        for shard in 0..store.shards() {
            let begun = Instant::now();
            store.sweep_shard(shard, now);
            pauses.push(begun.elapsed());
        }
        pauses.sort();
        let us = |at: usize| pauses[at].as_secs_f64() * 1e6;
        println!(
            "{what:14} median {:>6.0} us, longest {:>6.0} us, all {:>6.0} ms",
            us(pauses.len() / 2),
            us(pauses.len() - 1),
            pauses.iter().sum::<Duration>().as_secs_f64() * 1e3
        );
    }
    assert_eq!(store.size(), (0, 0));
}

/// Time of each verb. Each of the `asked` has `held` streams and one more, stream 0, and room for nothing else.
async fn verbs(store: &dyn LeaseStore, asked: &[UserName], held: u64, limit: u64) -> [Duration; 5] {
    let mut took = [const { Vec::new() }; 5];
    let limit = if held == 0 { 1 } else { limit };
    for user in asked {
        let refused = request(stream(1_000_000), limit);
        took[4].push(
            timed(async {
                let start = store.start(user, &refused, StartHint::ReadFirst, NOW).await.expect("a start");
                assert!(matches!(start, StartOutcome::Denied(_)), "{start:?}");
            })
            .await,
        );
        took[1].push(timed(heartbeat(store, user, 0)).await);
        took[2].push(
            timed(async {
                assert_eq!(store.streams(user, NOW).await.expect("a list").live.len() as u64, held + 1);
            })
            .await,
        );
        took[3].push(timed(stop(store, user, 0)).await);
        took[0].push(timed(admit(store, user, 0, limit)).await);
    }
    took.map(median)
}

/// Not the mean, which others on the machine would have a part in.
fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

async fn timed(verb: impl Future<Output = ()>) -> Duration {
    let begun = Instant::now();
    verb.await;
    begun.elapsed()
}

async fn admit(store: &dyn LeaseStore, user: &UserName, n: u64, limit: u64) {
    let start = store.start(user, &request(stream(n), limit), StartHint::Optimistic, NOW).await.expect("a start");
    assert!(matches!(start, StartOutcome::Started(_)), "{start:?}");
}

async fn heartbeat(store: &dyn LeaseStore, user: &UserName, n: u64) {
    let beat = store.heartbeat(user, stream(n), TERMS, NOW.plus_ms(1)).await.expect("a heartbeat");
    assert!(matches!(beat.state, StreamState::Live(_)), "{beat:?}");
}

async fn stop(store: &dyn LeaseStore, user: &UserName, n: u64) {
    store.stop(user, stream(n), StoppedBy::Player, TERMS, NOW).await.expect("a stop");
}

async fn table() -> Client {
    let settings = ClientSettings {
        endpoint_url: None,
        region: None,
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(10),
        max_attempts: 1,
    };
    let engine = Embedded::in_memory(Arc::new(ManualClock::at(NOW))).expect("an engine");
    let client = client::in_process(&settings, engine.http_client());
    migrate::migrate(&client, TABLE).await.expect("a table");
    client
}

fn request(stream_id: StreamId, limit: u64) -> StartRequest {
    StartRequest {
        stream_id,
        fingerprint: None,
        device_id: None,
        device_name: None,
        content_id: Label::parse("movie-007").ok(),
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        token_limit: None,
        default_limit: StreamLimit::new(limit).expect("a limit"),
        terms: TERMS,
    }
}

fn user(n: u64) -> UserName {
    UserName::parse(&format!("user-{n:09}")).expect("a name")
}

fn stream(n: u64) -> StreamId {
    StreamId::random(u128::from(n + 1).to_le_bytes())
}

fn heading(what: &str, verbs: &[&str; 5]) {
    println!("\n{what}: microseconds, and how often the first row's");
    println!("{:>9} {}", "", verbs.map(|verb| format!("{verb:>20}")).concat());
}

fn row(of: u64, took: &[Duration; 5], smallest: &mut Option<[Duration; 5]>) {
    let smallest = smallest.get_or_insert(*took);
    let cells = took.iter().zip(smallest.iter()).map(|(took, smallest)| {
        format!("{:>13.2} ({:>4.1})", took.as_secs_f64() * 1e6, took.as_secs_f64() / smallest.as_secs_f64())
    });
    println!("{of:>9} {}", cells.collect::<String>());
}
