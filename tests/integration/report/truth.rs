//! The numbers of a report equal the known sessions of generated viewers.

use std::collections::{BTreeMap, BTreeSet};

use stream_manager::report::Report;

use super::generator::{DEVICE_NAMES, End, LIMIT, Session, UHD_RULE, User};
use super::{report_of_events, week};

const HOUR_MS: i64 = 3_600_000;

fn generated() -> (Vec<User>, Report) {
    let (users, events) = week(1, 150);
    (users, report_of_events(&events))
}

fn sessions(users: &[User]) -> Vec<&Session> {
    users.iter().flat_map(|user| &user.sessions).collect()
}

/// The sessions of each user that are live at the start of each of the user's sessions.
fn live_at_start(user: &User) -> impl Iterator<Item = (&Session, Vec<&Session>)> {
    user.sessions.iter().enumerate().map(|(index, session)| {
        let earlier = user.sessions[..index].iter();
        (session, earlier.filter(|earlier| earlier.end_ms > session.start_ms).collect())
    })
}

#[test]
fn totals_equal_the_truth() {
    let (users, report) = generated();
    let sessions = sessions(&users);
    let ended = |end: fn(&End) -> bool| sessions.iter().filter(|session| end(&session.end)).count() as u64;
    let totals = &report.totals;
    assert_eq!(totals.users, users.len() as u64);
    assert_eq!(totals.instances, 3);
    assert_eq!(totals.events, users.iter().map(|user| user.events.len() as u64).sum::<u64>());
    assert_eq!(totals.starts.started + totals.starts.over_limit, sessions.len() as u64);
    assert_eq!(totals.starts.replayed, sessions.iter().filter(|session| session.is_repeated).count() as u64);
    assert_eq!((totals.starts.denied, totals.starts.without_key), (0, 0));
    assert_eq!(totals.ends.stopped, ended(|end| *end == End::Stopped));
    assert_eq!(totals.ends.evicted, ended(|end| *end == End::Evicted));
    assert_eq!(totals.ends.replaced, ended(|end| matches!(end, End::Replaced(_))));
    assert_eq!(totals.ends.expired, ended(|end| *end == End::Expired));
    assert_eq!(totals.ends.without_start, 0);
}

#[test]
fn sessions_and_lengths_equal_the_truth() {
    let (users, report) = generated();
    let sessions = sessions(&users);
    let watched_ms: i64 = sessions.iter().map(|session| session.end_ms - session.start_ms).sum();
    assert_eq!(report.sessions.count, sessions.len() as u64);
    assert_eq!(report.sessions.watching_seconds, watched_ms as u64 / 1000);
    for class in &report.sessions.by_length {
        let is_in = |session: &&Session| {
            let length_s = (session.end_ms - session.start_ms) as u64 / 1000;
            class.from_seconds <= length_s && class.below_seconds.is_none_or(|below| length_s < below)
        };
        let (assumed, known): (Vec<&Session>, Vec<&Session>) =
            sessions.iter().copied().filter(is_in).partition(|session| session.end == End::Unknown);
        let expected = (known.len() as u64, assumed.len() as u64);
        assert_eq!((class.known_ends, class.assumed_ends), expected, "{class:?}");
    }
}

#[test]
fn hours_equal_the_truth() {
    let (users, report) = generated();
    let sessions = sessions(&users);
    let live_at = |ms: i64| sessions.iter().filter(|session| session.start_ms <= ms && session.end_ms > ms).count();
    assert!(report.hours.len() > 24 * 6);
    for hour in &report.hours {
        let begin_ms = hour.hour.0.epoch_ms();
        let starts = sessions.iter().map(|session| session.start_ms);
        let starts: Vec<i64> = starts.filter(|ms| (begin_ms..begin_ms + HOUR_MS).contains(ms)).collect();
        let peak = starts.iter().copied().chain([begin_ms]).map(live_at).max().unwrap();
        assert_eq!((hour.starts, hour.peak_streams), (starts.len() as u64, peak as u64), "{hour:?}");
    }
    assert_eq!(report.hours.iter().map(|hour| hour.over_limit).sum::<u64>(), report.totals.starts.over_limit);
}

#[test]
fn concurrency_equals_the_truth() {
    let (users, report) = generated();
    let (mut starts, mut highest) = (BTreeMap::<usize, u64>::new(), BTreeMap::<usize, u64>::new());
    for user in &users {
        let levels: Vec<usize> = live_at_start(user).map(|(_, live)| live.len() + 1).collect();
        levels.iter().for_each(|level| *starts.entry(*level).or_default() += 1);
        *highest.entry(*levels.iter().max().unwrap()).or_default() += 1;
    }
    let levels = report.concurrency.unwrap();
    assert_eq!(levels.len(), *starts.last_key_value().unwrap().0);
    assert!(levels.len() > LIMIT, "some users exceed the limit");
    for level in &levels {
        let starts = starts.get(&level.streams).copied().unwrap_or_default();
        let users = highest.get(&level.streams).copied().unwrap_or_default();
        assert_eq!((level.starts_attempted, level.starts_reached), (starts, starts), "{level:?}");
        assert_eq!((level.users_attempted, level.users_reached), (users, users), "{level:?}");
    }
}

#[test]
fn rule_counts_equal_the_truth() {
    let (users, report) = generated();
    let uhd = sessions(&users).iter().filter(|session| session.is_uhd).count() as u64;
    let exceeds = |(session, live): &(&Session, Vec<&Session>)| session.is_uhd && live.iter().any(|live| live.is_uhd);
    let exceeding: Vec<u64> = users.iter().map(|user| live_at_start(user).filter(exceeds).count() as u64).collect();
    let [rule] = report.rules.as_slice() else { panic!("{:?}", report.rules) };
    assert_eq!((rule.rule.as_str(), rule.starts, rule.denied), (UHD_RULE, uhd, 0));
    assert_eq!(rule.over_limit, exceeding.iter().sum::<u64>());
    assert_eq!(rule.users_exceeding, exceeding.iter().filter(|starts| **starts > 0).count() as u64);
}

#[test]
fn most_denied_users_equal_the_truth() {
    let (users, report) = generated();
    let exceeds = |(session, live): &(&Session, Vec<&Session>)| {
        live.len() >= LIMIT || (session.is_uhd && live.iter().any(|live| live.is_uhd))
    };
    let count = |(number, user): (usize, &User)| {
        (live_at_start(user).filter(exceeds).count() as u64, format!("user-{number:07}"))
    };
    let mut expected: Vec<(u64, String)> = users.iter().enumerate().map(count).collect();
    expected.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    expected.retain(|(exceeding, _)| *exceeding > 0);
    expected.truncate(20);
    let found = report.most_denied_users.iter().map(|user| (user.over_limit, user.user.clone()));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn devices_equal_the_truth() {
    let (users, report) = generated();
    let mut expected = BTreeMap::<usize, u64>::new();
    for user in &users {
        let devices: BTreeSet<usize> = user.sessions.iter().map(|session| session.device).collect();
        *expected.entry(devices.len()).or_default() += 1;
    }
    let found = report.devices.users.iter().filter(|class| class.users > 0).map(|class| (class.devices, class.users));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
    for name in &report.devices.names {
        let has_name = |session: &&&Session| DEVICE_NAMES[session.device % DEVICE_NAMES.len()] == name.device_name;
        assert_eq!(name.starts, sessions(&users).iter().filter(has_name).count() as u64, "{name:?}");
    }
    assert_eq!(report.devices.names.len(), DEVICE_NAMES.len());
}
