//! Compares the memory store and the embedded store over HTTP. To measure the overhead of HTTP, also records the DynamoDB requests
//! of the same operations and sends them directly to an embedded engine. The workload is a start, four heartbeats, a count and a
//! stop, on 64 connections or in 64 tasks. Each engine has a separate file. Each round measures every contender once. Each
//! ratio is calculated for every round, and the output shows the median, minimum and maximum of all rounds.
//! Run it with `cargo bench --bench engine`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

mod support;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::http::HttpRequest;
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use futures_util::future::join_all;
use stream_manager::clock::{Clock, SystemClock};
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::embedded::{Embedded, SyncMode};
use stream_manager::store::{HeartbeatRequest, LeaseStore, StartHint};
use support::Series;
use support::closed_loop::{Workload, requests_per_s};
use support::fixtures::{TABLE, TERMS, client_with_table, start_request, stream_id, user};
use support::process::{SERVICE, Server};

const CONCURRENCY: usize = 64;
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_secs(3);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = service(&[("STORE__KIND", "memory")]).await;
        let embedded = service(&[("STORE__KIND", "embedded"), ("EMBEDDED__SYNC", "normal")]).await;
        let full_sync = service(&[("STORE__KIND", "embedded"), ("EMBEDDED__SYNC", "full")]).await;
        let folder = tempfile::tempdir().unwrap();
        let engine = Embedded::open(&folder.path().join("engine.db"), SyncMode::Normal).unwrap();
        let (connector, recorded) = record(&engine).await;

        let servers = [("memory", &memory), ("embedded", &embedded), ("embedded, sync = full", &full_sync)];
        let (mut over_http, mut direct) = (servers.map(|_| Series::default()), Series::default());
        for _ in 0..=ROUNDS {
            for ((_, server), result) in servers.iter().zip(&mut over_http) {
                let rate = requests_per_s(server.address, 0..CONCURRENCY, Workload::Session, RUN);
                result.measure(&[server.id()], RUN, rate).await;
            }
            direct.measure(&[std::process::id()], RUN, direct_requests_per_s(&connector, &recorded)).await;
        }
        for ((name, _), result) in servers.iter().zip(&over_http) {
            println!(
                "{name:22} {:>7.0} requests/s, {} of memory",
                result.rates().median,
                result.rate_ratio(&over_http[0])
            );
        }
        println!("{:22} {:>7.0} requests/s", "engine without HTTP", direct.rates().median);
        println!("embedded / engine without HTTP: {}", over_http[1].rate_ratio(&direct));
    });
}

async fn service(settings: &[(&str, &str)]) -> Server {
    Server::service(Command::new(SERVICE), settings).await
}

/// Records the DynamoDB requests of each user's workload. Returns the connector to the engine, and the requests.
async fn record(engine: &Embedded) -> (SharedHttpConnector, Vec<Vec<HttpRequest>>) {
    let recorder = Recorder { inner: engine.http_client(), recording: Arc::default() };
    let store = DynamoStore::new(client_with_table(SharedHttpClient::new(recorder.clone())).await, TABLE);
    let now = SystemClock.now();
    recorder.take();
    let mut recorded = Vec::new();
    for n in 0..CONCURRENCY as u64 {
        let user = user(n);
        store.start(&user, &start_request(n), StartHint::Optimistic, now).await.unwrap();
        for ms in 1..=4 {
            let request = HeartbeatRequest { stream_id: stream_id(n), content_id: None, terms: TERMS };
            store.heartbeat(&user, &request, now.plus_ms(ms)).await.unwrap();
        }
        store.streams(&user, now).await.unwrap();
        store.stop(&user, stream_id(n)).await.unwrap();
        let requests = recorder.take();
        assert_eq!(requests.len(), 7, "one request per operation");
        recorded.push(requests);
    }
    let connector = recorder.recording.lock().unwrap().connector.clone();
    (connector.unwrap(), recorded)
}

async fn direct_requests_per_s(connector: &SharedHttpConnector, recorded: &[Vec<HttpRequest>]) -> f64 {
    let start = Instant::now();
    let tasks = recorded.iter().map(|requests| {
        let (connector, requests) = (connector.clone(), requests.iter().map(clone).collect::<Vec<_>>());
        tokio::spawn(async move {
            let mut sent = 0_u64;
            while start.elapsed() < RUN {
                for request in &requests {
                    let response = connector.call(clone(request)).await.unwrap();
                    assert_eq!(response.status().as_u16(), 200, "{:?}", response.body().bytes());
                    sent += 1;
                }
            }
            sent
        })
    });
    let sent: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    sent as f64 / start.elapsed().as_secs_f64()
}

fn clone(request: &HttpRequest) -> HttpRequest {
    request.try_clone().unwrap()
}

/// An SDK transport that records requests and forwards them to another transport.
#[derive(Clone, Debug)]
struct Recorder {
    inner: SharedHttpClient,
    recording: Arc<Mutex<Recording>>,
}

#[derive(Debug, Default)]
struct Recording {
    requests: Vec<HttpRequest>,
    connector: Option<SharedHttpConnector>,
}

#[derive(Debug)]
struct RecordingConnector {
    inner: SharedHttpConnector,
    recording: Arc<Mutex<Recording>>,
}

impl Recorder {
    fn take(&self) -> Vec<HttpRequest> {
        std::mem::take(&mut self.recording.lock().unwrap().requests)
    }
}

impl HttpClient for Recorder {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        self.recording.lock().unwrap().connector = Some(inner.clone());
        SharedHttpConnector::new(RecordingConnector { inner, recording: Arc::clone(&self.recording) })
    }
}

impl HttpConnector for RecordingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.recording.lock().unwrap().requests.push(clone(&request));
        self.inner.call(request)
    }
}
