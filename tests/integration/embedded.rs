//! The embedded store: durability after a kill, and the lock on its file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::Client;
use stream_manager::domain::names::UserName;
use stream_manager::migrate;
use stream_manager::store::dynamodb::{client, codec};
use stream_manager::store::embedded::{Embedded, SyncMode};

use crate::service::{Service, command, http_client, temp_dir};
use crate::support::{client_settings, eventually, items, user};

const TABLE: &str = "user-streams";

/// The stream ids in a user's counter, and the stream ids that have a lease.
async fn members_and_leases(client: &Client, user: &UserName) -> (BTreeSet<String>, BTreeSet<String>) {
    let partition = codec::decode_partition(&items(client, TABLE, user).await).unwrap();
    let members = partition.counter.streams.iter().map(ToString::to_string).collect();
    (members, partition.leases.iter().map(|lease| lease.stream_id.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_every_acknowledged_lease_is_stored() {
    let folder = temp_dir();
    let mut service = Service::start(&mut command(folder.path())).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let address = service.address;
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let acknowledged = Arc::clone(&acknowledged);
            tokio::spawn(async move {
                let http = http_client();
                let streams = format!("http://{address}/v1/users/user-{n}/streams");
                let mut held = BTreeSet::new();
                // Send three starts, then alternate between a stop and a start until the kill.
                let mut unacknowledged_stop = None;
                loop {
                    if held.len() == 3 {
                        let id: String = held.pop_first().unwrap();
                        unacknowledged_stop = Some(id.clone());
                        let Ok(stopped) = http.delete(format!("{streams}/{id}")).send().await else { break };
                        assert_eq!(stopped.status(), 204);
                        unacknowledged_stop = None;
                    } else {
                        let Ok(started) = http.post(&streams).send().await else { break };
                        assert_eq!(started.status(), 201);
                        let Ok(body) = started.json::<serde_json::Value>().await else { break };
                        held.insert(body["streamId"].as_str().unwrap().to_owned());
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                (held, unacknowledged_stop)
            })
        })
        .collect();
    eventually(async || acknowledged.load(Ordering::Relaxed) >= 200).await;
    service.child.kill().await.unwrap();
    let clients = futures_util::future::join_all(clients).await;
    let engine = Embedded::open(&folder.path().join("data/stream-manager.db"), SyncMode::Normal).unwrap();
    let table = client::in_process(&client_settings(), engine.http_client());
    for (n, client) in clients.into_iter().enumerate() {
        let (held, unacknowledged_stop) = client.unwrap();
        let (members, leases) = members_and_leases(&table, &user(&format!("user-{n}"))).await;
        assert_eq!(members, leases, "the counter and the leases list the same streams");
        assert!(members.len() <= 3, "{members:?}");
        assert!(held.is_subset(&members), "{held:?} were acknowledged, {members:?} are stored");
        // The kill leaves the last request without a response, so a stop may not have been applied, and a start may have been.
        let others = members.difference(&held).filter(|id| Some(*id) != unacknowledged_stop.as_ref()).count();
        assert!(others <= 1, "{held:?} {unacknowledged_stop:?} {members:?}");
    }
}

#[tokio::test]
async fn different_paths_to_one_file_share_its_lock() {
    let folder = temp_dir();
    let file = folder.path().join("state.db");
    let _engine = Embedded::open(&file, SyncMode::Normal).unwrap();
    let alias = folder.path().join("alias.db");
    std::os::unix::fs::symlink(&file, &alias).unwrap();
    assert!(Embedded::open(&alias, SyncMode::Normal).is_err(), "in use");
    assert!(
        Embedded::open(&folder.path().join("../").join(folder.path()).join("state.db"), SyncMode::Normal).is_err()
    );
}

#[tokio::test]
async fn the_file_is_unlocked_after_the_last_client_is_dropped() {
    let folder = temp_dir();
    let file = folder.path().join("deeper/state.db");
    for _ in 0..3 {
        let engine = Embedded::open(&file, SyncMode::Full).unwrap();
        let client = client::in_process(&client_settings(), engine.http_client());
        migrate::migrate(&client, TABLE).await.unwrap();
        assert!(Embedded::open(&file, SyncMode::Normal).is_err(), "in use");
        drop((engine, client));
        // After the last client is dropped, the engine's thread may still be running and hold the lock.
        let lock = folder.path().join("deeper/state.db.lock");
        eventually(async || std::fs::File::open(&lock).unwrap().try_lock().is_ok()).await;
    }
}
