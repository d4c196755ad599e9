//! What is counted: store requests as they come back, heartbeats by how late they come, and the clock.

use std::sync::Arc;

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::admission::StartOutcome;
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::limiter::{Limiter, Policy, StartOptions};
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client;
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::{LeaseStore, StartHint, StoppedBy};
use stream_manager::telemetry::clock_skew::ClockSample;
use stream_manager::telemetry::metrics::Metrics;

use crate::server::TestServer;
use crate::support::{
    Backing, Fault, Fixture, TABLE, TERMS, Tap, client_settings, someone, start, stream as stream_id,
};

/// The value of a series, as it is scraped.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.encode().expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("stream_manager_{series} ")));
    line.map(|value| value.parse().expect("a number"))
}

async fn engine() -> (Fixture, SharedHttpClient) {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let http = engine.http_client();
    (fixture, http)
}

fn observed(http: SharedHttpClient, clock: Arc<ManualClock>) -> (DynamoStore, Metrics) {
    let metrics = Metrics::new();
    let observer = MetricsInterceptor::new(metrics.store.clone(), clock);
    let client = client::with_metrics(&client::in_process(&client_settings(), http), observer);
    (DynamoStore::new(client, TABLE), metrics)
}

#[tokio::test]
async fn store_requests_are_counted_by_operation_and_outcome_with_retries_and_capacity() {
    let (fixture, http) = engine().await;
    let tap = Tap::before(http);
    let (store, metrics) = observed(SharedHttpClient::new(tap.clone()), Arc::clone(&fixture.clock));
    let (user, now) = (someone(), fixture.now());
    let requests = |operation: &str, outcome: &str| {
        value(&metrics, &format!("store_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}"))
    };
    for n in 1..=3 {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.expect("a start");
    }
    store.heartbeat(&user, stream_id(1), TERMS, now.plus_s(1)).await.expect("a heartbeat");
    store.heartbeat(&user, stream_id(1), TERMS, now).await.expect("a late heartbeat");
    store.start(&user, &start(4), StartHint::Optimistic, now).await.expect("a denial");
    store.limit(&user).await.expect("a limit");
    assert_eq!(requests("TransactWriteItems", "ok"), Some(3.0));
    assert_eq!(requests("TransactWriteItems", "condition_failed"), Some(1.0));
    assert_eq!(requests("UpdateItem", "ok"), Some(1.0));
    assert_eq!(requests("UpdateItem", "condition_failed"), Some(1.0));
    assert_eq!(requests("Query", "ok"), Some(1.0));
    assert_eq!(requests("GetItem", "ok"), Some(1.0));
    let capacity = |operation: &str| {
        value(&metrics, &format!("store_consumed_capacity_units_total{{operation=\"{operation}\"}}"))
    };
    assert_eq!(["TransactWriteItems", "UpdateItem"].map(capacity), [Some(12.0), Some(1.0)]);
    let retries = |metrics: &Metrics| value(metrics, "store_retries_total{operation=\"UpdateItem\"}");
    assert_eq!(retries(&metrics), Some(0.0));

    for (fault, outcome) in [
        (Fault::Refused(400, "ProvisionedThroughputExceededException"), "throttled"),
        (Fault::Refused(400, "AccessDeniedException"), "rejected"),
        (Fault::Refused(400, "TransactionConflictException"), "conflict"),
        (Fault::Refused(400, "SomethingNewException"), "unknown"),
        (Fault::Refused(500, "InternalServerError"), "unknown"),
        (Fault::Lost, "unknown"),
        (Fault::Hangs, "unknown"),
    ] {
        let before = requests("UpdateItem", outcome).unwrap_or_default();
        tap.set(fault);
        _ = store.set_limit(&user, StreamLimit::new(5)).await.expect_err("a failure");
        assert_eq!(requests("UpdateItem", outcome), Some(before + 1.0), "{fault:?}");
    }
    assert!(retries(&metrics).is_some_and(|retries| retries >= 3.0), "throttled, 500 and lost");
    let calls = value(&metrics, "store_request_duration_seconds_count{operation=\"UpdateItem\"}");
    assert_eq!(calls, Some(9.0), "a call and its retries are one");
}

#[tokio::test]
async fn a_heartbeat_is_counted_by_the_share_of_the_lease_that_had_passed() {
    let Fixture { store, clock, .. } = Fixture::memory().await.expect("a store");
    let (random, metrics) = (StdRng::seed_from_u64(1), Arc::new(Metrics::new()));
    let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), Policy::default());
    let user = someone();
    let started = limiter.start(&user, StartOptions::default()).await.expect("a start").value;
    let StartOutcome::Started(started) = started else { panic!("{started:?}") };
    for after_s in [30, 45, 89] {
        clock.advance_ms(after_s * 1000);
        limiter.heartbeat(&user, started.lease.stream_id).await.expect("a heartbeat");
    }
    limiter.heartbeat(&user, started.lease.stream_id).await.expect("a repetition, which renews nothing");
    let buckets = ["0.25", "0.35", "0.5", "0.95", "1.0"]
        .map(|le| value(&metrics, &format!("heartbeat_lateness_ratio_bucket{{le=\"{le}\"}}")));
    assert_eq!(buckets, [Some(0.0), Some(1.0), Some(2.0), Some(2.0), Some(3.0)]);
}

#[tokio::test]
async fn a_stream_that_others_end_is_counted_by_the_reason() {
    let server = TestServer::start().await;
    server.started("ann", json!({"deviceId": "tv"})).await;
    server.started("ann", json!({"deviceId": "tv"})).await;
    let evicted = server.started("ann", json!({})).await;
    server.call("DELETE", &format!("/v1/users/ann/streams/{evicted}?evict=true")).await;
    for _ in 0..3 {
        server.started("ann", json!({"atLimit": "evictOldest"})).await;
    }
    let ended = |reason| value(&server.metrics, &format!("streams_ended_total{{reason=\"{reason}\"}}"));
    assert_eq!((ended("replaced"), ended("evicted")), (Some(1.0), Some(2.0)));
}

/// A transport that stamps answers with the time of a clock of its own, as DynamoDB does.
#[derive(Debug)]
struct Dated<T>(T, Arc<ManualClock>);

impl HttpClient for Dated<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Dated(self.0.http_connector(settings, components), Arc::clone(&self.1)))
    }
}

impl HttpConnector for Dated<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, clock) = (self.0.call(request), Arc::clone(&self.1));
        HttpConnectorFuture::new(async move {
            let mut answer: HttpResponse = answer.await?;
            let since = std::time::Duration::from_millis(clock.now().epoch_ms() as u64);
            let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since);
            answer.headers_mut().insert("date", date);
            Ok(answer)
        })
    }
}

#[tokio::test]
async fn the_clocks_difference_is_known_from_the_answers_date_and_not_shown_before() {
    let (fixture, http) = engine().await;
    let store_clock = Arc::new(ManualClock::at(fixture.now().plus_ms(-3000)));
    let dated = SharedHttpClient::new(Dated(http.clone(), Arc::clone(&store_clock)));
    let series = "store_clock_difference_seconds";

    let (store, metrics) = observed(http, Arc::clone(&fixture.clock));
    store.streams(&someone(), fixture.now()).await.expect("a list");
    assert_eq!(value(&metrics, series), None, "the embedded engine gives no date");

    let (store, metrics) = observed(dated, Arc::clone(&fixture.clock));
    for _ in 0..20 {
        store.stop(&someone(), stream_id(1), StoppedBy::Player, TERMS, fixture.now()).await.expect("a stop");
        fixture.clock.advance_ms(370);
        store_clock.advance_ms(370);
    }
    let seconds = value(&metrics, series).expect("known");
    assert!((seconds - 3.0).abs() < 0.1, "{seconds}");
}

#[tokio::test]
async fn readiness_tells_the_clocks_difference_and_warns_when_it_is_off() {
    let server = TestServer::start().await;
    server.readiness.store_seen();
    let ready = server.call("GET", "/health/ready").await.body;
    assert_eq!((ready.get("clockDifferenceSeconds"), ready.get("warnings")), (None, None));

    let store = Timestamp::from_epoch_ms(1_790_000_000_000);
    let see = |ahead_ms: i64, minutes: u64| {
        let host = store.plus_ms(ahead_ms);
        let answer = ClockSample { sent: host, received: host, date: store };
        server.metrics.store.clock_skew.observe(answer, std::time::Duration::from_secs(minutes * 60))
    };
    see(700, 0);
    let ready = server.call("GET", "/health/ready").await.body;
    assert_eq!(
        (&ready["clockDifferenceSeconds"], ready.get("warnings")),
        (&json!(0.2), None),
        "half a second more or less"
    );

    for (ahead_ms, minutes, warning) in [
        (4700, 5, "this host's clock is 4.2 s ahead of the store's: set the time (NTP)"),
        (-4700, 10, "this host's clock is 5.2 s behind the store's: set the time (NTP)"),
    ] {
        see(ahead_ms, minutes);
        let answer = server.call("GET", "/health/ready").await;
        assert_eq!(answer.status, 200, "the limit holds under any clock");
        assert_eq!(answer.body["warnings"], json!([warning]));
        assert_eq!(server.call("GET", "/health/live").await.body.get("warnings"), None);
    }
}
