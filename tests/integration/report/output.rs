//! The command `stream-manager report`: its output, and what it does with enforced limits.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use stream_manager::domain::admission::AtLimit;
use stream_manager::domain::lease::LimitSource;
use stream_manager::domain::rules::LimitMode;
use stream_manager::events::cloud_event::{AppliedRule, CloudEvent, Exceeded, Outcome, StartData};
use stream_manager::report::{Report, WhatIfCase, text};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::generator::{EventLog, FIRST_DAY_MS, ended, started};
use super::{lines, report_of_events, week};
use crate::documents::read;
use crate::service::{command, run, stdout, temp_dir};

/// A start of Ann at a minute.
fn start(minute: i64, change: impl FnOnce(&mut StartData), outcome: fn(StartData) -> Outcome) -> CloudEvent {
    let now_ms = FIRST_DAY_MS + minute * 60_000;
    let mut data = started(Uuid::from_u128(minute as u128 + 1), now_ms);
    change(&mut data);
    let mut event = EventLog::new(1).events(Some("ann"), now_ms, vec![outcome(data)]).remove(0);
    event.id = format!("event-{minute}");
    event
}

/// A start that the user's own limit denied, or a rule.
fn denied_by(minute: i64, rule: Option<&str>) -> CloudEvent {
    let change = |data: &mut StartData| {
        (data.started_at, data.expires_at, data.mode) = (None, None, LimitMode::Enforce);
        let applied =
            |name: &str| AppliedRule { name: name.to_owned(), mode: LimitMode::Enforce, limit: 1, per: None };
        data.rules = rule.map(applied).into_iter().collect();
        data.exceeded = vec![Exceeded { rule: rule.map(str::to_owned), limit: 1, count: 1 }];
    };
    start(minute, change, Outcome::Denied)
}

fn denied(case: &WhatIfCase) -> (u64, u64) {
    (case.starts, case.denied)
}

#[test]
fn denials_of_enforced_limits_make_what_if_a_lower_bound() {
    let events = [start(0, |_| {}, Outcome::Started), denied_by(1, None)];
    let report = report_of_events(&events);
    let what_if = report.what_if.as_ref().unwrap();
    assert!(!what_if.is_exact && text::text(&report).contains("evicted other streams"));
    assert_eq!((denied(&what_if.limits[0]), denied(&what_if.limits[1])), ((2, 1), (2, 0)));
    let levels = report.concurrency.unwrap();
    assert_eq!((levels[1].starts_attempted, levels[1].starts_reached), (1, 0));
    assert_eq!((levels[1].users_attempted, levels[0].users_reached), (1, 1));
    assert_eq!((report.most_denied_users[0].denied, report.hours[0].denied), (1, 1));
}

#[test]
fn starts_that_a_rule_denied_do_not_count_for_limits() {
    let rule = |data: &mut StartData| {
        let mode = LimitMode::Enforce;
        data.rules = vec![AppliedRule { name: "uhd".to_owned(), mode, limit: 1, per: None }];
    };
    let report = report_of_events(&[start(0, rule, Outcome::Started), denied_by(1, Some("uhd"))]);
    let what_if = report.what_if.unwrap();
    assert_eq!(denied(&what_if.limits[0]), (1, 0));
    assert_eq!((denied(&what_if.rules[0].limits[0]), denied(&what_if.rules[0].limits[1])), ((2, 1), (2, 0)));
    assert_eq!((report.rules[0].starts, report.rules[0].denied, report.rules[0].users_exceeding), (2, 1, 1));
}

#[test]
fn what_if_keeps_the_own_limits_of_users() {
    let own_limit = |data: &mut StartData| (data.limit, data.limit_source) = (1, LimitSource::User);
    let events = [start(0, own_limit, Outcome::Started), start(1, own_limit, Outcome::OverLimit)];
    let what_if = report_of_events(&events).what_if.unwrap();
    assert_eq!((what_if.limits[5].denied, what_if.limits[5].users_hit), (1, 1));
}

#[test]
fn sessions_without_an_end_make_what_if_inexact() {
    let start_ms = FIRST_DAY_MS;
    let mut log = EventLog::new(1);
    let id = Uuid::from_u128(1);
    let mut events = log.events(Some("ann"), start_ms, vec![Outcome::Started(started(id, start_ms))]);
    let report = report_of_events(&events);
    assert!(!report.what_if.as_ref().unwrap().is_exact);
    let text = text::text(&report);
    assert!(text.contains("100 % of the sessions have no event of their end and count as one lease."), "{text}");
    let stopped = Outcome::Stopped(ended(id, start_ms, start_ms + 60_000, None));
    events.extend(log.events(Some("ann"), start_ms + 60_000, vec![stopped]));
    assert!(report_of_events(&events).what_if.unwrap().is_exact);
}

/// The service writes the end of a stream before the event of the start that ended it.
#[test]
fn streams_that_a_start_ended_count_at_this_start() {
    for (outcome, attempted) in [(Outcome::Evicted as fn(_) -> _, 3), (Outcome::Replaced as fn(_) -> _, 2)] {
        let mut log = EventLog::new(1);
        let evicts = |data: StartData| StartData { at_limit: AtLimit::EvictOldest, ..data };
        let mut events = Vec::new();
        for (number, end) in [(0, None), (1, None), (2, Some(0))] {
            let (id, now_ms) = (Uuid::from_u128(number), FIRST_DAY_MS + number as i64 * 1000);
            let end = end.map(|old| outcome(ended(Uuid::from_u128(old), FIRST_DAY_MS, now_ms, Some(id))));
            let start = Outcome::Started(evicts(started(id, now_ms)));
            events.extend(log.events(Some("ann"), now_ms, end.into_iter().chain([start]).collect()));
        }
        let report = report_of_events(&events);
        let levels = report.concurrency.unwrap();
        assert_eq!((levels.len(), levels[attempted - 1].users_attempted), (attempted, 1));
        assert_eq!(levels[1].users_reached, 1);
        if attempted == 3 {
            let what_if = report.what_if.unwrap();
            assert_eq!((what_if.limits[1].evicted, report.totals.ends.evicted_by_starts), (1, 1));
            assert!(!what_if.is_exact);
        }
    }
}

#[tokio::test]
async fn json_contains_all_sections() {
    let folder = temp_dir();
    let (_, events) = week(5, 30);
    fs::write(folder.path().join("events.jsonl"), lines(&events)).unwrap();
    let output = run(command(folder.path()).args(["report", "--json", "events.jsonl"])).await;
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "no progress bar without a terminal");
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let mut sections: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    sections.sort_unstable();
    let expected = ["concurrency", "devices", "hours", "mostDeniedUsers", "rules", "sessions", "totals", "whatIf"];
    assert_eq!(sections, expected);
    assert_eq!(json["totals"]["events"], events.len());
    assert_eq!(json["hours"][0]["hour"], "2026-11-01T00:00:00.000Z");
}

#[tokio::test]
async fn standard_input_is_read_for_a_dash() {
    let folder = temp_dir();
    let (_, events) = week(5, 30);
    let mut child =
        command(folder.path()).args(["report", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(&events).as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(stdout(&output), text::text(&report_of_events(&events)));
}

#[tokio::test]
async fn a_report_without_files_is_refused() {
    let folder = temp_dir();
    let output = run(command(folder.path()).arg("report")).await;
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn docs_show_the_printed_report() {
    let text = text::text(&report_of_events(&week(5, 40).1));
    let example = format!("$ stream-manager report events.jsonl\n{text}```");
    assert!(read("docs/REPORTS.md").contains(&example), "docs/REPORTS.md does not contain:\n{example}");
}

#[test]
fn control_characters_of_names_do_not_reach_the_terminal() {
    let mut events = [start(0, |_| {}, Outcome::Started), denied_by(1, None)];
    events.iter_mut().for_each(|event| event.subject = Some("ann\u{1b}[31m\u{202e}".to_owned()));
    let text = text::text(&report_of_events(&events));
    assert!(text.contains("ann\u{FFFD}[31m\u{FFFD}") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_report_of_nothing_says_so() {
    let report: Report = report_of_events(&[]);
    assert_eq!(text::text(&report), "No events.\n");
}
