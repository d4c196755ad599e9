//! The count of all live streams: what it includes, its pages, its pauses, and its failures.

use std::sync::Arc;

use aws_sdk_dynamodb::config::http::HttpRequest;
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use stream_manager::clock::ManualClock;
use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::http::management;
use stream_manager::live_streams::LiveStreams;
use stream_manager::store::dynamodb::live_streams::PAGE_ITEMS;
use stream_manager::store::dynamodb::{DynamoStore, client};
use stream_manager::store::{CountLiveStreams, StartHint};
use stream_manager::telemetry::metrics::{Metrics, TextFormat};

use crate::fault_injector::{Fault, FaultInjector};
use crate::support::{Backing, Fixture, TABLE, TERMS, client_settings, renewal, start, stream, unique_user};
use crate::test_app::BOUNDS;

fn counted(fixture: &Fixture) -> Arc<dyn CountLiveStreams> {
    match &fixture.backing {
        Backing::Memory(store) => Arc::clone(store) as _,
        Backing::Embedded(_, client) => Arc::new(DynamoStore::new(client.clone(), TABLE)),
        Backing::Endpoint(_) => panic!("other tests use the same table"),
    }
}

async fn start_stream(fixture: &Fixture, n: u8) {
    fixture.store.start(&unique_user(), &start(n), StartHint::Optimistic, fixture.now()).await.unwrap();
}

/// The value of the gauge, if it is exported.
fn exported(metrics: &Metrics) -> Option<u64> {
    let text = metrics.encode(TextFormat::Prometheus).unwrap();
    text.lines().find_map(|line| line.strip_prefix("stream_manager_live_streams ")?.parse().ok())
}

#[tokio::test]
async fn only_live_streams_are_counted() {
    for fixture in [Fixture::memory().await, Fixture::embedded().await] {
        let (store, counted) = (Arc::clone(&fixture.store), counted(&fixture));
        let live = async || counted.count_live_streams(fixture.now()).await.unwrap();
        assert_eq!(live().await, 0);
        let (ann, bob) = (unique_user(), unique_user());
        for n in 1..=3 {
            store.start(&ann, &start(n), StartHint::Optimistic, fixture.now()).await.unwrap();
        }
        fixture.advance_s(10);
        store.start(&bob, &start(1), StartHint::Optimistic, fixture.now()).await.unwrap();
        assert_eq!(live().await, 4);
        store.stop(&ann, stream(1)).await.unwrap();
        assert_eq!(live().await, 3, "without the stopped stream");
        let eviction = EndRequest { selection: Selection::Listed(vec![stream(2)]), message: None, terms: TERMS };
        store.end(&ann, &eviction, fixture.now()).await.unwrap();
        assert_eq!(live().await, 2, "without the evicted stream");
        store.heartbeat(&ann, &renewal(3), fixture.now()).await.unwrap();
        fixture.advance_s(89);
        store.heartbeat(&bob, &renewal(1), fixture.now()).await.unwrap();
        assert_eq!(live().await, 2);
        fixture.advance_s(1);
        assert_eq!(live().await, 1, "without the expired stream");
    }
}

#[tokio::test]
async fn the_count_includes_every_page() {
    let fixture = Fixture::embedded().await;
    // Each stream has two items: its lease and the counter of its user. The items therefore fill two pages.
    let streams = PAGE_ITEMS as u64;
    for _ in 0..streams {
        start_stream(&fixture, 1).await;
    }
    assert_eq!(counted(&fixture).count_live_streams(fixture.now()).await.unwrap(), streams);
}

#[tokio::test]
async fn a_scrape_counts_the_live_streams() {
    let fixture = Fixture::memory().await;
    let metrics = Arc::new(Metrics::new());
    let gauge = Arc::clone(&metrics.live_streams);
    let live = LiveStreams::new(counted(&fixture), fixture.clock.clone(), gauge);
    let app = management(metrics, Some(live), Arc::default(), BOUNDS).unwrap();
    for n in 1..=2 {
        start_stream(&fixture, n).await;
        let request = poem::http::Request::get("/metrics").header("host", "x");
        let mut response = app.handle(request.body(http_body_util::Empty::new()).unwrap()).await;
        let text = response.take_body().into_string().await.unwrap();
        assert!(text.contains(&format!("\nstream_manager_live_streams {n}\n")), "{text}");
    }
}

#[tokio::test]
async fn the_gauge_is_absent_while_the_count_fails() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let metrics = Metrics::new();
    let gauge = Arc::clone(&metrics.live_streams);
    let live = LiveStreams::new(Arc::new(faults.store(1)), fixture.clock.clone(), gauge);
    assert_eq!(exported(&metrics), None, "before the first count");
    live.refresh().await;
    assert_eq!(exported(&metrics), Some(0));
    faults.set(Fault::Rejected(500, "InternalServerError"));
    live.refresh().await;
    assert_eq!(exported(&metrics), None);
}

/// A transport that advances the clock by one second per request.
#[derive(Debug)]
struct Slow<T>(T, Arc<ManualClock>);

impl HttpClient for Slow<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Slow(self.0.http_connector(settings, components), Arc::clone(&self.1)))
    }
}

impl HttpConnector for Slow<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.1.advance_ms(1000);
        self.0.call(request)
    }
}

#[tokio::test]
async fn after_a_slow_count_the_next_one_waits() {
    let fixture = Fixture::embedded().await;
    let slow = SharedHttpClient::new(Slow(fixture.engine().http_client(), Arc::clone(&fixture.clock)));
    let store = Arc::new(DynamoStore::new(client::in_process(&client_settings(), slow), TABLE));
    let metrics = Metrics::new();
    let live = LiveStreams::new(store, fixture.clock.clone(), Arc::clone(&metrics.live_streams));
    live.refresh().await;
    start_stream(&fixture, 1).await;
    fixture.advance_s(18);
    live.refresh().await;
    assert_eq!(exported(&metrics), Some(0), "the pause after a count of 1 s is 19 s, and only 18 s have passed");
    fixture.advance_s(1);
    live.refresh().await;
    assert_eq!(exported(&metrics), Some(1));
}
