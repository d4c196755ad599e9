//! Stored items that violate the schema. Operations that read such an item return 500 and log one line that names the item. Other
//! users are not affected. After a stop, a repair or deletion by TTL, the operations succeed again.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use stream_manager::domain::names::UserName;
use stream_manager::store::dynamodb::codec::{self, Item, number, text};
use tracing::subscriber::DefaultGuard;

use crate::captured_log::CapturedLog;
use crate::support::{Fixture, stream_record, unique_user};
use crate::test_app::{TestApp, TestResponse, TestServer};

/// A server on an embedded store, a user with two streams, and the captured log.
struct Scene {
    fixture: Fixture,
    server: TestServer,
    user: UserName,
    /// The URL path of the user's streams.
    streams: String,
    /// The id of the stream whose item is damaged.
    damaged: String,
    /// The id of the other stream.
    intact: String,
    log: CapturedLog,
    _capture: DefaultGuard,
}

impl Scene {
    async fn new() -> Self {
        let (log, capture) = CapturedLog::start();
        let fixture = Fixture::embedded().await;
        let (store, clock) = (Arc::clone(&fixture.store), Arc::clone(&fixture.clock));
        let server = TestApp { store, clock, ..TestApp::default() }.serve().await;
        let user = unique_user();
        let damaged = server.start_stream(user.as_str(), json!({})).await;
        let intact = server.start_stream(user.as_str(), json!({})).await;
        let streams = format!("/v1/users/{user}/streams");
        Self { fixture, server, user, streams, damaged, intact, log, _capture: capture }
    }

    async fn item(&self, record: &str) -> Item {
        self.fixture.item(&self.user, record).await.unwrap()
    }

    /// Replaces an attribute, or removes it if `value` is `None`.
    async fn damage(&self, record: &str, attribute: &str, value: Option<AttributeValue>) {
        let mut item = self.item(record).await;
        match value {
            Some(value) => item.insert(attribute.to_owned(), value),
            None => item.remove(attribute),
        };
        self.fixture.put(item).await;
    }

    async fn call(&self, method: &str, path: &str) -> TestResponse {
        self.server.call(method, path).await
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.call(method, path).await.status
    }

    /// Starts a stream with a device. Such a start always reads the user's items.
    async fn start_on_device(&self) -> TestResponse {
        self.server.json("POST", &self.streams, json!({"deviceId": "tv"})).await
    }

    /// Asserts a 500 without internals, and one log line that names the item.
    fn assert_internal(&self, response: &TestResponse, record: &str, context: &str) {
        response.assert_problem(500, "internal", context);
        assert_eq!(response.headers["content-type"], "application/problem+json");
        let members: Vec<&String> = response.body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "detail", "instance", "status", "title", "type"], "{context}");
        // The detail is the same for every item and attribute.
        assert_eq!(response.body["detail"], "stored data of this user is not valid", "{context}");
        let events = self.log.take();
        let failures: Vec<_> = events.iter().filter(|event| event["code"] == "internal").collect();
        assert_eq!(failures.len(), 1, "{context}: {events:?}");
        assert_eq!(failures[0]["level"], "ERROR", "{context}: {failures:?}");
        let cause = failures[0]["cause"].as_str().unwrap();
        let key = format!("\"{}\"/\"{record}\"", self.user);
        assert!(cause.contains(&key), "{context}: {cause}");
    }

    async fn assert_other_users_are_served(&self) {
        let other = unique_user();
        let id = self.server.start_stream(other.as_str(), json!({"deviceId": "tv"})).await;
        let stream = format!("/v1/users/{other}/streams/{id}");
        assert_eq!(self.status("POST", &format!("{stream}/heartbeat")).await, 200);
        assert_eq!(self.call("GET", &format!("/v1/users/{other}/streams")).await.body["count"], 1);
        assert_eq!(self.status("DELETE", &stream).await, 204);
    }
}

#[tokio::test]
async fn a_corrupt_lease_fails_only_operations_that_read_it() {
    for (attribute, value) in [
        (codec::EXPIRES_AT, Some(text("soon"))),
        (codec::EXPIRES_AT, Some(number("1.5"))),
        (codec::EXPIRES_AT, None),
        (codec::STARTED_AT, None),
        (codec::TTL, Some(text("never"))),
        (codec::DEVICE_ID, Some(text("x".repeat(129)))),
        (codec::DEVICE_NAME, Some(number(7))),
        (codec::CONTENT_ID, Some(AttributeValue::Null(true))),
        (codec::FINGERPRINT, Some(text("x"))),
        (codec::LABELS, Some(text("uhd"))),
        (codec::LABELS, Some(AttributeValue::M(Item::from([("quality".to_owned(), number(4))])))),
        (codec::LABELS, Some(AttributeValue::M(Item::from([("Quality".to_owned(), text("uhd"))])))),
        (codec::END_REASON, Some(text("bored"))),
    ] {
        let scene = Scene::new().await;
        let (record, streams) = (stream_record(&scene.damaged), &scene.streams);
        let (damaged, intact) = (format!("{streams}/{}", scene.damaged), format!("{streams}/{}", scene.intact));
        let limit = format!("/v1/users/{}/limit", scene.user);
        scene.damage(&record, attribute, value.clone()).await;
        let context = |operation: &str| format!("{operation} with {attribute} = {value:?}");

        for path in [streams.clone(), format!("{streams}/count"), damaged.clone()] {
            scene.assert_internal(&scene.call("GET", &path).await, &record, &context(&path));
        }
        let heartbeat = scene.call("POST", &format!("{damaged}/heartbeat")).await;
        scene.assert_internal(&heartbeat, &record, &context("heartbeat"));
        scene.assert_internal(&scene.start_on_device().await, &record, &context("start with a device"));

        assert_eq!(scene.status("POST", streams).await, 201, "{}", context("optimistic start"));
        // The user is at the limit now, so the next start reads the items.
        scene.assert_internal(&scene.call("POST", streams).await, &record, &context("start at the limit"));
        assert_eq!(scene.status("POST", &format!("{intact}/heartbeat")).await, 200);
        assert_eq!(scene.status("GET", &intact).await, 200);
        assert_eq!(scene.status("GET", &limit).await, 200, "this operation reads only the counter");
        assert_eq!(scene.server.json("PUT", &limit, json!({"limit": 5})).await.status, 200);
        assert_eq!(scene.status("DELETE", &limit).await, 204);
        scene.assert_other_users_are_served().await;

        let evicted = scene.call("DELETE", &format!("{intact}?evict=true")).await;
        scene.assert_internal(&evicted, &record, &context("eviction"));
        assert_eq!(scene.status("DELETE", &damaged).await, 204, "{}", context("stop, which reads nothing"));
        let listed = scene.call("GET", streams).await;
        assert_eq!((listed.status, &listed.body["count"]), (200, &json!(2)), "{}", context("list after the stop"));
        assert_eq!(scene.start_on_device().await.status, 201);
    }
}

#[tokio::test]
async fn a_corrupt_counter_fails_operations_that_read_it() {
    for (attribute, value, start, stop) in [
        (codec::STREAMS, AttributeValue::L(vec![text("x")]), 500, 204),
        (codec::STREAMS, text("x"), 500, 204),
        (codec::STREAMS, number(2), 500, 204),
        (codec::STREAMS, AttributeValue::Ss(vec!["x".to_owned()]), 201, 204),
        (codec::STREAM_LIMIT, number(-1), 500, 204),
        (codec::STREAM_LIMIT, number(51), 500, 204),
        (codec::STREAM_LIMIT, text("3"), 500, 204),
        (codec::REVISION, text("x"), 500, 500),
        (codec::REVISION, number("-9"), 201, 204),
    ] {
        let scene = Scene::new().await;
        let streams = &scene.streams;
        let intact = format!("{streams}/{}", scene.intact);
        let limit = format!("/v1/users/{}/limit", scene.user);
        let before = scene.item("counter").await;
        scene.damage("counter", attribute, Some(value.clone())).await;
        let context = |operation: &str| format!("{operation} with {attribute} = {value:?}");

        for path in [streams.clone(), format!("{streams}/count"), limit.clone()] {
            scene.assert_internal(&scene.call("GET", &path).await, "counter", &context(&path));
        }
        scene.assert_internal(&scene.start_on_device().await, "counter", &context("start with a device"));
        let heartbeat = scene.status("POST", &format!("{intact}/heartbeat")).await;
        assert_eq!(heartbeat, 200, "a heartbeat reads only its lease");
        assert_eq!(scene.status("GET", &intact).await, 200);
        for (operation, method, path, expected) in
            [("start", "POST", streams, start), ("stop", "DELETE", &intact, stop)]
        {
            let response = scene.call(method, path).await;
            assert_eq!(response.status, expected, "{}: {response:?}", context(operation));
            if expected == 500 {
                scene.assert_internal(&response, "counter", &context(operation));
            }
        }
        scene.assert_other_users_are_served().await;

        if attribute == codec::STREAM_LIMIT {
            assert_eq!(scene.server.json("PUT", &limit, json!({"limit": 5})).await.status, 200, "the repair");
            assert_eq!(scene.call("GET", &limit).await.body["limit"], 5);
        } else {
            scene.fixture.put(before).await;
        }
        assert_eq!(scene.status("GET", streams).await, 200, "{}", context("list after the repair"));
        assert_eq!(scene.start_on_device().await.status, 201);
    }
}

#[tokio::test]
async fn ttl_deletion_of_a_corrupt_lease_frees_its_slot() {
    let scene = Scene::new().await;
    scene.damage(&stream_record(&scene.damaged), codec::EXPIRES_AT, Some(text("soon"))).await;
    scene.server.json("PUT", &format!("/v1/users/{}/limit", scene.user), json!({"limit": 1})).await;
    assert_eq!(scene.start_on_device().await.status, 500);
    scene.fixture.advance_s(90 + 3600 + 1);
    scene.fixture.sweep(&scene.user).await;
    assert_eq!(scene.call("GET", &scene.streams).await.body["count"], 0);
    assert_eq!(scene.start_on_device().await.status, 201);
}

#[tokio::test]
async fn a_malformed_record_key_fails_until_it_is_deleted() {
    let scene = Scene::new().await;
    let mut malformed = scene.item(&stream_record(&scene.intact)).await;
    malformed.insert(codec::RECORD.to_owned(), text("stream#x"));
    scene.fixture.put(malformed).await;
    scene.assert_internal(&scene.call("GET", &scene.streams).await, "stream#x", "list");
    scene.fixture.delete(&scene.user, "stream#x").await;
    assert_eq!(scene.call("GET", &scene.streams).await.body["count"], 2);
}
