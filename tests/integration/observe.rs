//! Observe mode over HTTP: responses, metrics, the log, and requests that end streams in spite of it.

use serde_json::{Value, json};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::rules::{LimitMode, Rule};
use stream_manager::limiter::Policy;

use crate::captured_log::CapturedLog;
use crate::metrics::value;
use crate::rules::{UHD, rule};
use crate::service::{Service, command, is_event, temp_dir};
use crate::test_app::{STREAMS, TestApp, TestResponse, TestServer};

/// A limit of 1 and two rules, all in observe mode.
async fn server() -> TestServer {
    let rules = [rule("one UHD stream", 1, UHD, None), rule("no children's UHD", 0, UHD, Some("profile"))];
    let policy = Policy {
        default_limit: StreamLimit::new(1).unwrap(),
        limit_mode: LimitMode::Observe,
        rules: rules.map(|rule| Rule { mode: LimitMode::Observe, ..rule }).into(),
        ..Policy::default()
    };
    TestApp { policy, ..TestApp::default() }.serve().await
}

async fn start(server: &TestServer, body: Value) -> TestResponse {
    server.json("POST", STREAMS, body).await
}

/// Starts streams without labels until the user has `count` streams.
async fn fill(server: &TestServer, count: usize) {
    for _ in 0..count {
        assert_eq!(start(server, json!({})).await.status, 201);
    }
}

#[tokio::test]
async fn start_above_the_limit_has_over_limit_in_its_response() {
    let server = server().await;
    assert_eq!(start(&server, json!({})).await.body.get("overLimit"), None);
    for body in [json!({}), json!({"atLimit": "evictOldest"})] {
        let started = start(&server, body).await;
        assert_eq!((started.status, &started.body["overLimit"]), (201, &json!(true)));
        assert_eq!((&started.body["limit"], &started.body["ended"]), (&json!(1), &json!([])));
    }
    let count = server.call("GET", &format!("{STREAMS}/count")).await.body;
    assert_eq!((&count["count"], &count["limit"], &count["remaining"]), (&json!(3), &json!(1), &json!(0)));
    assert_eq!(server.call("GET", STREAMS).await.body["streams"][0].get("overLimit"), None);
}

#[tokio::test]
async fn replayed_response_has_no_over_limit() {
    let server = server().await;
    fill(&server, 1).await;
    let keyed = || server.send("POST", STREAMS, &[("Idempotency-Key", "k")], Vec::new());
    let (first, again) = (keyed().await, keyed().await);
    assert_eq!((first.status, &first.body["overLimit"]), (201, &json!(true)));
    assert_eq!((again.status, again.body.get("overLimit")), (200, None));
}

#[tokio::test]
async fn blocked_user_can_start_in_observe_mode() {
    let server = server().await;
    server.json("PUT", "/v1/users/ann/limit", json!({"limit": 0})).await;
    let started = start(&server, json!({})).await;
    assert_eq!((started.status, &started.body["overLimit"], &started.body["limit"]), (201, &json!(true), &json!(0)));
}

#[tokio::test]
async fn stream_above_the_hard_limit_is_denied_with_limit_50() {
    let server = server().await;
    fill(&server, 50).await;
    for body in [json!({}), json!({"atLimit": "evictOldest"})] {
        let denied = start(&server, body).await;
        assert_eq!((denied.status, &denied.body["code"]), (409, &json!("stream-limit-reached")));
        assert_eq!((&denied.body["limit"], &denied.body["count"]), (&json!(50), &json!(50)));
        assert_eq!(denied.body["detail"], "50 of 50 streams are in use (the maximum in observe mode)");
        assert_eq!((denied.body.get("rule"), &denied.body["slotFreesInSeconds"]), (None, &json!(90)));
    }
    assert_eq!(server.call("GET", &format!("{STREAMS}/count")).await.body["count"], 50);
}

#[tokio::test]
async fn explicit_requests_end_streams_in_observe_mode() {
    let server = server().await;
    fill(&server, 4).await;
    let limit = server.json("PUT", "/v1/users/ann/limit", json!({"limit": 2, "endExcess": true})).await;
    assert_eq!(limit.body["ended"].as_array().unwrap().len(), 2);
    let evicted = server.json("POST", "/v1/users/ann/evictions", json!({})).await;
    assert_eq!(evicted.body["ended"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn starts_above_a_limit_are_counted_and_logged() {
    let (log, _capture) = CapturedLog::start();
    let server = server().await;
    let metric = |name: &str| value(&server.metrics, name);
    let over_rule = |rule: &str| metric(&format!("rule_over_limit_total{{rule=\"{rule}\"}}"));
    assert_eq!([over_rule("one UHD stream"), over_rule("no children's UHD")], [Some(0.0), Some(0.0)]);
    fill(&server, 1).await;
    let uhd = || json!({"labels": {"quality": "uhd", "profile": "child"}});
    start(&server, uhd()).await;
    start(&server, uhd()).await;
    assert_eq!([over_rule("one UHD stream"), over_rule("no children's UHD")], [Some(1.0), Some(2.0)]);
    let starts = |outcome: &str| metric(&format!("starts_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([starts("started"), starts("over_limit"), starts("denied")], [Some(1.0), Some(2.0), Some(0.0)]);
    assert_eq!(metric("rule_denials_total{rule=\"no children's UHD\"}"), Some(0.0));

    let events: Vec<Value> = log.take().into_iter().filter(|event| event["event"] == "start_over_limit").collect();
    assert_eq!(events.len(), 1, "one line per user and minute: {events:?}");
    let fields = ["level", "rule", "limit", "count", "suppressed"].map(|field| &events[0][field]);
    assert_eq!(fields, [&json!("INFO"), &json!("no children's UHD"), &json!(0), &json!(0), &json!(0)]);
}

#[tokio::test]
async fn startup_logs_the_limits_in_observe_mode() {
    let folder = temp_dir();
    let rules =
        r#"[{"name": "one", "max": 1, "per": "a"}, {"name": "two", "max": 2, "per": "a", "mode": "observe"}]"#;
    let second_enforced = rules.replace("observe", "enforce");
    for (mode, rules, expected) in [
        ("observe", "", Some("user_limit=true")),
        ("observe", second_enforced.as_str(), Some("user_limit=true rules=\"one\"")),
        ("observe", rules, Some("user_limit=true rules=\"one, two\"")),
        ("enforce", rules, Some("user_limit=false rules=\"two\"")),
        ("enforce", "", None),
    ] {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__LIMITS__MODE", mode).env("STREAM_MANAGER__LIMITS__RULES", rules);
        let service = Service::start(command.env("STREAM_MANAGER__STORE__KIND", "memory")).await;
        let line = service.first_lines.iter().find(|line| is_event(line, "limits_observed"));
        assert_eq!(line.is_some(), expected.is_some(), "{line:?}");
        if let (Some(line), Some(expected)) = (line, expected) {
            assert!(line.contains("WARN") && line.contains(expected), "{line}");
            assert_eq!(line.contains("rules="), expected.contains("rules="), "{line}");
        }
    }
}
