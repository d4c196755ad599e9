//! The files of a report: compressed, repeated, in any order, broken, empty, and with unusual values.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use stream_manager::events::cloud_event::{CloudEvent, ErasedData, LimitData, Outcome};
use stream_manager::report::{Report, ReportError, evaluate};
use uuid::Uuid;

use super::generator::{EventLog, FIRST_DAY_MS, LEASE_MS, ended, started, time};
use super::{lines, report_of, report_of_events, week};

const MINUTE_MS: i64 = 60_000;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn without_input(report: Report) -> Report {
    let mut report = report;
    report.totals.input = Default::default();
    report
}

/// A session of a user from one minute to another.
fn session(user: Option<&str>, id: u128, from_min: i64, to_min: i64) -> Vec<CloudEvent> {
    let mut log = EventLog::new(u64::try_from(id).unwrap());
    let (start_ms, end_ms) = (FIRST_DAY_MS + from_min * MINUTE_MS, FIRST_DAY_MS + to_min * MINUTE_MS);
    let id = Uuid::from_u128(id);
    let mut events = log.events(user, start_ms, vec![Outcome::Started(started(id, start_ms))]);
    events.extend(log.events(user, end_ms, vec![Outcome::Stopped(ended(id, start_ms, end_ms, None))]));
    for event in &mut events {
        event.id = format!("{id}-{}", event.id);
    }
    events
}

/// The event as JSON, with this value at a path such as `/data/limit`.
fn with(event: &CloudEvent, path: &str, value: Value) -> String {
    let mut json = serde_json::to_value(event).unwrap();
    *json.pointer_mut(path).unwrap() = value;
    format!("{json}\n")
}

#[test]
fn order_duplicates_and_compression_do_not_change_the_report() {
    let (_, events) = week(2, 40);
    let expected = report_of_events(&events);
    let mut shuffled = events.clone();
    fastrand::Rng::with_seed(3).shuffle(&mut shuffled);
    let (first, second) = shuffled.split_at(events.len() / 2);
    // Two compressed members in one file, as `cat a.gz b.gz` gives.
    let members = [gzip(&lines(second)), gzip(&lines(&events[..500]))].concat();
    let report = report_of(&[lines(first).into_bytes(), members]);
    assert_eq!(report.totals.input.duplicates, 500);
    assert_eq!(without_input(report), without_input(expected));
}

#[test]
fn broken_lines_are_counted_and_skipped() {
    let events = session(Some("ann"), 1, 0, 10);
    let good = lines(&events);
    let long = format!("{{\"id\":\"{}\"}}\n", "x".repeat(3 << 20));
    let text = [
        "not json\n".to_owned(),
        "{}\n".to_owned(),
        "\n \r\n".to_owned(),
        long,
        with(&events[0], "/specversion", json!("2.0")),
        with(&events[0], "/time", json!("yesterday")),
        with(&events[0], "/sequence", json!("one")),
        with(&events[0], "/data/limit", json!(3000)),
        with(&events[0], "/time", json!("1970-01-01T00:00:00.000Z")),
        with(&events[0], "/data/expiresAt", json!("9999-01-01T00:00:00.000Z")),
        good.replace('\n', "\r\n"),
    ]
    .concat();
    let report = report_of(&[[text.as_bytes(), b"\xff\xfe\n"].concat()]);
    assert_eq!((report.totals.input.broken_lines, report.totals.events), (10, 2));
    assert_eq!(report.sessions.watching_seconds, 600);
}

#[test]
fn a_broken_last_line_is_skipped() {
    let text = lines(&session(Some("ann"), 1, 0, 10));
    let report = report_of(&[&text[..text.len() - 20]]);
    let input = &report.totals.input;
    assert_eq!((input.broken_lines, input.incomplete_last_lines, report.totals.events), (0, 1, 1));
    let report = report_of(&[text.trim_end()]);
    assert_eq!((report.totals.input.incomplete_last_lines, report.totals.events), (0, 2), "a whole last line counts");
}

#[test]
fn damaged_compressed_files_are_read_up_to_the_damage() {
    let (_, events) = week(2, 20);
    let whole = gzip(&lines(&events));
    let report = report_of(&[&whole[..whole.len() / 2], &whole[..]]);
    assert_eq!((report.totals.input.damaged_files, report.totals.events), (1, events.len() as u64));
    let trailing = report_of(&[[&whole[..], b"garbage"].concat()]);
    assert_eq!((trailing.totals.input.damaged_files, trailing.totals.events), (1, events.len() as u64));
}

#[test]
fn unknown_types_and_fields_are_accepted() {
    let events = session(Some("ann"), 1, 0, 10);
    let unknown = with(&events[0], "/type", json!("stream-manager.stream.paused"));
    let mut extended = serde_json::to_value(&events[0]).unwrap();
    extended["data"]["later"] = json!({"a": [1]});
    extended["traceparent"] = json!("00-1-2-01");
    let report = report_of(&[format!("{unknown}{extended}\n{}", lines(&events[1..]))]);
    let input = &report.totals.input;
    assert_eq!((input.unknown_types, input.broken_lines, report.totals.events), (1, 0, 2));
}

#[test]
fn empty_input_gives_an_empty_report() {
    for content in ["", "\n\n"] {
        let report = report_of(&[content]);
        assert_eq!((report.totals.events, report.totals.input.broken_lines, report.hours.len()), (0, 0, 0));
        assert!(report.concurrency.is_none() && report.what_if.is_none());
    }
}

#[test]
fn a_missing_file_is_an_error_with_its_path() {
    let error = evaluate(&["/does/not/exist".into()], &ProgressBar::hidden()).unwrap_err();
    assert!(matches!(&error, ReportError::Read { .. }) && error.to_string().contains("/does/not/exist"), "{error}");
}

#[test]
fn events_without_users_count_sessions_and_hours() {
    let events = [session(None, 1, 0, 10), session(None, 2, 5, 20)].concat();
    let report = report_of_events(&events);
    assert_eq!((report.totals.users, report.totals.input.events_without_user), (0, 4));
    assert_eq!((report.sessions.count, report.sessions.watching_seconds), (2, 25 * 60));
    assert_eq!(report.hours[0].peak_streams, 2);
    assert!(report.concurrency.is_none() && report.what_if.is_none(), "users cannot be told apart");
}

#[test]
fn users_in_other_scripts_are_told_apart() {
    let names = ["山田太郎", "محمد", "Zoë", "Zoe", "😀 family"];
    let events: Vec<CloudEvent> =
        names.iter().zip(1..).flat_map(|(name, id)| session(Some(name), id, 0, 10)).collect();
    let report = report_of_events(&events);
    assert_eq!(report.totals.users, names.len() as u64);
    assert_eq!(report.concurrency.unwrap().len(), 1, "nobody has two streams at once");
}

#[test]
fn extreme_numbers_do_not_overflow() {
    let events = session(Some("ann"), 1, 0, 10);
    let first_id = Uuid::from_u128(1).to_string();
    let text = [
        with(&events[0], "/sequence", json!("18446744073709551615")),
        with(&events[0], "/data/expiresAt", json!("2199-12-31T23:59:59.999Z"))
            .replace(&first_id, &Uuid::max().to_string())
            .replace("instance-", "other-"),
        with(&events[1], "/data/endedAt", json!("2000-01-01T00:00:00.000Z")),
        with(&events[1], "/data/sessionSeconds", json!(1e300)),
    ]
    .concat();
    let report = report_of(&[text]);
    assert_eq!((report.totals.input.broken_lines, report.sessions.count), (0, 2));
    assert!(report.hours.len() < 20_000, "hours without events are left out");
}

#[test]
fn a_start_after_the_expiry_begins_another_session() {
    let id = Uuid::from_u128(1);
    let mut log = EventLog::new(1);
    let start = |minutes: i64, log: &mut EventLog| {
        let now_ms = FIRST_DAY_MS + minutes * MINUTE_MS;
        log.events(Some("ann"), now_ms, vec![Outcome::Started(started(id, now_ms))])
    };
    let report = report_of_events(&[start(0, &mut log), start(10, &mut log)].concat());
    assert_eq!((report.sessions.count, report.sessions.assumed_ends), (2, 2));
    assert_eq!(report.sessions.watching_seconds, 2 * LEASE_MS as u64 / 1000);
    assert_eq!(report.concurrency.unwrap().len(), 1);
}

#[test]
fn an_erasure_ends_the_named_streams_once() {
    let mut events = session(Some("ann"), 1, 0, 30);
    let (at_ms, mut log) = (FIRST_DAY_MS + 10 * MINUTE_MS, EventLog::new(9));
    let erased = Outcome::Erased(ErasedData { ended: vec![Uuid::from_u128(1), Uuid::from_u128(7)] });
    events[1] = log.events(Some("ann"), at_ms, vec![erased]).remove(0);
    let changed = Outcome::LimitChanged(LimitData { limit: Some(1), previous_limit: None });
    events.extend(log.events(Some("ann"), at_ms + 1, vec![changed]));
    let report = report_of(&[lines(&events), lines(&events)]);
    let totals = &report.totals;
    assert_eq!((totals.erasures, totals.ends.erased, totals.ends.without_start), (1, 2, 1));
    assert_eq!((totals.events, totals.limit_changes, totals.input.duplicates), (3, 1, 3));
    assert_eq!((report.sessions.watching_seconds, totals.last_event), (600, Some(time(at_ms + 1))));
}
