//! Labels and rules over HTTP: what a start stores, what a denial and a list show, and which requests are refused.

use serde_json::{Value, json};
use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::rules::{LimitMode, Rule, RuleName};
use stream_manager::limiter::Policy;

use crate::captured_log::CapturedLog;
use crate::metrics::value;
use crate::test_app::{STREAMS, TestApp, TestResponse, TestServer};

pub fn labels(labels: &[(&str, &str)]) -> Labels {
    let label = |(name, value): &(&str, &str)| (LabelName::parse(name).unwrap(), LabelValue::parse(value).unwrap());
    Labels::new(labels.iter().map(label).collect()).unwrap()
}

/// A rule that counts streams with these labels, per value of the label `per`.
pub fn rule(name: &str, max: u64, counted: &[(&str, &str)], per: Option<&str>) -> Rule {
    Rule {
        name: RuleName::parse(name).unwrap(),
        max: StreamLimit::new(max).unwrap(),
        labels: labels(counted),
        per: per.map(|per| LabelName::parse(per).unwrap()),
        mode: LimitMode::Enforce,
    }
}

pub const UHD: &[(&str, &str)] = &[("quality", "uhd")];

/// One UHD stream, two streams per channel, and no children's UHD.
pub fn policy() -> Policy {
    let rules = [
        rule("one UHD stream", 1, UHD, None),
        rule("two per channel", 2, &[], Some("channel")),
        rule("no children's UHD", 0, &[("quality", "uhd"), ("profile", "child")], None),
    ];
    Policy { default_limit: StreamLimit::new(5).unwrap(), rules: rules.into(), ..Policy::default() }
}

async fn server() -> TestServer {
    TestApp { policy: policy(), ..TestApp::default() }.serve().await
}

async fn start(server: &TestServer, body: Value) -> TestResponse {
    server.json("POST", STREAMS, body).await
}

async fn start_id(server: &TestServer, body: Value) -> Value {
    json!(server.start_stream("ann", body).await)
}

/// The ids of the streams in a response.
fn ids(response: &TestResponse) -> Vec<&Value> {
    response.body["streams"].as_array().unwrap().iter().map(|stream| &stream["streamId"]).collect()
}

#[tokio::test]
async fn labels_are_normalized_stored_and_listed() {
    let server = server().await;
    let body = json!({"labels": {"title": "Zoe\u{308}", "channel": "news", "none": null}});
    let expected = json!({"channel": "news", "title": "Zoë"});
    let started = start(&server, body).await;
    assert_eq!((started.status, &started.body["labels"]), (201, &expected));
    assert_eq!(server.call("GET", STREAMS).await.body["streams"][0]["labels"], expected);
    let stream = format!("{STREAMS}/{}", started.body["streamId"].as_str().unwrap());
    assert_eq!(server.call("GET", &stream).await.body["labels"], expected);
    assert_eq!(server.call("POST", &format!("{stream}/heartbeat")).await.body["labels"], expected);
    assert_eq!(start(&server, json!({"labels": {}})).await.body.get("labels"), None);
}

#[tokio::test]
async fn invalid_labels_are_refused_with_their_field() {
    let server = server().await;
    let nine: serde_json::Map<String, Value> = (0..9).map(|n| (format!("l{n}"), json!("x"))).collect();
    for (labels, field, reason) in [
        (json!({"quality": ""}), "labels.quality", "must not be empty"),
        (json!({"quality": "u\nhd"}), "labels.quality", "control"),
        (json!({"quality": "x".repeat(65)}), "labels.quality", "at most 64 bytes"),
        (json!({"quality": 4}), "labels.quality", "expected a string"),
        (json!({"quality": ["uhd"]}), "labels.quality", "expected a string"),
        (json!({"Quality": "uhd"}), "labels", "\"Quality\" must be 1 to 32 characters"),
        (json!({"": "uhd"}), "labels", "\"\" must be 1 to 32 characters"),
        (json!(nine), "labels", "at most 8 labels, has 9"),
        (json!("quality=uhd"), "labels", "expected an object with strings"),
        (json!(["uhd"]), "labels", "expected an object with strings"),
    ] {
        let response = start(&server, json!({ "labels": labels })).await;
        response.assert_problem(400, "invalid-request", &labels.to_string());
        let error = &response.body["errors"][0];
        assert_eq!(error["field"], field, "{labels}: {error}");
        assert!(error["reason"].as_str().unwrap().contains(reason), "{labels}: {error}");
    }
    for body in [r#"{"labels":{"a":"1","a":"2"}}"#, r#"{"labels":{"a":"\ud83d"}}"#] {
        let headers = [("content-type", "application/json")];
        let response = server.send("POST", STREAMS, &headers, body.as_bytes().to_vec()).await;
        response.assert_problem(400, "invalid-request", body);
        assert!(response.body["errors"][0]["field"].as_str().unwrap().starts_with("labels"), "{response:?}");
    }
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 0);
}

#[tokio::test]
async fn denial_names_the_rule_and_shows_only_its_streams() {
    let server = server().await;
    start_id(&server, json!({"labels": {"quality": "hd"}})).await;
    let uhd = start_id(&server, json!({"labels": {"quality": "uhd", "channel": "news"}})).await;
    let denied = start(&server, json!({"labels": {"quality": "uhd"}})).await;
    denied.assert_problem(409, "stream-limit-reached", "a second UHD stream");
    let body = &denied.body;
    assert_eq!((&body["rule"], &body["limit"], &body["count"]), (&json!("one UHD stream"), &json!(1), &json!(1)));
    assert_eq!(ids(&denied), [&uhd]);
    assert_eq!((&body["slotFreesInSeconds"], denied.headers["retry-after"].as_str()), (&json!(90), "90"));
}

#[tokio::test]
async fn denial_by_the_users_limit_has_no_rule() {
    let server = server().await;
    for _ in 0..5 {
        start_id(&server, json!({})).await;
    }
    let denied = start(&server, json!({"labels": {"quality": "uhd"}})).await;
    denied.assert_problem(409, "stream-limit-reached", "the limit");
    assert_eq!((denied.body.get("rule"), &denied.body["limit"]), (None, &json!(5)));
}

#[tokio::test]
async fn forbidden_stream_has_no_time_to_retry() {
    let server = server().await;
    let denied =
        start(&server, json!({"labels": {"quality": "uhd", "profile": "child"}, "atLimit": "evictOldest"})).await;
    denied.assert_problem(409, "stream-limit-reached", "forbidden");
    let body = &denied.body;
    assert_eq!((&body["rule"], &body["limit"], &body["count"]), (&json!("no children's UHD"), &json!(0), &json!(0)));
    assert_eq!((body.get("slotFreesInSeconds"), denied.headers.get("retry-after")), (None, None));
}

#[tokio::test]
async fn new_labels_replace_the_current_stream_or_leave_it() {
    let server = server().await;
    let hd = start_id(&server, json!({"labels": {"quality": "hd"}})).await;
    let uhd = start_id(&server, json!({"labels": {"quality": "uhd"}, "replaces": [hd]})).await;
    server.clock.advance_ms(1000);
    let other = start_id(&server, json!({"labels": {"quality": "hd"}})).await;
    let denied = start(&server, json!({"labels": {"quality": "uhd"}, "replaces": [other]})).await;
    denied.assert_problem(409, "stream-limit-reached", "a second UHD stream");
    assert_eq!(ids(&server.call("GET", STREAMS).await), [&uhd, &other]);
    let again = start(&server, json!({"labels": {"quality": "uhd"}, "replaces": [uhd]})).await;
    assert_eq!((again.status, &again.body["ended"]), (201, &json!([uhd])));
}

#[tokio::test]
async fn evict_oldest_ends_a_stream_of_the_rule() {
    let server = server().await;
    start_id(&server, json!({})).await;
    let uhd = start_id(&server, json!({"labels": {"quality": "uhd"}})).await;
    let evicting = start(&server, json!({"labels": {"quality": "uhd"}, "atLimit": "evictOldest"})).await;
    assert_eq!((evicting.status, &evicting.body["ended"]), (201, &json!([uhd])));
}

#[tokio::test]
async fn list_shows_the_use_of_each_rule() {
    let server = server().await;
    assert_eq!(server.call("GET", STREAMS).await.body["rules"], json!([]));
    start_id(&server, json!({"labels": {"quality": "uhd", "channel": "news"}})).await;
    for channel in ["sport", "news"] {
        start_id(&server, json!({"labels": {"channel": channel}})).await;
    }
    start_id(&server, json!({})).await;
    assert_eq!(
        server.call("GET", STREAMS).await.body["rules"],
        json!([
            {"name": "one UHD stream", "limit": 1, "count": 1},
            {"name": "two per channel", "limit": 2, "count": 2, "per": "news"},
            {"name": "two per channel", "limit": 2, "count": 1, "per": "sport"},
        ])
    );
}

#[tokio::test]
async fn idempotency_key_covers_the_labels_of_the_body() {
    let server = server().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let send = async |body: Value| server.send("POST", STREAMS, &headers, body.to_string().into_bytes()).await.status;
    assert_eq!(send(json!({"labels": {"quality": "uhd", "channel": "Zoë"}})).await, 201);
    assert_eq!(send(json!({"labels": {"channel": "Zoe\u{308}", "quality": "uhd"}})).await, 200);
    assert_eq!(send(json!({"labels": {"quality": "hd", "channel": "Zoë"}})).await, 422);
    assert_eq!(send(json!({})).await, 422);
}

#[tokio::test]
async fn denials_are_counted_and_logged_by_rule() {
    let (log, _capture) = CapturedLog::start();
    let server = server().await;
    let denials = |rule: &str| value(&server.metrics, &format!("rule_denials_total{{rule=\"{rule}\"}}"));
    assert_eq!(denials("two per channel"), Some(0.0));
    start_id(&server, json!({"labels": {"quality": "uhd"}})).await;
    start(&server, json!({"labels": {"quality": "uhd"}})).await;
    assert_eq!([denials("one UHD stream"), denials("two per channel")], [Some(1.0), Some(0.0)]);
    assert_eq!(value(&server.metrics, "starts_total{outcome=\"denied\"}"), Some(1.0));
    let events = log.take();
    let denied = events.iter().find(|event| event["event"] == "start_denied").unwrap();
    assert_eq!((&denied["rule"], &denied["limit"]), (&json!("one UHD stream"), &json!(1)));
}
