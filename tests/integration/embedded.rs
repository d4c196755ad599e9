//! The embedded store across kills: what was acknowledged is there, and counters and leases agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::Client;
use stream_manager::domain::names::UserName;
use stream_manager::migrate;
use stream_manager::store::dynamodb::{client, codec};
use stream_manager::store::embedded::{Embedded, SyncMode};

use crate::process::{Service, command};
use crate::support::client_settings;

/// What one user's items say: members, and streams with a lease.
async fn stored(client: &Client, user: &UserName) -> (BTreeSet<String>, BTreeSet<String>) {
    let query = client.query().table_name("user-streams").key_condition_expression("userName = :user");
    let query = query.expression_attribute_values(":user", codec::text(user.as_str()));
    let items = query.send().await.expect("a query").items.unwrap_or_default();
    let partition = codec::decode_partition(&items).expect("items as written");
    let members = partition.counter.streams.iter().map(ToString::to_string).collect();
    (members, partition.leases.iter().map(|lease| lease.stream_id.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_under_load_every_acknowledged_lease_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Service::start(&mut command(folder.path())).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let address = service.address;
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let acknowledged = Arc::clone(&acknowledged);
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                let streams = format!("http://{address}/v1/users/user-{n}/streams");
                let mut held = BTreeSet::new();
                // Until the kill: three starts, then a stop and a start in turn.
                let mut in_doubt = None;
                loop {
                    if held.len() == 3 {
                        let id: String = held.pop_first().expect("three");
                        in_doubt = Some(id.clone());
                        let Ok(stopped) = http.delete(format!("{streams}/{id}")).send().await else { break };
                        assert_eq!(stopped.status(), 204);
                        in_doubt = None;
                    } else {
                        let Ok(started) = http.post(&streams).send().await else { break };
                        assert_eq!(started.status(), 201);
                        let Ok(body) = started.json::<serde_json::Value>().await else { break };
                        held.insert(body["streamId"].as_str().expect("an id").to_owned());
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                (held, in_doubt)
            })
        })
        .collect();
    while acknowledged.load(Ordering::Relaxed) < 200 {
        tokio::task::yield_now().await;
    }
    service.child.kill().await.expect("a kill");
    let clients = futures_util::future::join_all(clients).await;
    let engine =
        Embedded::open(&folder.path().join("data/stream-manager.db"), SyncMode::Normal).expect("no lock is left");
    let table = client::in_process(&client_settings(), engine.http_client());
    for (n, client) in clients.into_iter().enumerate() {
        let (held, in_doubt) = client.expect("a client");
        let user = UserName::parse(&format!("user-{n}")).expect("a name");
        let (members, leases) = stored(&table, &user).await;
        assert_eq!(members, leases, "counter and leases agree");
        assert!(members.len() <= 3, "{members:?}");
        assert!(held.is_subset(&members), "{held:?} were acknowledged, {members:?} are stored");
        // Beside those there can be what was in doubt: one stop or one start whose answer was lost.
        let others = members.difference(&held).filter(|id| Some(*id) != in_doubt.as_ref()).count();
        assert!(others <= 1, "{held:?} {in_doubt:?} {members:?}");
    }
}

#[tokio::test]
async fn one_file_has_one_lock_however_its_path_is_spelt() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state.db");
    let _engine = Embedded::open(&file, SyncMode::Normal).expect("free");
    let alias = folder.path().join("alias.db");
    std::os::unix::fs::symlink(&file, &alias).expect("a link");
    assert!(Embedded::open(&alias, SyncMode::Normal).is_err(), "in use");
    assert!(
        Embedded::open(&folder.path().join("../").join(folder.path()).join("state.db"), SyncMode::Normal).is_err()
    );
}

#[tokio::test]
async fn an_engine_is_free_again_once_its_last_client_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("deeper/state.db");
    for _ in 0..3 {
        let engine = Embedded::open(&file, SyncMode::Full).expect("free");
        let client = client::in_process(&client_settings(), engine.http_client());
        migrate::migrate(&client, "user-streams").await.expect("a table");
        assert!(Embedded::open(&file, SyncMode::Normal).is_err(), "in use");
        drop((engine, client));
        // The thread ends when it sees that nobody is left.
        while std::fs::File::open(folder.path().join("deeper/state.db.lock")).expect("a lock").try_lock().is_err() {
            tokio::task::yield_now().await;
        }
    }
}
