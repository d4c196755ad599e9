//! The events of each operation, through HTTP, on the memory store and on the DynamoDB protocol.

use std::sync::Arc;

use serde_json::{Value, json};
use stream_manager::events::settings::Identities;
use stream_manager::limiter::Policy;

use super::{Recording, kind, kinds};
use crate::rules::{UHD, rule};
use crate::support::Fixture;
use crate::test_app::{STREAMS, TestApp};

/// Runs each test on both stores.
macro_rules! on_both_stores {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::recording(super::Fixture::memory().await).await).await;
            })*
        }
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::recording(super::Fixture::embedded().await).await).await;
            })*
        }
    };
}

on_both_stores! {
    a_start_is_recorded_with_its_request_and_its_lease,
    a_repeated_start_is_a_replay,
    a_denial_is_recorded_with_what_it_exceeds,
    a_denial_by_a_rule_names_the_rule,
    ended_streams_precede_the_start_that_ended_them,
    stops_and_evictions_are_recorded_once,
    limits_are_recorded_with_their_previous_values,
    an_erasure_lists_the_streams_that_it_ended,
    requests_without_an_effect_have_no_events,
}

async fn recording(fixture: Fixture) -> Recording {
    let policy = Policy { rules: [rule("one UHD stream", 1, UHD, Some("channel"))].into(), ..Policy::default() };
    let app = TestApp {
        store: Arc::clone(&fixture.store),
        clock: Arc::clone(&fixture.clock),
        policy,
        ..TestApp::default()
    };
    Recording::start(app, Identities::Plain).await
}

impl Recording {
    async fn stream(&self, body: Value) -> String {
        self.server.start_stream("ann", body).await
    }

    async fn call(&self, method: &str, path: &str) {
        let response = self.server.call(method, path).await;
        assert!(response.status < 300, "{response:?}");
    }

    async fn put_limit(&self, body: Value) {
        assert_eq!(self.server.json("PUT", "/v1/users/ann/limit", body).await.status, 200);
    }
}

async fn a_start_is_recorded_with_its_request_and_its_lease(recording: Recording) {
    let id = recording
        .stream(json!({
            "deviceId": "tv", "deviceName": "Living room", "contentId": "movie-7",
            "labels": {"quality": "uhd", "channel": "news"}, "replaces": [crate::test_app::UNKNOWN_ID],
        }))
        .await;
    let events = recording.finish();
    let [event] = &events[..] else { panic!("{events:?}") };
    let instance = event["source"].as_str().unwrap().strip_prefix("urn:stream-manager:instance:").unwrap();
    assert_eq!(event["id"], format!("{instance}-{}", event["sequence"].as_str().unwrap()));
    assert_eq!(event["sequence"], "00000000000000000001");
    assert_eq!((&event["specversion"], &event["subject"]), (&json!("1.0"), &json!("ann")));
    assert_eq!(event["serviceversion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(event["time"], event["data"]["startedAt"]);
    let mut data = event["data"].clone();
    let times = ["startedAt", "expiresAt"].map(|key| data.as_object_mut().unwrap().remove(key).unwrap());
    assert!(times[1].as_str() > times[0].as_str());
    let expected = json!({
        "streamId": id, "hasKey": false, "deviceId": "tv", "deviceName": "Living room", "contentId": "movie-7",
        "labels": {"channel": "news", "quality": "uhd"}, "replaces": [crate::test_app::UNKNOWN_ID],
        "atLimit": "reject", "mode": "enforce", "limit": 3, "limitSource": "default", "countBefore": 0, "countAfter": 1,
        "rules": [{"name": "one UHD stream", "mode": "enforce", "limit": 1, "per": "news"}],
    });
    assert_eq!((kind(event), data), ("stream.started", expected));
}

async fn a_repeated_start_is_a_replay(recording: Recording) {
    for status in [201, 200] {
        let headers = [("idempotency-key", "key-1")];
        assert_eq!(recording.server.send("POST", STREAMS, &headers, Vec::new()).await.status, status);
    }
    let events = recording.finish();
    assert_eq!(kinds(&events), ["stream.started", "stream.replayed"]);
    for event in &events {
        assert_eq!((&event["data"]["hasKey"], event["data"]["expiresAt"].is_string()), (&json!(true), true));
    }
    assert_eq!(events[0]["data"]["streamId"], events[1]["data"]["streamId"]);
}

async fn a_denial_is_recorded_with_what_it_exceeds(recording: Recording) {
    recording.put_limit(json!({"limit": 1})).await;
    recording.stream(json!({})).await;
    assert_eq!(recording.server.call("POST", STREAMS).await.status, 409);
    let events = recording.finish();
    assert_eq!(kinds(&events), ["user.limit_changed", "stream.started", "stream.denied"]);
    let data = &events[2]["data"];
    assert_eq!(data["exceeded"], json!([{"limit": 1, "count": 1}]));
    assert_eq!((&data["limit"], &data["limitSource"]), (&json!(1), &json!("user")));
    assert_eq!((&data["countBefore"], &data["countAfter"]), (&json!(1), &json!(1)));
    assert_eq!((data.get("startedAt"), data.get("expiresAt")), (None, None));
}

async fn a_denial_by_a_rule_names_the_rule(recording: Recording) {
    let uhd = || json!({"labels": {"quality": "uhd", "channel": "news"}});
    recording.stream(json!({})).await;
    recording.stream(uhd()).await;
    assert_eq!(recording.server.json("POST", STREAMS, uhd()).await.status, 409);
    let events = recording.finish();
    let data = &events[2]["data"];
    assert_eq!(data["exceeded"], json!([{"rule": "one UHD stream", "limit": 1, "count": 1}]));
    assert_eq!((&data["limit"], &data["countBefore"]), (&json!(3), &json!(2)));
}

async fn ended_streams_precede_the_start_that_ended_them(recording: Recording) {
    recording.put_limit(json!({"limit": 1})).await;
    let expired = recording.stream(json!({"deviceId": "old", "contentId": "a"})).await;
    recording.server.clock.advance_ms(91_500);
    let replaced = recording.stream(json!({"deviceId": "tv", "labels": {"x": "y"}})).await;
    recording.server.clock.advance_ms(1_500);
    let evicted = recording.stream(json!({"deviceId": "tv"})).await;
    let last = recording.stream(json!({"deviceId": "phone", "atLimit": "evictOldest"})).await;
    let events = recording.finish();
    let ends =
        ["stream.expired", "stream.started", "stream.replaced", "stream.started", "stream.evicted", "stream.started"];
    assert_eq!(kinds(&events[2..]), ends);
    let data = |index: usize| &events[index + 2]["data"];
    let end = |index: usize| {
        let data = data(index);
        ["streamId", "deviceId", "sessionSeconds", "endedBy"].map(|key| data.get(key).cloned().unwrap_or_default())
    };
    assert_eq!(end(0), [json!(expired), json!("old"), json!(90.0), Value::Null]);
    assert_eq!(data(0)["contentId"], "a");
    assert!(data(0)["endedAt"].as_str() < events[2]["time"].as_str(), "the expiry");
    assert_eq!(end(2), [json!(replaced), json!("tv"), json!(1.5), json!(evicted)]);
    assert_eq!((&data(2)["labels"], &data(2)["endedAt"]), (&json!({"x": "y"}), &events[4]["time"]));
    assert_eq!(end(4), [json!(evicted), json!("tv"), json!(0.0), json!(last)]);
    let counts = [1, 3, 5].map(|index| (data(index)["countBefore"].clone(), data(index)["countAfter"].clone()));
    assert_eq!(counts, [(json!(0), json!(1)), (json!(1), json!(1)), (json!(1), json!(1))]);
}

async fn stops_and_evictions_are_recorded_once(recording: Recording) {
    let mut ids = Vec::new();
    for device in ["a", "b", "c"] {
        ids.push(recording.stream(json!({"deviceId": device})).await);
    }
    for _ in 0..2 {
        recording.call("DELETE", &format!("{STREAMS}/{}", ids[0])).await;
        recording.call("DELETE", &format!("{STREAMS}/{}?evict=true", ids[1])).await;
        let message = json!({"message": "Please call support."});
        assert_eq!(recording.server.json("POST", "/v1/users/ann/evictions", message).await.status, 200);
    }
    let events = recording.finish();
    assert_eq!(kinds(&events[3..]), ["stream.stopped", "stream.evicted", "stream.evicted"]);
    for (event, id) in events[3..].iter().zip(&ids) {
        assert_eq!((&event["data"]["streamId"], &event["data"]["endedAt"]), (&json!(id), &event["time"]));
    }
    assert_eq!((&events[4]["data"]["deviceId"], events[3]["data"].get("deviceId")), (&json!("b"), None));
    assert!(!events[5].to_string().contains("support"), "messages are not in events");
}

async fn limits_are_recorded_with_their_previous_values(recording: Recording) {
    let id = recording.stream(json!({})).await;
    recording.put_limit(json!({"limit": 5})).await;
    recording.put_limit(json!({"limit": 0, "endExcess": true})).await;
    recording.call("DELETE", "/v1/users/ann/limit").await;
    let events = recording.finish();
    let types = ["user.limit_changed", "stream.evicted", "user.limit_changed", "user.limit_changed"];
    assert_eq!(kinds(&events[1..]), types);
    assert_eq!(events[1]["data"], json!({"limit": 5}));
    assert_eq!(events[2]["data"]["streamId"], id);
    assert_eq!(events[3]["data"], json!({"limit": 0, "previousLimit": 5}));
    assert_eq!(events[4]["data"], json!({"previousLimit": 0}));
}

async fn an_erasure_lists_the_streams_that_it_ended(recording: Recording) {
    let ids = [recording.stream(json!({"deviceId": "a"})).await, recording.stream(json!({"deviceId": "b"})).await];
    for _ in 0..2 {
        recording.call("DELETE", "/v1/users/ann").await;
    }
    let events = recording.finish();
    assert_eq!(kinds(&events[2..]), ["user.erased", "user.erased"]);
    let mut ended: Vec<&str> =
        events[2]["data"]["ended"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    ended.sort_unstable();
    let mut expected = ids.each_ref().map(String::as_str);
    expected.sort_unstable();
    assert_eq!(ended, expected);
    assert_eq!(events[3]["data"]["ended"], json!([]));
}

async fn requests_without_an_effect_have_no_events(recording: Recording) {
    let id = recording.stream(json!({})).await;
    recording.server.clock.advance_ms(1);
    recording.call("POST", &format!("{STREAMS}/{id}/heartbeat")).await;
    recording.call("GET", STREAMS).await;
    recording.call("DELETE", &format!("{STREAMS}/{}", crate::test_app::UNKNOWN_ID)).await;
    let key = [("idempotency-key", "k"), ("content-type", "application/json")];
    recording.server.send("POST", STREAMS, &key, b"{}".to_vec()).await;
    recording.server.send("POST", STREAMS, &key, br#"{"deviceId":"tv"}"#.to_vec()).await.assert_problem(
        422,
        "idempotency-key-reused",
        "another body",
    );
    let evictions = json!({"streamIds": []});
    assert_eq!(recording.server.json("POST", "/v1/users/ann/evictions", evictions).await.status, 200);
    assert_eq!(kinds(&recording.finish()), ["stream.started", "stream.started"]);
}
