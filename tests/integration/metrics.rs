//! Metrics: store requests by outcome, retries and capacity, heartbeat lateness, ended streams, refused request heads, and clock
//! skew.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use serde_json::json;
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::admission::StartOutcome;
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::limiter::StartOptions;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client;
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::{LeaseStore, StartHint};
use stream_manager::telemetry::clock_skew::ClockSample;
use stream_manager::telemetry::metrics::{Metrics, TextFormat};
use tokio::net::TcpStream;

use crate::fault_injector::{CONFLICT, Fault, FaultInjector};
use crate::support::{Fixture, TABLE, client_settings, eventually, renewal, start, stream, unique_user};
use crate::test_app::{SETTINGS, TestApp, TestServer};

/// The value of a series in the encoded metrics.
pub fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.encode(TextFormat::Prometheus).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("stream_manager_{series} ")));
    line.map(|value| value.parse().unwrap())
}

/// A store with metrics of its requests.
fn measured_store(http: SharedHttpClient, clock: Arc<ManualClock>) -> (DynamoStore, Metrics) {
    let metrics = Metrics::new();
    let interceptor = MetricsInterceptor::new(metrics.store.clone(), clock);
    let client = client::with_metrics(&client::in_process(&client_settings(), http), interceptor);
    (DynamoStore::new(client, TABLE), metrics)
}

#[tokio::test]
async fn store_requests_are_counted_by_operation_and_outcome() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let (store, metrics) = measured_store(faults.http_client(), Arc::clone(&fixture.clock));
    let (user, now) = (unique_user(), fixture.now());
    let requests = |operation: &str, outcome: &str| {
        value(&metrics, &format!("store_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}"))
    };
    for n in 1..=3 {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.unwrap();
    }
    store.heartbeat(&user, &renewal(1), now.plus_s(1)).await.unwrap();
    store.heartbeat(&user, &renewal(1), now).await.unwrap();
    store.start(&user, &start(4), StartHint::Optimistic, now).await.unwrap();
    store.limit(&user).await.unwrap();
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
        (Fault::Rejected(400, "ProvisionedThroughputExceededException"), "throttled"),
        (Fault::Rejected(400, "AccessDeniedException"), "rejected"),
        (CONFLICT, "conflict"),
        (Fault::Rejected(400, "SomethingNewException"), "unknown"),
        (Fault::Rejected(500, "InternalServerError"), "unknown"),
        (Fault::Lost, "unknown"),
        (Fault::Hang, "unknown"),
    ] {
        let before = requests("UpdateItem", outcome).unwrap_or_default();
        faults.set(fault);
        store.set_limit(&user, StreamLimit::new(5)).await.unwrap_err();
        assert_eq!(requests("UpdateItem", outcome), Some(before + 1.0), "{fault:?}");
    }
    assert!(
        retries(&metrics).is_some_and(|retries| retries >= 3.0),
        "the SDK retries throttling, 500 and lost requests"
    );
    let calls = value(&metrics, "store_request_duration_seconds_count{operation=\"UpdateItem\"}");
    assert_eq!(calls, Some(9.0), "a request and its retries count as one");
}

#[tokio::test]
async fn heartbeats_are_counted_by_the_elapsed_share_of_the_lease() {
    let app = TestApp::default();
    let clock = Arc::clone(&app.clock);
    let built = app.build();
    let (limiter, metrics, user) = (built.limiter, built.metrics, unique_user());
    let started = limiter.start(&user, StartOptions::default()).await.unwrap().value;
    let StartOutcome::Started(started) = started else { panic!("{started:?}") };
    for after_s in [30, 45, 89] {
        clock.advance_ms(after_s * 1000);
        limiter.heartbeat(&user, started.lease.stream_id, None).await.unwrap();
    }
    // A repeated heartbeat does not renew the lease, and is not counted.
    limiter.heartbeat(&user, started.lease.stream_id, None).await.unwrap();
    let buckets = ["0.25", "0.35", "0.5", "0.95", "1"]
        .map(|le| value(&metrics, &format!("heartbeat_lateness_ratio_bucket{{le=\"{le}\"}}")));
    assert_eq!(buckets, [Some(0.0), Some(1.0), Some(2.0), Some(2.0), Some(3.0)]);
}

#[tokio::test]
async fn ended_streams_are_counted_by_reason() {
    let server = TestServer::start().await;
    server.start_stream("ann", json!({"deviceId": "tv"})).await;
    server.start_stream("ann", json!({"deviceId": "tv"})).await;
    let evicted = server.start_stream("ann", json!({})).await;
    server.call("DELETE", &format!("/v1/users/ann/streams/{evicted}?evict=true")).await;
    for _ in 0..3 {
        server.start_stream("ann", json!({"atLimit": "evictOldest"})).await;
    }
    let ended = |reason| value(&server.metrics, &format!("streams_ended_total{{reason=\"{reason}\"}}"));
    assert_eq!((ended("replaced"), ended("evicted")), (Some(1.0), Some(2.0)));
}

#[tokio::test]
async fn request_heads_refused_by_the_parser_are_counted() {
    let server = TestServer::start().await;
    let refused = || {
        ["malformed", "too_large", "http2"]
            .map(|reason| value(&server.metrics, &format!("http_parse_errors_total{{reason=\"{reason}\"}}")).unwrap())
    };
    let long = "x".repeat(2 * SETTINGS.max_head_bytes);
    for (head, status, counts) in [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "HTTP/1.1 400 ", [1.0, 0.0, 0.0]),
        ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n".to_owned(), "HTTP/1.1 400 ", [2.0, 0.0, 0.0]),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 4", [2.0, 1.0, 0.0]),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), "HTTP/1.1 431 ", [2.0, 2.0, 0.0]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "", [2.0, 2.0, 1.0]),
    ] {
        let response = server.raw(&head).await;
        assert!(response.starts_with(status) && response.is_empty() == status.is_empty(), "{response}");
        eventually(async || server.metrics.connections.get() == 0).await;
        assert_eq!(refused(), counts);
    }
}

#[tokio::test]
async fn responses_of_the_service_are_no_parser_errors() {
    let server = TestServer::start().await;
    assert!(server.raw("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    server.raw_get("/%zz").await;
    drop(TcpStream::connect(server.address).await.unwrap());
    eventually(async || server.metrics.connections.get() == 0).await;
    assert_eq!(value(&server.metrics, "http_parse_errors_total{reason=\"malformed\"}"), Some(0.0));
}

/// A transport that adds a `Date` header to responses, as DynamoDB does. The second field is the clock of the store.
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
        let (response, clock) = (self.0.call(request), Arc::clone(&self.1));
        HttpConnectorFuture::new(async move {
            let mut response: HttpResponse = response.await?;
            let since = Duration::from_millis(clock.now().epoch_ms() as u64);
            response.headers_mut().insert("date", httpdate::fmt_http_date(UNIX_EPOCH + since));
            Ok(response)
        })
    }
}

const CLOCK_SKEW: &str = "store_clock_difference_seconds";

#[tokio::test]
async fn clock_skew_is_absent_without_a_date_from_the_store() {
    let fixture = Fixture::embedded().await;
    let (store, metrics) = measured_store(fixture.engine().http_client(), Arc::clone(&fixture.clock));
    store.streams(&unique_user(), fixture.now()).await.unwrap();
    assert_eq!(value(&metrics, CLOCK_SKEW), None);
}

#[tokio::test]
async fn clock_skew_is_estimated_from_the_date_of_responses() {
    let fixture = Fixture::embedded().await;
    let store_clock = Arc::new(ManualClock::at(fixture.now().plus_ms(-3000)));
    let dated = SharedHttpClient::new(Dated(fixture.engine().http_client(), Arc::clone(&store_clock)));
    let (store, metrics) = measured_store(dated, Arc::clone(&fixture.clock));
    for _ in 0..20 {
        store.stop(&unique_user(), stream(1)).await.unwrap();
        fixture.clock.advance_ms(370);
        store_clock.advance_ms(370);
    }
    let seconds = value(&metrics, CLOCK_SKEW).unwrap();
    assert!((seconds - 3.0).abs() < 0.1, "{seconds}");
}

#[tokio::test]
async fn readiness_reports_clock_skew_and_warns_if_it_is_large() {
    let server = TestServer::start().await;
    server.readiness.mark_store_seen();
    let ready = server.call("GET", "/health/ready").await.body;
    assert_eq!((ready.get("clockDifferenceSeconds"), ready.get("warnings")), (None, None));

    let store = Timestamp::from_epoch_ms(1_790_000_000_000);
    let observe = |ahead_ms: i64, minutes: u64| {
        let host = store.plus_ms(ahead_ms);
        let response = ClockSample { sent: host, received: host, date: store };
        server.metrics.store.clock_skew.observe(response, Duration::from_secs(minutes * 60))
    };
    observe(700, 0);
    let ready = server.call("GET", "/health/ready").await.body;
    // `Date` has whole seconds, so on average it is half a second behind the store's clock. The service corrects the difference.
    assert_eq!((&ready["clockDifferenceSeconds"], ready.get("warnings")), (&json!(0.2), None));

    for (ahead_ms, minutes, warning) in [
        (4700, 5, "this host's clock is 4.2 s ahead of the store's clock; check NTP"),
        (-4700, 10, "this host's clock is 5.2 s behind the store's clock; check NTP"),
    ] {
        observe(ahead_ms, minutes);
        let response = server.call("GET", "/health/ready").await;
        assert_eq!(response.status, 200, "the limit holds under any clock skew");
        assert_eq!(response.body["warnings"], json!([warning]));
        assert_eq!(server.call("GET", "/health/live").await.body.get("warnings"), None);
    }
}
