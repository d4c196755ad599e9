//! The embedded store through HTTP against the DynamoDB requests of the same verbs, recorded and handed straight to an engine's
//! thread: start, four heartbeats, count and stop, on 64 connections and in 64 tasks, each engine with a file of its own. Both take
//! turns, and a ratio is that of one round's rates. `cargo bench --bench engine`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod service;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::http::HttpRequest;
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use service::Service;
use service::closed_loop::{Connection, request};
use service::cores::spread;
use stream_manager::clock::{Clock, SystemClock};
use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::lease::{LeaseTerms, StreamLimit};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::migrate;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::store::embedded::{Embedded, SyncMode};
use stream_manager::store::{LeaseStore, StartHint, StoppedBy};

const CONCURRENCY: u64 = 64;
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_secs(3);
const TABLE: &str = "user-streams";
const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, retention_s: 3600 };

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let service = Service::start(&[("STORE__KIND", "embedded")]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Embedded::open(&folder.path().join("engine.db"), SyncMode::Normal).expect("an engine");
        let (connector, recorded) = record(&engine).await;
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            let [through_http, straight] =
                [through_http(service.address).await, straight(&connector, &recorded).await];
            // The first round warms up.
            if round > 0 {
                rates[0].push(through_http);
                rates[1].push(straight);
            }
        }
        let [least, middle, greatest] =
            spread(rates[0].iter().zip(&rates[1]).map(|(http, straight)| http / straight));
        println!("through HTTP             {:>7.0} verbs/s", spread(rates[0].iter().copied())[1]);
        println!("straight to the engine   {:>7.0} verbs/s", spread(rates[1].iter().copied())[1]);
        println!("through HTTP over straight: {middle:.2} ({least:.2}-{greatest:.2})");
    });
}

/// What each user's verbs send to the engine, and the way in.
async fn record(engine: &Embedded) -> (SharedHttpConnector, Vec<Vec<HttpRequest>>) {
    let recorder = Recorder { inner: engine.http_client(), kept: Arc::default() };
    let settings = ClientSettings {
        endpoint_url: None,
        region: None,
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(10),
        max_attempts: 1,
    };
    let client = client::in_process(&settings, SharedHttpClient::new(recorder.clone()));
    migrate::migrate(&client, TABLE).await.expect("a table");
    let store = DynamoStore::new(client, TABLE);
    let take = || std::mem::take(&mut recorder.kept.lock().expect("a lock").requests);
    _ = take();
    let mut recorded = Vec::new();
    for n in 0..CONCURRENCY {
        let user = UserName::parse(&format!("user-{n:04}")).expect("a name");
        let (stream_id, now) = (StreamId::random(u128::from(n + 1).to_le_bytes()), SystemClock.now());
        let start = StartRequest {
            stream_id,
            fingerprint: None,
            device_id: None,
            device_name: None,
            content_id: None,
            replaces: Vec::new(),
            at_limit: AtLimit::Reject,
            token_limit: None,
            default_limit: StreamLimit::DEFAULT,
            terms: TERMS,
        };
        store.start(&user, &start, StartHint::Optimistic, now).await.expect("a start");
        for beat in 1..=4 {
            store.heartbeat(&user, stream_id, TERMS, now.plus_ms(beat)).await.expect("a heartbeat");
        }
        assert_eq!(store.streams(&user, now).await.expect("a count").live.len(), 1);
        store.stop(&user, stream_id, StoppedBy::Player, TERMS, now).await.expect("a stop");
        recorded.push(take());
        assert_eq!(recorded[n as usize].len(), 7, "one request for each verb");
    }
    let connector = recorder.kept.lock().expect("a lock").connector.clone();
    (connector.expect("a connector"), recorded)
}

async fn straight(connector: &SharedHttpConnector, recorded: &[Vec<HttpRequest>]) -> f64 {
    let begun = Instant::now();
    let tasks = recorded.iter().map(|requests| {
        let (connector, requests) = (connector.clone(), requests.iter().map(cloned).collect::<Vec<_>>());
        tokio::spawn(async move {
            let mut verbs = 0_u64;
            while begun.elapsed() < RUN {
                for request in &requests {
                    let answer = connector.call(cloned(request)).await.expect("an answer");
                    assert_eq!(answer.status().as_u16(), 200, "{:?}", answer.body().bytes());
                    verbs += 1;
                }
            }
            verbs
        })
    });
    sum(tasks.collect()).await as f64 / begun.elapsed().as_secs_f64()
}

async fn through_http(address: SocketAddr) -> f64 {
    let begun = Instant::now();
    let players = (0..CONCURRENCY).map(|n| {
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            let streams = format!("/v1/users/user-{n:04}/streams");
            let (start, count) = (request("POST", &streams), request("GET", &format!("{streams}/count")));
            let mut verbs = 0_u64;
            while begun.elapsed() < RUN {
                let (status, body) = connection.call(&start).await;
                assert_eq!(status, 201, "{}", String::from_utf8_lossy(body));
                let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
                let stream = format!("{streams}/{}", body["streamId"].as_str().expect("an id"));
                let heartbeat = request("POST", &format!("{stream}/heartbeat"));
                for _ in 0..4 {
                    assert_eq!(connection.call(&heartbeat).await.0, 200);
                }
                assert_eq!(connection.call(&count).await.0, 200);
                assert_eq!(connection.call(&request("DELETE", &stream)).await.0, 204);
                verbs += 7;
            }
            verbs
        })
    });
    sum(players.collect()).await as f64 / begun.elapsed().as_secs_f64()
}

async fn sum(tasks: Vec<tokio::task::JoinHandle<u64>>) -> u64 {
    let mut sum = 0;
    for task in tasks {
        sum += task.await.expect("a task");
    }
    sum
}

fn cloned(request: &HttpRequest) -> HttpRequest {
    request.try_clone().expect("a body in memory")
}

/// An SDK transport before another one, that keeps what passes.
#[derive(Clone, Debug)]
struct Recorder {
    inner: SharedHttpClient,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: Vec<HttpRequest>,
    connector: Option<SharedHttpConnector>,
}

#[derive(Debug)]
struct Recording {
    inner: SharedHttpConnector,
    kept: Arc<Mutex<Kept>>,
}

impl HttpClient for Recorder {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        self.kept.lock().expect("a lock").connector = Some(inner.clone());
        SharedHttpConnector::new(Recording { inner, kept: Arc::clone(&self.kept) })
    }
}

impl HttpConnector for Recording {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.kept.lock().expect("a lock").requests.push(cloned(&request));
        self.inner.call(request)
    }
}
