//! Tests of the load tool. It must report exactly the violations of the limit, measure latency from the due time of a request, and
//! simulate players that follow the protocol.

mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use stream_manager::domain::admission::AtLimit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::limit_check::{LimitCheck, Observations, ObservedLease, check_limit};
use crate::options::{Ends, Options};
use crate::report::Report;
use crate::run::run;

fn options(arguments: &str) -> Result<Options, String> {
    let words = ["load"].into_iter().chain(arguments.split_whitespace());
    Options::try_parse_from(words).map_err(|error| error.to_string())?.resolve()
}

async fn load(url: &str, arguments: &str) -> Report {
    let options = options(&format!("--base-url {url} {arguments}")).unwrap();
    run(options, CancellationToken::new()).await.unwrap()
}

/// Leases of user 0 with a limit of 2. Each tuple has the seconds at which a lease begins, is last confirmed, and expires.
fn observed(leases: &[(u64, u64, u64)], start: Instant) -> Observations {
    let at = |seconds: &u64| start + Duration::from_secs(*seconds);
    let lease = |(from, confirmed, expires): &(u64, u64, u64)| ObservedLease {
        stream_id: Uuid::new_v4(),
        from: at(from),
        confirmed_until: at(confirmed),
        expires: at(expires),
    };
    Observations { leases: leases.iter().map(lease).collect(), limit: Some(2), ..Observations::default() }
}

fn check(observations: Vec<Observations>, start: Instant) -> LimitCheck {
    check_limit(observations, None, start, |user| format!("user-{user}"))
}

#[test]
fn three_overlapping_leases_violate_a_limit_of_two() {
    let start = Instant::now();
    let players = [vec![(0, 0, 90)], vec![(10, 60, 150)], vec![(20, 20, 25), (30, 30, 40)]];
    let result = check(players.iter().map(|leases| observed(leases, start)).collect(), start);
    assert_eq!((result.violations, result.max_held, result.users), (2, 3, 1));
    let first = &result.reported[0];
    assert_eq!((first.held, first.limit, first.from_ms, first.until_ms), (3, 2, 20_000, 25_000));
    assert_eq!(first.user_name, "user-0");
}

#[test]
fn sequential_leases_and_other_users_are_no_violation() {
    let start = Instant::now();
    let mut players = vec![observed(&[(0, 0, 10), (10, 10, 20)], start), observed(&[(0, 5, 20)], start)];
    players.push(Observations { user: 1, ..observed(&[(0, 0, 90), (1, 1, 90)], start) });
    let result = check(players, start);
    assert_eq!((result.violations, result.max_held, result.users), (0, 2, 2));
}

#[test]
fn the_limit_option_overrides_the_highest_reported_limit() {
    let start = Instant::now();
    let three_leases = || vec![observed(&[(0, 0, 9), (0, 0, 9), (0, 0, 9)], start)];
    assert_eq!(check(three_leases(), start).violations, 1);
    assert_eq!(check_limit(three_leases(), Some(3), start, |_| String::new()).violations, 0);
    let higher = Observations { limit: Some(3), ..Observations::default() };
    assert_eq!(check(three_leases().into_iter().chain([higher]).collect(), start).violations, 0);
}

#[test]
fn after_an_unknown_start_only_confirmed_time_counts() {
    let start = Instant::now();
    let unknown_start = Some(start + Duration::from_secs(15));
    let mut unconfirmed = observed(&[(0, 0, 90), (10, 10, 90), (20, 20, 90)], start);
    assert_eq!(check(vec![unconfirmed.clone()], start).violations, 1);
    unconfirmed.unknown_start = unknown_start;
    assert_eq!(check(vec![unconfirmed], start).violations, 0);
    let mut confirmed = observed(&[(0, 30, 90), (10, 30, 90), (20, 30, 90)], start);
    confirmed.unknown_start = unknown_start;
    assert_eq!(check(vec![confirmed], start).violations, 1);
}

#[test]
fn a_stream_ended_by_a_start_no_longer_counts() {
    let start = Instant::now();
    let mut observations = observed(&[(0, 0, 90), (10, 10, 90), (20, 20, 90)], start);
    observations.ended = vec![(observations.leases[0].stream_id, start + Duration::from_secs(15))];
    assert_eq!(check(vec![observations], start).violations, 0);
}

#[test]
fn the_percentages_of_ends_add_up_to_100() {
    assert_eq!(options("").unwrap().ends, Ends { stop: 80, crash: 10, reload: 10 });
    assert_eq!(options("--crash 30 --stop 70").unwrap().ends, Ends { stop: 70, crash: 30, reload: 0 });
    assert!(options("--stop 80 --crash 30").unwrap_err().contains("110 %"));
}

#[test]
fn invalid_options_are_rejected() {
    for invalid in ["--base-url ftp://example.com", "--base-url http://me@example.com", "--duration 0"] {
        assert!(options(invalid).is_err(), "{invalid}");
    }
}

#[test]
fn every_documented_option_exists() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/LOAD-TESTING.md")).unwrap();
    let command = Options::command();
    let known: Vec<&str> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let documented = words.filter_map(|word| word.strip_prefix("--"));
    let documented: Vec<&str> =
        documented.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())).collect();
    assert!(documented.len() > 10);
    for name in documented.into_iter().filter(|name| !["release", "example", "help"].contains(name)) {
        assert!(known.contains(&name), "--{name}");
    }
}

#[tokio::test]
async fn a_service_that_enforces_the_limit_passes() {
    let url = servers::service(AtLimit::Reject).await;
    let report = load(&url, "--players 20 --streams-per-user 5 --duration 1 --ramp-up-seconds 0 --closed-loop").await;
    assert_eq!(report.failures(), Vec::<String>::new(), "{report}");
    assert_eq!(report.limit_check.max_held, 3, "{report}");
    assert!(report.limit_check.users_at_limit == 4 && report.count("start", "409") >= 8, "{report}");
    for (operation, status) in [("start", "201"), ("heartbeat", "200"), ("stop", "204")] {
        assert!(report.count(operation, status) > 20, "{report}");
        assert!(report.latencies[operation].p50_us <= report.latencies[operation].p999_us);
    }
    assert_eq!(report.failures + report.streams_not_stopped, 0, "{report}");
    assert_eq!(report.seconds.iter().map(|second| u64::from(second.responses())).sum::<u64>(), report.responses);
}

#[tokio::test]
async fn a_service_that_evicts_the_oldest_stream_passes() {
    let url = servers::service(AtLimit::EvictOldest).await;
    let report =
        load(&url, "--players 5 --streams-per-user 5 --duration 0.5 --ramp-up-seconds 0 --closed-loop").await;
    assert_eq!(report.failures(), Vec::<String>::new(), "{report}");
    assert!(report.limit_check.users_at_limit == 1 && report.count("heartbeat", "410") > 0, "{report}");
}

#[tokio::test]
async fn a_service_without_a_limit_fails() {
    let url = servers::stub(async |path: String| servers::stream(&path)).await;
    let report = load(&url, "--players 8 --streams-per-user 4 --duration 0.5 --ramp-up-seconds 0").await;
    assert_eq!(report.limit_check.max_held, 4, "{report}");
    assert!(report.limit_check.violations >= 2, "{report}");
    assert!(report.failures()[0].contains("the limit was exceeded"), "{report}");
    assert!(report.to_string().contains("VIOLATION: load-"), "{report}");
}

#[tokio::test]
async fn a_lease_reported_as_inactive_no_longer_counts() {
    let url = servers::stub(async |path: String| {
        let inactive = || (404, r#"{"restart":"auto"}"#.to_owned());
        if path.ends_with("/heartbeat") { inactive() } else { servers::stream(&path) }
    });
    let report = load(&url.await, "--players 3 --duration 0.3 --ramp-up-seconds 0 --closed-loop").await;
    assert!(report.count("start", "201") > 20 && report.count("heartbeat", "404") > 20, "{report}");
    assert_eq!(report.limit_check.violations, 0, "{report}");
}

#[tokio::test]
async fn a_run_without_a_successful_start_fails() {
    let url = servers::stub(async |_| (503, String::new())).await;
    let report = load(&url, "--players 4 --duration 0.9 --ramp-up-seconds 0").await;
    assert_eq!(report.count("start", "503"), 4, "{report}");
    assert!(report.failures()[0].contains("nothing was tested") && report.latencies.is_empty(), "{report}");
}

#[tokio::test]
async fn an_unreachable_service_is_an_error() {
    let result = run(options("--base-url http://127.0.0.1:9").unwrap(), CancellationToken::new()).await;
    assert!(result.err().unwrap().contains("cannot reach http://127.0.0.1:9"));
}

#[tokio::test]
async fn denied_starts_wait_for_retry_after() {
    let url = servers::stub(async |_| (409, String::new())).await;
    let report = load(&url, "--players 6 --closed-loop --duration 0.9 --ramp-up-seconds 0").await;
    assert_eq!((report.count("start", "409"), report.limit_check.users_at_limit), (6, 2), "{report}");
}

#[tokio::test]
async fn latency_includes_the_wait_for_a_connection() {
    let url = servers::stub(async |path: String| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        servers::stream(&path)
    });
    let report = load(&url.await, "--players 10 --connections 1 --duration 1 --ramp-up-seconds 0").await;
    let start = &report.latencies["start"];
    assert_eq!(start.count, 10, "{report}");
    assert!(start.max_us >= 500_000 && start.p50_us >= 250_000, "{report}");
    assert_eq!((report.connections_opened, report.requests_queued >= 9), (1, true), "{report}");
}

#[tokio::test]
async fn a_cancelled_run_stops_its_streams_and_reports() {
    let (cancel, requests) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let cancelled = cancel.clone();
    let url = servers::stub(move |path: String| {
        if requests.fetch_add(1, Ordering::SeqCst) == 9 {
            cancelled.cancel();
        }
        async move { if path.ends_with("/streams") { servers::stream(&path) } else { (204, String::new()) } }
    });
    let arguments = format!("--base-url {} --players 10 --duration 3600 --ramp-up-seconds 0", url.await);
    let report = run(options(&arguments).unwrap(), cancel).await.unwrap();
    assert!(report.elapsed_seconds < 60.0, "{report}");
    assert_eq!((report.count("start", "201"), report.streams_stopped_after_run), (10, 10), "{report}");
}

#[tokio::test]
async fn the_json_report_does_not_contain_the_token() {
    let url = servers::stub(async |path: String| servers::stream(&path)).await;
    let report = load(&url, "--players 1 --duration 0.2 --token secret-of-the-admin").await;
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("secret-of-the-admin") && json.contains(r#""endsPercent":{"stop":80"#), "{json}");
}
