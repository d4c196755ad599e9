//! The tool's promises: it catches a limit that is exceeded and only that, measures from when a request was due, keeps the
//! players' rule, and ends when it is told.

mod services;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use stream_manager::domain::admission::AtLimit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::holds::{History, Hold, Verdict, judge};
use crate::options::{Ends, Options};
use crate::report::Report;
use crate::run::run;

fn options(arguments: &str) -> Result<Options, String> {
    let words = ["load"].into_iter().chain(arguments.split_whitespace());
    Options::try_parse_from(words).map_err(|error| error.to_string())?.settled()
}

async fn load(url: &str, arguments: &str) -> Report {
    let options = options(&format!("--base-url {url} {arguments}")).expect("options");
    run(options, CancellationToken::new()).await.expect("a report")
}

/// Holds of one user from, confirmed until and promised until so many seconds.
fn history(holds: &[(u64, u64, u64)], began: Instant) -> History {
    let at = |seconds: &u64| began + Duration::from_secs(*seconds);
    let hold = |(from, confirmed, promised): &(u64, u64, u64)| Hold {
        stream: Uuid::new_v4(),
        from: at(from),
        confirmed: at(confirmed),
        promised: at(promised),
    };
    History { holds: holds.iter().map(hold).collect(), limit: Some(2), ..History::default() }
}

fn judged(histories: Vec<History>, began: Instant) -> Verdict {
    judge(histories, None, began, |user| format!("user-{user}"))
}

#[test]
fn a_third_lease_of_a_user_with_a_limit_of_two_is_a_violation() {
    let began = Instant::now();
    let told = [vec![(0, 0, 90)], vec![(10, 60, 150)], vec![(20, 20, 25), (30, 30, 40)]];
    let verdict = judged(told.iter().map(|holds| history(holds, began)).collect(), began);
    assert_eq!((verdict.violations, verdict.most_held, verdict.users), (2, 3, 1));
    let first = &verdict.told[0];
    assert_eq!((first.held, first.limit, first.from_ms, first.until_ms), (3, 2, 20_000, 25_000));
    assert_eq!(first.user_name, "user-0");
}

#[test]
fn leases_that_follow_each_other_or_belong_to_others_are_none() {
    let began = Instant::now();
    let mut histories = vec![history(&[(0, 0, 10), (10, 10, 20)], began), history(&[(0, 5, 20)], began)];
    histories.extend([History { user: 1, ..history(&[(0, 0, 90), (1, 1, 90)], began) }]);
    let verdict = judged(histories, began);
    assert_eq!((verdict.violations, verdict.most_held, verdict.users), (0, 2, 2));
}

#[test]
fn the_limit_that_was_told_counts_unless_another_is_set() {
    let began = Instant::now();
    let three = || vec![history(&[(0, 0, 9), (0, 0, 9), (0, 0, 9)], began)];
    assert_eq!(judge(three(), Some(3), began, |_| String::new()).violations, 0);
    let higher = History { limit: Some(3), ..History::default() };
    assert_eq!(judged(three().into_iter().chain([higher]).collect(), began).violations, 0);
    assert_eq!(judged(three(), began).violations, 1);
}

#[test]
fn only_confirmed_time_counts_once_a_start_has_an_unknown_outcome_or_has_ended_the_stream() {
    let began = Instant::now();
    let at = began + Duration::from_secs(15);
    let leases = || history(&[(0, 0, 90), (10, 10, 90), (20, 20, 90)], began);
    assert_eq!(judged(vec![leases()], began).violations, 1);
    assert_eq!(
        judged(vec![leases(), History { unknown_start: Some(at), ..History::default() }], began).violations,
        0
    );
    let mut told = leases();
    told.ended = vec![(told.holds[0].stream, at)];
    assert_eq!(judged(vec![told], began).violations, 0);
    let mut beaten = leases();
    beaten.holds.iter_mut().for_each(|hold| hold.confirmed = began + Duration::from_secs(30));
    beaten.unknown_start = Some(at);
    assert_eq!(judged(vec![beaten], began).violations, 1);
}

#[test]
fn the_ways_in_which_streams_end_make_a_hundred_percent() {
    assert_eq!(options("").expect("defaults").ends, Ends { stop: 80, crash: 10, reload: 10 });
    assert_eq!(options("--crash 30 --stop 70").expect("100").ends, Ends { stop: 70, crash: 30, reload: 0 });
    assert!(options("--stop 80 --crash 30").expect_err("110").contains("110 percent"));
    assert!(options("--base-url ftp://example.com").is_err());
    assert!(options("--duration 0").is_err());
}

#[test]
fn every_option_that_the_document_names_is_there() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/LOAD-TESTING.md");
    let document = std::fs::read_to_string(file).expect("a document");
    let command = Options::command();
    let known: Vec<&str> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let named = words.filter_map(|word| word.strip_prefix("--"));
    let named: Vec<&str> = named.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())).collect();
    assert!(named.len() > 10);
    for name in named.into_iter().filter(|name| !["release", "example", "help"].contains(name)) {
        assert!(known.contains(&name), "--{name}");
    }
}

#[tokio::test]
async fn a_service_that_keeps_the_limit_passes_and_is_tested() {
    let url = services::honest(AtLimit::Reject).await;
    let report = load(&url, "--players 20 --streams-per-user 5 --duration 1 --ramp-up-seconds 0 --closed-loop").await;
    assert_eq!(report.faults(), Vec::<String>::new(), "{report}");
    assert_eq!(report.limit_check.most_held, 3, "{report}");
    assert!(report.limit_check.users_at_limit == 4 && report.count("start", "409") >= 8, "{report}");
    for (verb, status) in [("start", "201"), ("heartbeat", "200"), ("stop", "204")] {
        assert!(report.count(verb, status) > 20, "{report}");
        assert!(report.answered[verb].p50_us <= report.answered[verb].p999_us);
    }
    assert_eq!(report.failures + report.left_to_run_out, 0, "{report}");
    assert_eq!(report.seconds.iter().map(|second| u64::from(second.answers())).sum::<u64>(), report.answers);
}

#[tokio::test]
async fn a_service_that_evicts_the_oldest_passes_and_is_tested_too() {
    let url = services::honest(AtLimit::EvictOldest).await;
    let report =
        load(&url, "--players 5 --streams-per-user 5 --duration 0.5 --ramp-up-seconds 0 --closed-loop").await;
    assert_eq!(report.faults(), Vec::<String>::new(), "{report}");
    assert!(report.limit_check.users_at_limit == 1 && report.count("heartbeat", "410") > 0, "{report}");
}

#[tokio::test]
async fn a_service_that_admits_everybody_is_found_out() {
    let url = services::answering(async |path: String| services::stream(&path)).await;
    let report = load(&url, "--players 8 --streams-per-user 4 --duration 0.5 --ramp-up-seconds 0").await;
    assert_eq!(report.limit_check.most_held, 4, "{report}");
    assert!(report.limit_check.violations >= 2, "{report}");
    assert!(report.faults()[0].contains("the limit was exceeded"), "{report}");
    assert!(report.to_string().contains("VIOLATED: load-"), "{report}");
}

#[tokio::test]
async fn a_lease_that_the_service_says_is_over_is_counted_on_no_longer() {
    let over = || (404, r#"{"restart":"auto"}"#.to_owned());
    let url = services::answering(move |path: String| {
        let answer = if path.ends_with("/heartbeat") { over() } else { services::stream(&path) };
        async move { answer }
    });
    let report = load(&url.await, "--players 3 --duration 0.3 --ramp-up-seconds 0 --closed-loop").await;
    assert!(report.count("start", "201") > 20 && report.count("heartbeat", "404") > 20, "{report}");
    assert_eq!(report.limit_check.violations, 0, "{report}");
}

#[tokio::test]
async fn a_service_that_admits_nobody_is_no_success() {
    let url = services::answering(async |_| (503, String::new())).await;
    let report = load(&url, "--players 4 --duration 0.9 --ramp-up-seconds 0").await;
    assert_eq!(report.count("start", "503"), 4, "{report}");
    assert!(report.faults()[0].contains("nothing was tested") && report.answered.is_empty(), "{report}");
    let error = run(options("--base-url http://127.0.0.1:9").expect("options"), CancellationToken::new()).await;
    assert!(error.err().is_some_and(|error| error.contains("cannot reach http://127.0.0.1:9")));
}

#[tokio::test]
async fn who_is_denied_comes_again_no_sooner_than_it_was_told() {
    let url = services::answering(async |_| (409, String::new())).await;
    let report = load(&url, "--players 6 --closed-loop --duration 0.9 --ramp-up-seconds 0").await;
    assert_eq!((report.count("start", "409"), report.limit_check.users_at_limit), (6, 2), "{report}");
}

#[tokio::test]
async fn what_waits_behind_a_slow_answer_is_measured_from_when_it_was_due() {
    let url = services::answering(async |path: String| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        services::stream(&path)
    });
    let report = load(&url.await, "--players 10 --connections 1 --duration 1 --ramp-up-seconds 0").await;
    let start = &report.answered["start"];
    assert_eq!(start.count, 10, "{report}");
    assert!(start.max_us >= 500_000 && start.p50_us >= 250_000, "{report}");
    assert_eq!((report.connections_opened, report.requests_that_waited_for_a_connection >= 9), (1, true), "{report}");
}

#[tokio::test]
async fn a_run_that_is_ended_sooner_stops_its_streams_and_says_what_it_has() {
    let (end, seen) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let ended = end.clone();
    let url = services::answering(move |path: String| {
        if seen.fetch_add(1, Ordering::SeqCst) == 9 {
            ended.cancel();
        }
        async move { if path.ends_with("/streams") { services::stream(&path) } else { (204, String::new()) } }
    });
    let arguments = format!("--base-url {} --players 10 --duration 3600 --ramp-up-seconds 0", url.await);
    let report = run(options(&arguments).expect("options"), end).await.expect("a report");
    assert!(report.lasted_seconds < 60.0, "{report}");
    assert_eq!((report.count("start", "201"), report.stopped_after_the_run), (10, 10), "{report}");
}

#[tokio::test]
async fn the_result_holds_no_token() {
    let url = services::answering(async |path: String| services::stream(&path)).await;
    let report = load(&url, "--players 1 --duration 0.2 --token secret-of-the-admin").await;
    let json = serde_json::to_string(&report).expect("JSON");
    assert!(!json.contains("secret-of-the-admin") && json.contains(r#""endsPercent":{"stop":80"#), "{json}");
}
