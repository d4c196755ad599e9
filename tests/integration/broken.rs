//! A stored item that breaks the schema: 500 where it is read, for its user only, named in the log and nowhere else, and
//! nobody is stuck for ever.

use std::io;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use stream_manager::domain::names::UserName;
use stream_manager::store::dynamodb::codec::{self, Item, number, text};

use crate::server::{Answer, BOUNDS, TestServer};
use crate::support::{Backing, Fixture, TABLE, items as stored, someone};

/// A service on an engine whose items can be broken, two streams of one user, and what the log says.
struct Scene {
    fixture: Fixture,
    client: Client,
    server: TestServer,
    user: UserName,
    streams: String,
    broken: String,
    well: String,
    log: Log,
    _logging: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Scene {
    async fn new() -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        let fixture = Fixture::embedded().await.expect("an engine");
        let Backing::Embedded(_, client) = &fixture.backing else { panic!("embedded") };
        let client = client.clone();
        let server = TestServer::with_clock(Arc::clone(&fixture.store), fixture.clock.clone(), BOUNDS).await;
        let user = someone();
        let broken = server.started(user.as_str(), json!({})).await;
        let well = server.started(user.as_str(), json!({})).await;
        let streams = format!("/v1/users/{user}/streams");
        Self { fixture, client, server, user, streams, broken, well, log, _logging: logging }
    }

    async fn item(&self, record: &str) -> Item {
        let all = stored(&self.client, &self.user).await;
        all.into_iter().find(|item| item[codec::RECORD].as_s().is_ok_and(|found| found == record)).expect("an item")
    }

    async fn put(&self, item: Item) {
        self.client.put_item().table_name(TABLE).set_item(Some(item)).send().await.expect("a put");
    }

    /// Replaces an attribute, or with `None` removes it.
    async fn damage(&self, record: &str, attribute: &str, value: Option<AttributeValue>) {
        let mut item = self.item(record).await;
        match value {
            Some(value) => item.insert(attribute.to_owned(), value),
            None => item.remove(attribute),
        };
        self.put(item).await;
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        self.server.call(method, path).await
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.call(method, path).await.status
    }

    async fn start_on_a_device(&self) -> Answer {
        self.server.json("POST", &self.streams, json!({"deviceId": "tv"})).await
    }

    /// 500, with nothing of the store in it, and one line of the log that names the item.
    fn assert_internal(&self, answer: &Answer, record: &str, what: &str) {
        assert_eq!((answer.status, &answer.body["code"]), (500, &json!("internal")), "{what}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["detail"], "stored data of this user is not valid", "{what}");
        assert_eq!(answer.body.as_object().expect("an object").len(), 6, "{what}: {}", answer.body);
        let log = std::mem::take(&mut *self.log.0.lock().expect("a lock"));
        let log = String::from_utf8(log).expect("UTF-8").replace("\\\"", "\"");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("request failed")).collect();
        let key = format!("stored item \"{}\"/\"{record}\" is not valid", self.user);
        assert_eq!(lines.len(), 1, "{what}: {log}");
        assert!(lines[0].contains(&key) && lines[0].contains("\"level\":\"ERROR\""), "{what}: {}", lines[0]);
    }

    async fn assert_others_are_served(&self) {
        let other = someone();
        let id = self.server.started(other.as_str(), json!({"deviceId": "tv"})).await;
        let stream = format!("/v1/users/{other}/streams/{id}");
        assert_eq!(self.status("POST", &format!("{stream}/heartbeat")).await, 200);
        assert_eq!(self.call("GET", &format!("/v1/users/{other}/streams")).await.body["count"], 1);
        assert_eq!(self.status("DELETE", &stream).await, 204);
    }
}

#[tokio::test]
async fn a_broken_lease_fails_what_reads_it_and_nothing_else() {
    for (attribute, value) in [
        (codec::EXPIRES_AT, Some(text("soon"))),
        (codec::EXPIRES_AT, Some(number("1.5"))),
        (codec::EXPIRES_AT, None),
        (codec::STARTED_AT, None),
        (codec::TTL, Some(text("never"))),
        (codec::DEVICE_ID, Some(text("x".repeat(129)))),
        (codec::DEVICE_NAME, Some(text("a\u{7}"))),
        (codec::CONTENT_ID, Some(AttributeValue::Null(true))),
        (codec::FINGERPRINT, Some(text("x"))),
        (codec::END_REASON, Some(text("bored"))),
    ] {
        let scene = Scene::new().await;
        let (record, streams) = (format!("stream#{}", scene.broken), &scene.streams);
        let (broken, well) = (format!("{streams}/{}", scene.broken), format!("{streams}/{}", scene.well));
        let limit = format!("/v1/users/{}/limit", scene.user);
        scene.damage(&record, attribute, value.clone()).await;
        let what = |verb: &str| format!("{verb} with {attribute} = {value:?}");

        for (method, path) in [("GET", streams.clone()), ("GET", format!("{streams}/count")), ("GET", broken.clone())]
        {
            scene.assert_internal(&scene.call(method, &path).await, &record, &what(&path));
        }
        let beat = scene.call("POST", &format!("{broken}/heartbeat")).await;
        scene.assert_internal(&beat, &record, &what("heartbeat"));
        scene.assert_internal(&scene.start_on_a_device().await, &record, &what("a start that decides"));

        assert_eq!(scene.status("POST", streams).await, 201, "{}", what("a plain start reads nothing"));
        scene.assert_internal(&scene.call("POST", streams).await, &record, &what("a start without room decides"));
        assert_eq!(scene.status("POST", &format!("{well}/heartbeat")).await, 200);
        assert_eq!(scene.status("GET", &well).await, 200);
        assert_eq!(scene.status("GET", &limit).await, 200, "the limit is on the counter");
        assert_eq!(scene.server.json("PUT", &limit, json!({"limit": 5})).await.status, 200);
        assert_eq!(scene.status("DELETE", &limit).await, 204);
        scene.assert_others_are_served().await;

        let evicted = scene.status("DELETE", &format!("{well}?evict=true")).await;
        assert_eq!(evicted, 204, "{}", what("an eviction that cannot see what to forget forgets nothing"));
        assert_eq!(scene.status("DELETE", &broken).await, 204, "{}", what("a stop reads nothing"));
        let listed = scene.call("GET", streams).await;
        assert_eq!((listed.status, &listed.body["count"]), (200, &json!(1)), "{}", what("all is well after"));
        assert_eq!(scene.start_on_a_device().await.status, 201);
    }
}

#[tokio::test]
async fn a_broken_counter_fails_what_reads_it_until_it_is_repaired() {
    for (attribute, value, start, stop) in [
        (codec::STREAMS, AttributeValue::L(vec![text("x")]), 500, 204),
        (codec::STREAMS, text("x"), 500, 204),
        (codec::STREAMS, number(2), 500, 204),
        (codec::STREAMS, AttributeValue::Ss(vec!["x".to_owned()]), 201, 204),
        (codec::STREAM_LIMIT, number(0), 500, 204),
        (codec::STREAM_LIMIT, number(51), 500, 204),
        (codec::STREAM_LIMIT, text("3"), 500, 204),
        (codec::REVISION, text("x"), 500, 500),
        (codec::REVISION, number("-9"), 201, 204),
    ] {
        let scene = Scene::new().await;
        let streams = &scene.streams;
        let well = format!("{streams}/{}", scene.well);
        let limit = format!("/v1/users/{}/limit", scene.user);
        let before = scene.item("counter").await;
        scene.damage("counter", attribute, Some(value.clone())).await;
        let what = |verb: &str| format!("{verb} with {attribute} = {value:?}");

        for path in [streams.clone(), format!("{streams}/count"), limit.clone()] {
            scene.assert_internal(&scene.call("GET", &path).await, "counter", &what(&path));
        }
        scene.assert_internal(&scene.start_on_a_device().await, "counter", &what("a start that decides"));
        assert_eq!(
            scene.status("POST", &format!("{well}/heartbeat")).await,
            200,
            "a heartbeat reads its lease alone"
        );
        assert_eq!(scene.status("GET", &well).await, 200);
        for (verb, method, path, expected) in [("start", "POST", streams, start), ("stop", "DELETE", &well, stop)] {
            let answer = scene.call(method, path).await;
            assert_eq!(answer.status, expected, "{}: {answer:?}", what(verb));
            if expected == 500 {
                scene.assert_internal(&answer, "counter", &what(verb));
            }
        }
        scene.assert_others_are_served().await;

        if attribute == codec::STREAM_LIMIT {
            assert_eq!(scene.server.json("PUT", &limit, json!({"limit": 5})).await.status, 200, "repairs it");
            assert_eq!(scene.call("GET", &limit).await.body["limit"], 5);
        } else {
            scene.put(before).await;
        }
        assert_eq!(scene.status("GET", streams).await, 200, "{}", what("all is well after the repair"));
        assert_eq!(scene.start_on_a_device().await.status, 201);
    }
}

#[tokio::test]
async fn ttl_deletes_a_broken_lease_and_its_slot_is_free() {
    let scene = Scene::new().await;
    scene.damage(&format!("stream#{}", scene.broken), codec::EXPIRES_AT, Some(text("soon"))).await;
    scene.server.json("PUT", &format!("/v1/users/{}/limit", scene.user), json!({"limit": 1})).await;
    assert_eq!(scene.start_on_a_device().await.status, 500);
    scene.fixture.advance_s(90 + 3600 + 1);
    scene.fixture.sweep(&scene.user).await;
    assert_eq!(scene.call("GET", &scene.streams).await.body["count"], 0);
    assert_eq!(scene.start_on_a_device().await.status, 201);
}

#[tokio::test]
async fn a_record_that_names_no_stream_is_an_error_until_it_is_deleted() {
    let scene = Scene::new().await;
    let mut odd = scene.item(&format!("stream#{}", scene.well)).await;
    odd.insert(codec::RECORD.to_owned(), text("stream#x"));
    scene.put(odd).await;
    scene.assert_internal(&scene.call("GET", &scene.streams).await, "stream#x", "list");
    let key = [(codec::USER_NAME, text(scene.user.as_str())), (codec::RECORD, text("stream#x"))];
    let key = key.map(|(name, value)| (name.to_owned(), value));
    scene.client.delete_item().table_name(TABLE).set_key(Some(key.into())).send().await.expect("a delete");
    assert_eq!(scene.call("GET", &scene.streams).await.body["count"], 2);
}
