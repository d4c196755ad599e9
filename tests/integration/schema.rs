//! Schema changes while instances of two versions run: exit codes of `migrate --check`, and items with unknown attributes or keys.

use std::process::Output;

use stream_manager::domain::admission::{StartOutcome, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::UserName;
use stream_manager::store::dynamodb::codec::{self, text};
use stream_manager::store::{StartHint, StreamState};

use crate::rules::{UHD, labels, rule};
use crate::service::{dynamodb_command, run, temp_dir, unused_url};
use crate::startup::{CannedResponse, NO_TABLE, fake_dynamodb};
use crate::support::{Fixture, TERMS, eviction, on_device, renewal, start, stream, stream_record, unique_user};

/// An attribute that this version does not support.
const UNKNOWN_ATTRIBUTE: &str = "addedLater";
/// The sort key of an item that this version does not support.
const UNKNOWN_RECORD: &str = "device#tv";

const OTHER_KEYS: CannedResponse = (
    "200 OK",
    r#"{"Table":{"TableStatus":"CREATING","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}}"#,
);
const MATCHING: CannedResponse = (
    "200 OK",
    r#"{"Table":{"TableStatus":"ACTIVE",
        "AttributeDefinitions":[{"AttributeName":"userName","AttributeType":"S"},{"AttributeName":"record","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"userName","KeyType":"HASH"},{"AttributeName":"record","KeyType":"RANGE"}]}}"#,
);
const TTL: CannedResponse =
    ("200 OK", r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED","AttributeName":"ttl"}}"#);
const NO_TTL: CannedResponse = ("200 OK", r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"DISABLED"}}"#);
const DENIED: CannedResponse =
    ("400 Bad Request", r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"not allowed"}"#);

async fn check(endpoint: &str) -> (Option<i32>, Vec<String>, Vec<String>) {
    let folder = temp_dir();
    let mut command = dynamodb_command(folder.path(), endpoint);
    let Output { status, stdout, stderr } = run(command.args(["migrate", "--check"])).await;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    (status.code(), lines(&stdout), lines(&stderr))
}

#[tokio::test]
async fn check_exits_with_0_if_the_table_matches() {
    let matching =
        fake_dynamodb(|operation| if operation.starts_with("DescribeTable") { MATCHING } else { TTL }).await;
    assert_eq!(check(&matching).await, (Some(0), vec!["table \"user-streams\" is up to date".to_owned()], vec![]));
}

#[tokio::test]
async fn check_exits_with_1_and_lists_every_difference() {
    let missing = fake_dynamodb(|_| NO_TABLE).await;
    let lines = ["does not exist: run `stream-manager migrate`", "has no TTL: run `stream-manager migrate`"];
    let lines = lines.map(|line| format!("table \"user-streams\" {line}")).to_vec();
    assert_eq!(check(&missing).await, (Some(1), lines, vec![]));

    let other =
        fake_dynamodb(|operation| if operation.starts_with("DescribeTable") { OTHER_KEYS } else { NO_TTL }).await;
    let (code, lines, _) = check(&other).await;
    assert_eq!(code, Some(1));
    let parts = ["has the keys HASH id (S), but the service needs", "is CREATING, not active", "has no TTL"];
    assert_eq!(lines.len(), parts.len(), "{lines:?}");
    assert!(lines.iter().zip(parts).all(|(line, part)| line.contains(part)), "{lines:?}");
}

#[tokio::test]
async fn check_exits_with_3_if_the_table_cannot_be_described() {
    let denied = fake_dynamodb(|_| DENIED).await;
    for endpoint in [denied.as_str(), &unused_url(), "nonsense"] {
        let (code, out, errors) = check(endpoint).await;
        assert_eq!((code, out.len(), errors.len()), (Some(3), 0, 1), "{endpoint}: {errors:?}");
        assert!(errors[0].starts_with("error: "), "{errors:?}");
    }
}

/// Adds an unknown attribute to the user's items, and an item with an unknown sort key, as a newer version might do.
async fn add_unknown_data(fixture: &Fixture, user: &UserName) {
    let mut unknown = codec::counter_key(user);
    unknown.insert(codec::RECORD.to_owned(), text(UNKNOWN_RECORD));
    for mut item in fixture.items(user).await.into_iter().chain([unknown]) {
        item.insert(UNKNOWN_ATTRIBUTE.to_owned(), text("by a newer version"));
        fixture.put(item).await;
    }
}

#[tokio::test]
async fn every_operation_ignores_and_keeps_unknown_data() {
    let fixture = Fixture::embedded().await;
    let (store, user, now) = (&fixture.store, unique_user(), fixture.now());
    store.start(&user, &start(1), StartHint::Optimistic, now).await.unwrap();
    store.start(&user, &on_device(2, "tv"), StartHint::Optimistic, now).await.unwrap();
    store.start(&user, &start(3), StartHint::Optimistic, now).await.unwrap();
    add_unknown_data(&fixture, &user).await;
    let assert_kept = async |record: &str, after: &str| {
        let item = fixture.item(&user, record).await.unwrap_or_else(|| panic!("{record} is missing after {after}"));
        assert_eq!(item.get(UNKNOWN_ATTRIBUTE), Some(&text("by a newer version")), "{record} after {after}");
    };
    let lease = |n| stream_record(stream(n));

    assert_eq!(store.streams(&user, now).await.unwrap().live.len(), 3);
    let one = store.stream(&user, stream(1), now).await.unwrap();
    assert!(matches!(one, StreamState::Live(_)), "{one:?}");
    let heartbeat = store.heartbeat(&user, &renewal(1), now.plus_s(9)).await.unwrap();
    assert!(heartbeat.previous_expiry.is_some(), "the heartbeat renewed the lease");
    assert_kept(&lease(1), "a heartbeat").await;

    store.end(&user, &eviction(1), now).await.unwrap();
    assert_kept(&lease(1), "an eviction").await;
    assert_kept("counter", "an eviction").await;

    store.start(&user, &on_device(4, "tv"), StartHint::Optimistic, now).await.unwrap();
    assert_kept(&lease(2), "its replacement").await;
    assert_kept("counter", "a start that reads first").await;

    store.stop(&user, stream(3)).await.unwrap();
    store.start(&user, &start(5), StartHint::Optimistic, now).await.unwrap();
    store.set_limit(&user, StreamLimit::new(5)).await.unwrap();
    assert_eq!(store.limit(&user).await.unwrap(), StreamLimit::new(5));
    store.set_limit(&user, None).await.unwrap();
    assert_kept("counter", "a stop, an optimistic start and changes of the limit").await;
    assert_kept(UNKNOWN_RECORD, "all operations").await;
    assert_eq!(store.streams(&user, now).await.unwrap().live.len(), 2);
}

#[tokio::test]
async fn restarting_an_expired_stream_drops_its_unknown_attributes() {
    let fixture = Fixture::embedded().await;
    let (store, user) = (&fixture.store, unique_user());
    store.start(&user, &start(1), StartHint::Optimistic, fixture.now()).await.unwrap();
    add_unknown_data(&fixture, &user).await;
    fixture.advance_s(i64::from(TERMS.duration_s));
    store.start(&user, &start(1), StartHint::Optimistic, fixture.now()).await.unwrap();
    let lease = fixture.item(&user, &stream_record(stream(1))).await.unwrap();
    assert_eq!(lease.get(UNKNOWN_ATTRIBUTE), None);
    let counter = fixture.item(&user, "counter").await.unwrap();
    assert!(counter.contains_key(UNKNOWN_ATTRIBUTE));
}

/// A UHD start on an instance without rules, and on one with the rule of one UHD stream.
fn uhd_starts(n: u8) -> (StartRequest, StartRequest) {
    let without = StartRequest { labels: labels(UHD), ..start(n) };
    let with = StartRequest { rules: [rule("one UHD stream", 1, UHD, None)].into(), ..without.clone() };
    (without, with)
}

#[tokio::test]
async fn instances_with_rules_count_streams_of_instances_without_rules() {
    let fixture = Fixture::embedded().await;
    let (store, user, now) = (&fixture.store, unique_user(), fixture.now());
    store.start(&user, &uhd_starts(1).0, StartHint::Optimistic, now).await.unwrap();
    let denied = store.start(&user, &uhd_starts(2).1, StartHint::Optimistic, now).await.unwrap();
    assert!(matches!(&denied, StartOutcome::Denied(denial) if denial.rule.is_some()), "{denied:?}");
    let without_rules = store.start(&user, &uhd_starts(2).0, StartHint::Optimistic, now).await.unwrap();
    assert!(matches!(without_rules, StartOutcome::Started(_)), "its limit still applies: {without_rules:?}");
    assert_eq!(store.streams(&user, now).await.unwrap().live.len(), 2);
}

#[tokio::test]
async fn streams_of_a_version_without_labels_count_only_by_the_limit() {
    let fixture = Fixture::embedded().await;
    let (store, user, now) = (&fixture.store, unique_user(), fixture.now());
    store.start(&user, &uhd_starts(1).0, StartHint::Optimistic, now).await.unwrap();
    let mut old = fixture.item(&user, &stream_record(stream(1))).await.unwrap();
    old.remove(codec::LABELS).unwrap();
    fixture.put(old).await;
    let started = store.start(&user, &uhd_starts(2).1, StartHint::Optimistic, now).await.unwrap();
    assert!(matches!(started, StartOutcome::Started(_)), "{started:?}");
    let heartbeat = store.heartbeat(&user, &renewal(1), now.plus_s(1)).await.unwrap();
    assert!(matches!(heartbeat.state, StreamState::Live(_)), "{heartbeat:?}");
    let one = StreamLimit::new(1).unwrap();
    let full = StartRequest { default_limit: one, labels: labels(&[("quality", "hd")]), ..uhd_starts(3).1 };
    let denied = store.start(&user, &full, StartHint::Optimistic, now).await.unwrap();
    assert!(matches!(&denied, StartOutcome::Denied(denial) if denial.rule.is_none()), "{denied:?}");
}
