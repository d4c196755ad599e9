//! How many bytes the memory store takes for a live lease, at a million of them. `cargo bench --bench memory`

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark prints and may stop by panicking")]

use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::lease::{LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{Label, StreamId, UserName};
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{LeaseStore, StartHint};

const LEASES: u64 = 1_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    println!("{LEASES} live leases, with a device id of 9 bytes and a content id of 9");
    for per_user in [1, 3, 50] {
        let before = resident_bytes();
        let store = MemoryStore::new();
        runtime.block_on(fill(&store, per_user));
        let (users, leases) = store.size();
        assert_eq!(leases as u64, LEASES - LEASES % per_user);
        let bytes = resident_bytes().saturating_sub(before);
        println!("{per_user:>3} a user: {users:>8} users, {:>4} bytes a lease", bytes / leases as u64);
        // Kept, so that the next round cannot live in what this one gave back.
        std::mem::forget(store);
    }
}

async fn fill(store: &MemoryStore, per_user: u64) {
    let now = Timestamp::from_epoch_ms(1_790_000_000_000);
    for user in 0..LEASES / per_user {
        let name = UserName::parse(&format!("user-{user:09}")).expect("a name");
        for n in 0..per_user {
            let id = u128::from(user * per_user + n);
            let request = StartRequest {
                stream_id: StreamId::random(id.to_le_bytes()),
                fingerprint: None,
                device_id: Label::parse(&format!("device-{n:02}")).ok(),
                device_name: None,
                content_id: Label::parse("movie-007").ok(),
                replaces: Vec::new(),
                at_limit: AtLimit::Reject,
                token_limit: None,
                default_limit: StreamLimit::new(50).expect("a limit"),
                terms: LeaseTerms { duration_s: 90, retention_s: 3600 },
            };
            store.start(&name, &request, StartHint::Optimistic, now).await.expect("a start");
        }
    }
}

/// What the kernel says this process occupies.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}
