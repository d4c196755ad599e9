//! A table that changes while instances of two versions work on it: what pipelines are told, and what this version does with
//! what it does not know.

use std::process::Output;

use aws_sdk_dynamodb::Client;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::UserName;
use stream_manager::store::dynamodb::codec::{self, Item, text};
use stream_manager::store::{StartHint, StoppedBy, StreamState};

use crate::process::{command, folder, run};
use crate::startup::{NO_TABLE, dynamodb};
use crate::support::{Backing, Fixture, TABLE, TERMS, items as stored, on_device, someone, start, stream};

const LATER: &str = "addedLater";

const OF_ANOTHER: (&str, &str) = (
    "200 OK",
    r#"{"Table":{"TableStatus":"CREATING","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}}"#,
);
const AS_NEEDED: (&str, &str) = (
    "200 OK",
    r#"{"Table":{"TableStatus":"ACTIVE",
        "AttributeDefinitions":[{"AttributeName":"userName","AttributeType":"S"},{"AttributeName":"record","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"userName","KeyType":"HASH"},{"AttributeName":"record","KeyType":"RANGE"}]}}"#,
);
const TTL: (&str, &str) =
    ("200 OK", r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED","AttributeName":"ttl"}}"#);
const NO_TTL: (&str, &str) = ("200 OK", r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"DISABLED"}}"#);
const DENIED: (&str, &str) =
    ("400 Bad Request", r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"not allowed"}"#);

async fn check(endpoint: &str) -> (Option<i32>, Vec<String>, Vec<String>) {
    let folder = folder();
    let mut command = command(folder.path());
    command.args(["migrate", "--check"]).env("STREAM_MANAGER__STORE__KIND", "dynamodb");
    command.env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", endpoint);
    command.envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    let Output { status, stdout, stderr } = run(&mut command).await;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    (status.code(), lines(&stdout), lines(&stderr))
}

#[tokio::test]
async fn a_pipeline_learns_from_the_exit_code_whether_the_table_fits_differs_or_cannot_be_asked() {
    let fits = dynamodb(|operation| if operation.starts_with("DescribeTable") { AS_NEEDED } else { TTL }).await;
    assert_eq!(check(&fits).await, (Some(0), vec!["table \"user-streams\" is up to date".to_owned()], vec![]));

    let missing = dynamodb(|_| NO_TABLE).await;
    let lines = ["does not exist: run `stream-manager migrate`", "has no TTL: run `stream-manager migrate`"];
    let lines = lines.map(|line| format!("table \"user-streams\" {line}")).to_vec();
    assert_eq!(check(&missing).await, (Some(1), lines, vec![]));

    let other = dynamodb(|operation| if operation.starts_with("DescribeTable") { OF_ANOTHER } else { NO_TTL }).await;
    let (code, lines, _) = check(&other).await;
    assert_eq!(code, Some(1));
    let parts = ["has the keys HASH id (S), but the service needs", "is CREATING, not active", "has no TTL"];
    assert_eq!(lines.len(), parts.len(), "{lines:?}");
    assert!(lines.iter().zip(parts).all(|(line, part)| line.contains(part)), "{lines:?}");

    let denied = dynamodb(|_| DENIED).await;
    for endpoint in [denied.as_str(), "http://127.0.0.1:9", "nonsense"] {
        let (code, out, errors) = check(endpoint).await;
        assert_eq!((code, out.len(), errors.len()), (Some(3), 0, 1), "{endpoint}: {errors:?}");
        assert!(errors[0].starts_with("error: "), "{errors:?}");
    }
}

/// A user's items as a newer version might leave them: an attribute more, and a record of a new kind.
async fn add_what_is_not_known(client: &Client, user: &UserName) {
    let mut of_new_kind = codec::counter_key(user);
    of_new_kind.insert(codec::RECORD.to_owned(), text("device#tv"));
    for mut item in stored(client, user).await.into_iter().chain([of_new_kind]) {
        item.insert(LATER.to_owned(), text("by a newer version"));
        client.put_item().table_name(TABLE).set_item(Some(item)).send().await.expect("a put");
    }
}

async fn record(client: &Client, user: &UserName, record: &str) -> Option<Item> {
    let all = stored(client, user).await;
    all.into_iter().find(|item| item[codec::RECORD].as_s().is_ok_and(|found| found == record))
}

#[tokio::test]
async fn what_a_newer_version_added_is_ignored_by_every_verb_and_still_there_after_each() {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(_, client) = &fixture.backing else { panic!("embedded") };
    let (store, user, now) = (&fixture.store, someone(), fixture.now());
    store.start(&user, &start(1), StartHint::Optimistic, now).await.expect("a start");
    store.start(&user, &on_device(2, "tv"), StartHint::Optimistic, now).await.expect("a start");
    store.start(&user, &start(3), StartHint::Optimistic, now).await.expect("a start");
    add_what_is_not_known(client, &user).await;
    let kept = async |kind: &str, after: &str| {
        let item = record(client, &user, kind).await.unwrap_or_else(|| panic!("{kind} after {after}"));
        assert_eq!(item.get(LATER), Some(&text("by a newer version")), "{kind} after {after}");
    };
    let lease = |n| format!("stream#{}", stream(n));

    assert_eq!(store.streams(&user, now).await.expect("a list").live.len(), 3);
    let one = store.stream(&user, stream(1), now).await.expect("a look");
    assert!(matches!(one, StreamState::Live(_)), "{one:?}");
    let beat = store.heartbeat(&user, stream(1), TERMS, now.plus_s(9)).await.expect("a heartbeat");
    assert!(beat.previous_expiry.is_some(), "renewed");
    kept(&lease(1), "a heartbeat").await;

    store.stop(&user, stream(1), StoppedBy::Evictor, TERMS, now).await.expect("an eviction");
    kept(&lease(1), "an eviction").await;
    kept("counter", "an eviction").await;

    store.start(&user, &on_device(4, "tv"), StartHint::Optimistic, now).await.expect("a start that replaces");
    kept(&lease(2), "it was replaced").await;
    kept("counter", "a decided start").await;

    store.stop(&user, stream(3), StoppedBy::Player, TERMS, now).await.expect("a stop");
    store.start(&user, &start(5), StartHint::Optimistic, now).await.expect("a plain start");
    store.set_limit(&user, StreamLimit::new(5)).await.expect("a limit");
    assert_eq!(store.limit(&user).await.expect("a limit"), StreamLimit::new(5));
    store.set_limit(&user, None).await.expect("no limit");
    kept("counter", "a stop, a plain start and limits").await;
    kept("device#tv", "all of it").await;
    assert_eq!(store.streams(&user, now).await.expect("a list").live.len(), 2);
}

#[tokio::test]
async fn a_start_that_takes_an_expired_lease_of_its_own_id_writes_it_anew_without_what_was_added() {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(_, client) = &fixture.backing else { panic!("embedded") };
    let (store, user) = (&fixture.store, someone());
    store.start(&user, &start(1), StartHint::Optimistic, fixture.now()).await.expect("a start");
    add_what_is_not_known(client, &user).await;
    fixture.advance_s(i64::from(TERMS.duration_s));
    store.start(&user, &start(1), StartHint::Optimistic, fixture.now()).await.expect("the same start");
    let lease = record(client, &user, &format!("stream#{}", stream(1))).await.expect("a lease");
    assert_eq!(lease.get(LATER), None);
    let counter = record(client, &user, "counter").await.expect("a counter");
    assert!(counter.contains_key(LATER));
}
