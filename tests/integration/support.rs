//! What the tests stand on: stores with a clock that stands still, a server on a port of its own, an SDK transport
//! that counts and fails on demand.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use futures_util::stream::{self, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::lease::{LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{Label, StreamId, UserName};
use stream_manager::migrate;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::store::dynamodb::codec::{self, Item};
use stream_manager::store::embedded::Embedded;
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{LeaseStore, Refusal, Result, StoreError};

pub const TABLE: &str = "stream-manager-test";
pub const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, retention_s: 60 };

/// A store under test, and the hands that tests need on it.
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
    /// Whatever speaks DynamoDB's protocol at an address.
    Endpoint(Client),
}

impl Fixture {
    pub async fn memory() -> Option<Self> {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::at(host_now()));
        Some(Self { store: Arc::clone(&store) as _, clock, backing: Backing::Memory(store) })
    }

    pub async fn embedded() -> Option<Self> {
        let clock = Arc::new(ManualClock::at(host_now()));
        let engine = Embedded::in_memory(clock.clone()).expect("an engine in memory");
        let client = client::in_process(&client_settings(), engine.http_client());
        migrate::migrate(&client, TABLE).await.expect("a table");
        let store = Arc::new(DynamoStore::new(client.clone(), TABLE));
        Some(Self { store, clock, backing: Backing::Embedded(engine, client) })
    }

    /// None without `TEST_DYNAMODB_ENDPOINT`; with it, an endpoint that does not answer fails the test.
    pub async fn endpoint() -> Option<Self> {
        let endpoint_url = Some(std::env::var("TEST_DYNAMODB_ENDPOINT").ok()?);
        let settings = ClientSettings { endpoint_url, attempt_timeout: Duration::from_secs(5), ..client_settings() };
        let client = client::connect(&settings).await.expect("region and credentials for TEST_DYNAMODB_ENDPOINT");
        migrate::migrate(&client, TABLE).await.expect("TEST_DYNAMODB_ENDPOINT answers");
        let store = Arc::new(DynamoStore::new(client.clone(), TABLE));
        let clock = Arc::new(ManualClock::at(host_now()));
        Some(Self { store, clock, backing: Backing::Endpoint(client) })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance_s(&self, seconds: i64) {
        self.clock.advance_ms(seconds * 1000);
    }

    /// Deletes what TTL lets go now.
    pub async fn sweep(&self, user: &UserName) {
        let now = self.now();
        match &self.backing {
            Backing::Memory(store) => {
                _ = (0..store.shards()).map(|shard| store.sweep_shard(shard, now)).sum::<usize>()
            }
            Backing::Embedded(engine, _) => {
                let engine = engine.clone();
                tokio::task::spawn_blocking(move || engine.sweep()).await.expect("a sweep").expect("a sweep");
            }
            // A real TTL takes its time; deleting the same items is what it does to the service.
            Backing::Endpoint(client) => {
                for item in items(client, user).await {
                    let Some(ttl) = item.get("ttl").and_then(|ttl| ttl.as_n().ok()) else { continue };
                    if ttl.parse::<i64>().expect("a number") * 1000 <= now.epoch_ms() {
                        let key = ["userName", "record"].map(|name| (name.to_owned(), item[name].clone()));
                        let delete = client.delete_item().table_name(TABLE).set_key(Some(key.into()));
                        delete.send().await.expect("a delete");
                    }
                }
            }
        }
    }
}

/// Every item of a user.
pub async fn items(client: &Client, user: &UserName) -> Vec<Item> {
    let query = client
        .query()
        .table_name(TABLE)
        .consistent_read(true)
        .key_condition_expression("userName = :user")
        .expression_attribute_values(":user", codec::text(user.as_str()));
    query.send().await.expect("a query").items.unwrap_or_default()
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

/// Real TTLs compare with the host's clock, so a clock that is moved by hand starts there.
pub fn host_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_epoch_ms(since.as_millis() as i64 / 1000 * 1000)
}

/// A user that no other test has.
pub fn someone() -> UserName {
    user(&format!("user-{}", uuid::Uuid::new_v4()))
}

pub fn user(name: &str) -> UserName {
    UserName::parse(name).expect("a name")
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
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        token_limit: None,
        default_limit: StreamLimit::DEFAULT,
        terms: TERMS,
    }
}

pub fn on_device(n: u8, device: &str) -> StartRequest {
    StartRequest { device_id: Label::parse(device).ok(), device_name: Label::parse(device).ok(), ..start(n) }
}

/// Tries again on contention, as the limiter does.
pub async fn persistently<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> T {
    for _ in 0..100 {
        match attempt().await {
            Err(StoreError::NotApplied { refusal: Refusal::Contention, .. }) => tokio::task::yield_now().await,
            other => return other.expect("the store works"),
        }
    }
    panic!("contention without end");
}

/// What an SDK transport does with one request, by operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Never arrives.
    Lost,
    /// Applied, and the answer never comes back.
    AnswerLost,
    /// Answered with this status and error type, not applied.
    Refused(u16, &'static str),
    /// Applied, and answered 500.
    AppliedThen500,
    /// Neither applied nor answered.
    Hangs,
    /// Applied, and the answer's body stops in its middle.
    Stalls,
}

/// One request as it passed by: the operation, and the answer's body.
#[derive(Clone, Debug)]
pub struct Passed {
    pub operation: String,
    pub answer: serde_json::Value,
}

/// An SDK transport before another one, that counts and does harm.
#[derive(Clone, Debug)]
pub struct Tap {
    inner: SharedHttpClient,
    pub passed: Arc<Mutex<Vec<Passed>>>,
    /// And of which operation; `None` is all of them.
    fault: Arc<Mutex<(Fault, Option<&'static str>)>>,
    refused: Arc<AtomicUsize>,
}

impl Tap {
    pub fn before(inner: SharedHttpClient) -> Self {
        Self {
            inner,
            passed: Arc::default(),
            fault: Arc::new(Mutex::new((Fault::None, None))),
            refused: Arc::default(),
        }
    }

    /// A store on the engine behind this tap, with an attempt timeout short enough for tests.
    pub fn store(&self, max_attempts: u32) -> DynamoStore {
        let settings = ClientSettings {
            attempt_timeout: Duration::from_millis(400),
            operation_timeout: Duration::from_millis(1600),
            max_attempts,
            ..client_settings()
        };
        DynamoStore::new(client::in_process(&settings, SharedHttpClient::new(self.clone())), TABLE)
    }

    /// The same, which waits `attempt_timeout` for its only attempt.
    pub fn patient_store(&self, attempt_timeout: Duration) -> DynamoStore {
        let settings = ClientSettings { attempt_timeout, max_attempts: 1, ..client_settings() };
        DynamoStore::new(client::in_process(&settings, SharedHttpClient::new(self.clone())), TABLE)
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().expect("a lock") = (fault, None);
    }

    pub fn set_on(&self, operation: &'static str, fault: Fault) {
        *self.fault.lock().expect("a lock") = (fault, Some(operation));
    }

    /// How many requests were refused.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// What passed since the last call.
    pub fn take(&self) -> Vec<Passed> {
        std::mem::take(&mut self.passed.lock().expect("a lock"))
    }
}

impl HttpClient for Tap {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(TapConnector { tap: self.clone(), inner })
    }
}

#[derive(Debug)]
struct TapConnector {
    tap: Tap,
    inner: SharedHttpConnector,
}

impl HttpConnector for TapConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let operation = operation.unwrap_or_default().to_owned();
        let (fault, only) = *self.tap.fault.lock().expect("a lock");
        let fault = if only.is_none_or(|only| only == operation) { fault } else { Fault::None };
        if matches!(fault, Fault::Refused(..)) {
            self.tap.refused.fetch_add(1, Ordering::SeqCst);
        }
        let (passed, inner) = (Arc::clone(&self.tap.passed), self.inner.clone());
        HttpConnectorFuture::new(async move {
            let lost = || Err(ConnectorError::io("the connection broke".into()));
            match fault {
                Fault::Lost => return lost(),
                Fault::Hangs => std::future::pending().await,
                Fault::Refused(status, code) => return Ok(refusal(status, code)),
                Fault::None | Fault::AnswerLost | Fault::AppliedThen500 | Fault::Stalls => {}
            }
            let mut response = inner.call(request).await?;
            let body = response.body().bytes().unwrap_or_default();
            let answer = serde_json::from_slice(body).unwrap_or_default();
            passed.lock().expect("a lock").push(Passed { operation, answer });
            match fault {
                Fault::AnswerLost => lost(),
                Fault::AppliedThen500 => Ok(refusal(500, "InternalServerError")),
                Fault::Stalls => {
                    *response.body_mut() = stalled(response.body().bytes().unwrap_or_default());
                    Ok(response)
                }
                _ => Ok(response),
            }
        })
    }
}

/// The first half of `body`, and then nothing more.
fn stalled(body: &[u8]) -> SdkBody {
    let half = Frame::data(Bytes::copy_from_slice(&body[..body.len() / 2]));
    let frames = stream::iter([Ok::<_, Infallible>(half)]).chain(stream::pending());
    SdkBody::from_body_1_x(StreamBody::new(frames))
}

fn refusal(status: u16, code: &str) -> HttpResponse {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"injected"}}"#);
    HttpResponse::new(status.try_into().expect("a status"), body.into())
}
