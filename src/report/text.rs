//! The report as text for a terminal, and as JSON for programs.

use std::fmt::Write;

use chrono::DateTime;

use super::days::days;
use super::devices::MAX_DEVICES;
use super::model::{LengthClass, Level, Report, UsersByDevices, WhatIfCase};
use crate::events::cloud_event::EventTime;
use crate::text_table::{columns, number, percent, printable, row, whole};

/// Reports of more hours have one row per day.
pub(super) const MAX_HOUR_ROWS: usize = 48;

pub fn json(report: &Report) -> String {
    let value = serde_json::to_value(report).unwrap_or_default();
    format!("{value:#}\n")
}

pub fn text(report: &Report) -> String {
    let mut text = totals(report);
    if report.totals.events == 0 {
        return text;
    }
    for part in [
        what_if(report),
        concurrency(report),
        denied_users(report),
        rules(report),
        hours(report),
        sessions(report),
        devices(report),
    ] {
        if !part.is_empty() {
            _ = write!(text, "\n{part}");
        }
    }
    text
}

fn totals(report: &Report) -> String {
    let (totals, sessions) = (&report.totals, &report.sessions);
    let (Some(first), Some(last)) = (totals.first_event, totals.last_event) else {
        return format!("No events.\n{}", notes(report));
    };
    let starts = &totals.starts;
    format!(
        "{} to {} UTC: {} events of {} instances, {} users.\n\
         {} starts: {} started, {} over the limit, {} denied; and {} repetitions of starts.\n\
         {} sessions, {} hours of watching. {} of the sessions have no event of their end.\n{}",
        minute(first),
        minute(last),
        count(totals.events),
        count(totals.instances),
        count(totals.users),
        count(report.starts()),
        count(starts.started),
        count(starts.over_limit),
        count(starts.denied),
        count(starts.replayed),
        count(sessions.count),
        hours_of(sessions.watching_seconds),
        percent(sessions.assumed_ends_percent),
        notes(report),
    )
}

/// What limits the accuracy of the report, one line each.
pub(super) fn notes(report: &Report) -> String {
    let (input, totals) = (&report.totals.input, &report.totals);
    let notes = [
        (input.broken_lines, "broken lines were skipped"),
        (input.damaged_files, "compressed files are damaged and were read up to the damage"),
        (input.incomplete_last_lines, "incomplete last lines were skipped"),
        (input.unknown_types, "events of unknown types were skipped"),
        (input.duplicates, "repeated events were removed"),
        (input.events_without_user, "events have no user and count only in hours, sessions and device names"),
        (totals.ends.without_start, "streams ended whose start is not in the files"),
        (totals.starts.without_key, "starts have no idempotency key; each of their repetitions counts as a start"),
    ];
    let notes = notes.iter().filter(|(number, _)| *number > 0);
    notes.map(|(number, text)| format!("{} {text}.\n", count(*number))).collect()
}

/// How far the what-if numbers can be trusted, and why.
pub(super) fn accuracy(report: &Report) -> String {
    let (totals, sessions) = (&report.totals, &report.sessions);
    match &report.what_if {
        None => {
            return "The events have no users, so that users cannot be counted, and other limits cannot be evaluated."
                .to_owned();
        }
        Some(what_if) if what_if.is_exact => {
            return "The numbers are exact: all starts and ends are known, and nothing was denied or evicted."
                .to_owned();
        }
        Some(_) => {}
    }
    let mut text = String::new();
    if sessions.assumed_ends > 0 {
        let share = percent(sessions.assumed_ends_percent);
        _ = write!(text, "{share} of the sessions have no event of their end and count as one lease. ");
    }
    if totals.starts.denied + totals.ends.evicted_by_starts > 0 {
        text.push_str("Starts were denied or evicted other streams; these viewers would have watched longer. ");
    }
    if totals.ends.without_start > 0 {
        text.push_str("Streams whose starts are not in the files do not count. ");
    }
    if totals.starts.without_key > 0 {
        text.push_str("Repetitions of starts without an idempotency key count as starts. ");
    }
    text.push_str(match totals.starts.without_key {
        0 => "The real numbers are higher.",
        _ => "The real numbers can be higher or lower.",
    });
    text
}

/// The columns of the what-if tables.
pub(super) const DEFINITIONS: [(&str, &str); 4] = [
    ("Starts denied", "each attempt that the limit would have refused, repetitions included"),
    ("Users hit", "users with at least one denied start or one evicted stream"),
    ("Hours lost", "how long the denied streams played in reality, and how long evicted streams went on"),
    ("Streams evicted", "streams that starts with evictOldest would have ended"),
];

fn what_if(report: &Report) -> String {
    let Some(what_if) = &report.what_if else { return format!("{}\n", accuracy(report)) };
    let mut text = format!("What if? {}\n", accuracy(report));
    let mut rows = vec![what_if_header("Limit of users")];
    rows.extend(what_if.limits.iter().map(what_if_row));
    text.push_str(&columns(&rows));
    for rule in &what_if.rules {
        let mut rows = vec![what_if_header(&format!("Rule {}", printable(&rule.rule)))];
        rows.extend(rule.limits.iter().map(what_if_row));
        _ = write!(text, "\n{}", columns(&rows));
    }
    text.push('\n');
    for (term, definition) in DEFINITIONS {
        _ = writeln!(text, "{term}: {definition}.");
    }
    text
}

fn what_if_header(what: &str) -> Vec<String> {
    row([what, "starts denied", "share", "users hit", "share", "hours lost", "share", "streams evicted"])
}

pub(super) fn what_if_row(case: &WhatIfCase) -> Vec<String> {
    row([
        &case.limit.to_string(),
        &count(case.denied),
        &percent(case.denied_percent),
        &count(case.users_hit),
        &percent(case.users_hit_percent),
        &hours_of(case.lost_watching_seconds),
        &percent(case.lost_watching_percent),
        &count(case.evicted),
    ])
}

fn concurrency(report: &Report) -> String {
    let Some(levels) = &report.concurrency else { return String::new() };
    let mut rows =
        vec![row(["Streams of a user at once", "starts attempted", "reached", "users attempted", "reached"])];
    rows.extend(levels.iter().map(level_row));
    columns(&rows)
}

pub(super) fn level_row(level: &Level) -> Vec<String> {
    row([
        &level.streams.to_string(),
        &count(level.starts_attempted),
        &count(level.starts_reached),
        &count(level.users_attempted),
        &count(level.users_reached),
    ])
}

fn denied_users(report: &Report) -> String {
    if report.most_denied_users.is_empty() {
        return String::new();
    }
    let mut rows = vec![row([
        "Users with most denials",
        "starts",
        "denied",
        "over the limit",
        "most streams attempted",
        "devices",
    ])];
    for user in &report.most_denied_users {
        rows.push(row([
            &printable(&user.user),
            &count(user.starts),
            &count(user.denied),
            &count(user.over_limit),
            &user.highest_attempted.to_string(),
            &user.devices.to_string(),
        ]));
    }
    columns(&rows)
}

fn rules(report: &Report) -> String {
    if report.rules.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["Rules", "starts", "denied", "over the limit", "users", "users exceeding"])];
    for rule in &report.rules {
        rows.push(row([
            &printable(&rule.rule),
            &count(rule.starts),
            &count(rule.denied),
            &count(rule.over_limit),
            &count(rule.users),
            &count(rule.users_exceeding),
        ]));
    }
    columns(&rows)
}

fn hours(report: &Report) -> String {
    let hourly = report.hours.len() <= MAX_HOUR_ROWS;
    let what = if hourly { "Hour, UTC" } else { "Day, UTC" };
    let mut rows = vec![row([what, "starts", "denied", "over the limit", "most streams at once"])];
    let mut add = |time: String, starts, denied, over_limit, peak: &str| {
        rows.push(row([&time, &count(starts), &count(denied), &count(over_limit), peak]));
    };
    if hourly {
        for hour in &report.hours {
            add(minute(hour.hour), hour.starts, hour.denied, hour.over_limit, &count(hour.peak_streams));
        }
    } else {
        for day in days(&report.hours) {
            let peak = format!("{} at {}", count(day.peak_streams), &minute(day.peak_hour)[11..]);
            add(date(day.day), day.starts, day.denied, day.over_limit, &peak);
        }
    }
    if report.hours.is_empty() { String::new() } else { columns(&rows) }
}

fn sessions(report: &Report) -> String {
    if report.sessions.count == 0 {
        return String::new();
    }
    let mut rows = vec![row(["Sessions by length", "known end", "assumed end"])];
    for class in &report.sessions.by_length {
        rows.push(row([&length(class), &count(class.known_ends), &count(class.assumed_ends)]));
    }
    columns(&rows)
}

fn devices(report: &Report) -> String {
    let devices = &report.devices;
    let mut text = String::new();
    if !devices.users.is_empty() {
        let mut rows = vec![row(["Devices of a user", "users"])];
        for class in &devices.users {
            rows.push(row([&device_count(class), &count(class.users)]));
        }
        text.push_str(&columns(&rows));
    }
    if !devices.names.is_empty() {
        let mut rows = vec![row(["Device names", "starts", "denied or over the limit"])];
        for name in &devices.names {
            rows.push(row([&printable(&name.device_name), &count(name.starts), &count(name.exceeding)]));
        }
        let separator = if text.is_empty() { "" } else { "\n" };
        _ = write!(text, "{separator}{}", columns(&rows));
    }
    text
}

/// The number of devices. The highest class includes all users with more.
pub(super) fn device_count(class: &UsersByDevices) -> String {
    let more = if class.devices == MAX_DEVICES { " or more" } else { "" };
    format!("{}{more}", class.devices)
}

/// The bounds of a class, such as `5 to 15 min`.
pub(super) fn length(class: &LengthClass) -> String {
    let unit = |seconds: u64| match seconds {
        seconds if seconds >= 3600 => (seconds / 3600, "h"),
        seconds => (seconds / 60, "min"),
    };
    let (from, from_unit) = unit(class.from_seconds);
    match class.below_seconds.map(unit) {
        None => format!("{from} {from_unit} or more"),
        Some((below, unit)) if class.from_seconds == 0 => format!("below {below} {unit}"),
        Some((below, unit)) if unit == from_unit => format!("{from} to {below} {unit}"),
        Some((below, unit)) => format!("{from} {from_unit} to {below} {unit}"),
    }
}

pub(super) fn count(number: u64) -> String {
    whole(number as f64)
}

pub(super) fn hours_of(seconds: u64) -> String {
    number(seconds as f64 / 3600.0)
}

pub(super) fn minute(time: EventTime) -> String {
    format_time(time, "%Y-%m-%d %H:%M")
}

pub(super) fn date(time: EventTime) -> String {
    format_time(time, "%Y-%m-%d")
}

fn format_time(time: EventTime, format: &str) -> String {
    DateTime::from_timestamp_millis(time.0.epoch_ms()).unwrap_or_default().format(format).to_string()
}
