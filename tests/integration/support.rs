//! Shared by all tests: stores with a manual clock, start requests, retries and polling.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{DeviceId, DisplayText, StreamId, UserName};
use stream_manager::domain::rules::LimitMode;
use stream_manager::migrate;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::store::dynamodb::codec::{self, Item};
use stream_manager::store::embedded::Embedded;
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{HeartbeatRequest, LeaseStore, Refusal, Result, StoreError};

pub const TABLE: &str = "stream-manager-test";
pub const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 60 };

/// A store under test, its clock, and access to its stored data.
#[derive(Clone)]
pub struct Fixture {
    pub store: Arc<dyn LeaseStore>,
    pub clock: Arc<ManualClock>,
    pub backing: Backing,
}

#[derive(Clone)]
pub enum Backing {
    Memory(Arc<MemoryStore>),
    Embedded(Embedded, Client),
    /// A DynamoDB endpoint outside this process.
    Endpoint(Client),
}

impl Fixture {
    pub async fn memory() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::at(host_now()));
        Self { store: Arc::clone(&store) as _, clock, backing: Backing::Memory(store) }
    }

    pub async fn embedded() -> Self {
        let clock = Arc::new(ManualClock::at(host_now()));
        let engine = Embedded::in_memory(clock.clone()).unwrap();
        let client = client::in_process(&client_settings(), engine.http_client());
        migrate::migrate(&client, TABLE).await.unwrap();
        let store = Arc::new(DynamoStore::new(client.clone(), TABLE));
        Self { store, clock, backing: Backing::Embedded(engine, client) }
    }

    /// The store at `TEST_DYNAMODB_ENDPOINT`, or `None` if the variable is not set. Panics if the endpoint does not respond.
    pub async fn endpoint() -> Option<Self> {
        let endpoint_url = Some(std::env::var("TEST_DYNAMODB_ENDPOINT").ok()?);
        let settings = ClientSettings { endpoint_url, attempt_timeout: Duration::from_secs(5), ..client_settings() };
        let client = client::load(&settings).await.unwrap().client();
        migrate::migrate(&client, TABLE).await.unwrap();
        let store = Arc::new(DynamoStore::new(client.clone(), TABLE));
        let clock = Arc::new(ManualClock::at(host_now()));
        Some(Self { store, clock, backing: Backing::Endpoint(client) })
    }

    pub fn engine(&self) -> &Embedded {
        match &self.backing {
            Backing::Embedded(engine, _) => engine,
            _ => panic!("not the embedded store"),
        }
    }

    pub fn client(&self) -> &Client {
        match &self.backing {
            Backing::Embedded(_, client) | Backing::Endpoint(client) => client,
            Backing::Memory(_) => panic!("the memory store has no client"),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance_s(&self, seconds: i64) {
        self.clock.advance_ms(seconds * 1000);
    }

    /// Deletes the items whose TTL has passed.
    pub async fn sweep(&self, user: &UserName) {
        let now = self.now();
        match &self.backing {
            Backing::Memory(store) => {
                _ = (0..store.shards()).map(|shard| store.sweep_shard(shard, now)).sum::<usize>()
            }
            Backing::Embedded(engine, _) => {
                let engine = engine.clone();
                tokio::task::spawn_blocking(move || engine.sweep()).await.unwrap().unwrap();
            }
            // DynamoDB may take days to delete expired items, so delete them here.
            Backing::Endpoint(_) => {
                for item in self.items(user).await {
                    let Some(ttl) = item.get("ttl").and_then(|ttl| ttl.as_n().ok()) else { continue };
                    if ttl.parse::<i64>().unwrap() * 1000 <= now.epoch_ms() {
                        self.delete(user, item[codec::RECORD].as_s().unwrap()).await;
                    }
                }
            }
        }
    }

    /// All items of a user.
    pub async fn items(&self, user: &UserName) -> Vec<Item> {
        items(self.client(), TABLE, user).await
    }

    pub async fn item(&self, user: &UserName, record: &str) -> Option<Item> {
        let all = self.items(user).await;
        all.into_iter().find(|item| item[codec::RECORD].as_s().is_ok_and(|found| found == record))
    }

    pub async fn put(&self, item: Item) {
        self.client().put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();
    }

    pub async fn delete(&self, user: &UserName, record: &str) {
        let delete = self.client().delete_item().table_name(TABLE);
        let delete = delete.key(codec::USER_NAME, codec::text(user.as_str())).key(codec::RECORD, codec::text(record));
        delete.send().await.unwrap();
    }
}

/// All items of a user in a table.
pub async fn items(client: &Client, table: &str, user: &UserName) -> Vec<Item> {
    let query = client
        .query()
        .table_name(table)
        .consistent_read(true)
        .key_condition_expression("userName = :user")
        .expression_attribute_values(":user", codec::text(user.as_str()));
    query.send().await.unwrap().items.unwrap_or_default()
}

/// The sort key of a stream's item in the table.
pub fn stream_record(id: impl Display) -> String {
    format!("stream#{id}")
}

pub fn client_settings() -> ClientSettings {
    ClientSettings {
        endpoint_url: None,
        region: None,
        connect_timeout: Duration::from_millis(500),
        attempt_timeout: Duration::from_millis(1500),
        operation_timeout: Duration::from_millis(4000),
        max_attempts: 2,
    }
}

/// The host's time in whole seconds. Manual clocks start at this time, because a real TTL uses the host's clock.
pub fn host_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_epoch_ms(since.as_millis() as i64 / 1000 * 1000)
}

/// A user name that no other test uses.
pub fn unique_user() -> UserName {
    user(&format!("user-{}", uuid::Uuid::new_v4()))
}

pub fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

pub fn stream(n: u8) -> StreamId {
    StreamId::random([n; 16])
}

pub fn start(n: u8) -> StartRequest {
    StartRequest {
        stream_id: stream(n),
        fingerprint: None,
        device_id: None,
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        token_limit: None,
        default_limit: StreamLimit::DEFAULT,
        limit_mode: LimitMode::Enforce,
        hard_limit: StreamLimit::HIGHEST,
        rules: Arc::default(),
        terms: TERMS,
    }
}

pub fn on_device(n: u8, device: &str) -> StartRequest {
    StartRequest { device_id: DeviceId::parse(device).ok(), device_name: DisplayText::clean(device), ..start(n) }
}

/// A heartbeat of stream `n`.
pub fn renewal(n: u8) -> HeartbeatRequest {
    HeartbeatRequest { stream_id: stream(n), content_id: None, terms: TERMS }
}

/// An eviction of stream `n`.
pub fn eviction(n: u8) -> EndRequest {
    EndRequest { selection: Selection::Listed(vec![stream(n)]), message: None, terms: TERMS }
}

/// The first step of an erasure.
pub fn erasure() -> EndRequest {
    EndRequest { selection: Selection::Erase, message: None, terms: TERMS }
}

/// Retries on contention, as the limiter does. Panics on any other error.
pub async fn retry_on_contention<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> T {
    for _ in 0..100 {
        match attempt().await {
            Err(StoreError::NotApplied { refusal: Refusal::Contention, .. }) => tokio::task::yield_now().await,
            other => return other.unwrap(),
        }
    }
    panic!("still contention after 100 attempts");
}

/// Polls until `condition` is true. Panics after 30 s.
pub async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polling).await.unwrap();
}
