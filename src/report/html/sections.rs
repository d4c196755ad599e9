//! The sections of the page.

use maud::{Markup, html};

use super::chart::{Chart, ChartError, Kind};
use super::figure::{Figure, Table};
use crate::report::days::days;
use crate::report::model::{Report, WhatIfCase};
use crate::report::text::{MAX_HOUR_ROWS, count, date, device_count, length, level_row, minute, what_if_row};
use crate::text_table::percent;

/// Above, the charts and tables have one value per day.
const MAX_HOUR_POINTS: usize = 24 * 62;

pub(super) fn what_if(report: &Report) -> Result<Markup, ChartError> {
    let Some(what_if) = &report.what_if else { return Ok(html! {}) };
    Ok(html! {
        h3 { "Limit of users" }
        (cases("what-if", "If the limit were 1 to 6", &what_if.limits)?)
        @for (index, rule) in what_if.rules.iter().enumerate() {
            h3 { "Rule " bdi { (rule.rule) } }
            (cases(&format!("what-if-rule-{index}"), "If the maximum of the rule were 1 to 6", &rule.limits)?)
        }
    })
}

fn cases(id: &str, title: &str, cases: &[WhatIfCase]) -> Result<Markup, ChartError> {
    let describe = |case: &WhatIfCase| {
        format!(
            "With {}, {} of the starts are denied and {} of the users are hit.",
            case.limit,
            percent(case.denied_percent),
            percent(case.users_hit_percent)
        )
    };
    let values = |of: fn(&WhatIfCase) -> f64| cases.iter().map(of).collect::<Vec<_>>();
    Figure {
        id,
        title,
        description: cases.iter().take(3).map(describe).collect::<Vec<_>>().join(" "),
        legend: &["starts denied", "users hit", "watching time lost"],
        chart: Chart {
            kind: Kind::Bars,
            categories: &cases.iter().map(|case| case.limit.to_string()).collect::<Vec<_>>(),
            series: &[
                values(|case| case.denied_percent),
                values(|case| case.users_hit_percent),
                values(|case| case.lost_watching_percent),
            ],
            unit: " %",
        },
        table: Table {
            caption: "starts denied, users hit and hours lost by limit",
            header: &[
                "Limit",
                "starts denied",
                "share",
                "users hit",
                "share",
                "hours lost",
                "share",
                "streams evicted",
            ],
            rows: cases.iter().map(what_if_row).collect(),
        },
    }
    .render()
}

pub(super) fn concurrency(report: &Report) -> Result<Markup, ChartError> {
    let Some(levels) = report.concurrency.as_ref().filter(|levels| !levels.is_empty()) else { return Ok(html! {}) };
    let highest = levels.last().map_or(0, |level| level.streams);
    let several: u64 = levels.iter().skip(1).map(|level| level.users_attempted).sum();
    let figure = Figure {
        id: "concurrency",
        title: "Users by the most streams at once",
        description: format!(
            "{} of {} users attempted more than one stream at once, and the highest number is {highest}.",
            count(several),
            count(levels.iter().map(|level| level.users_attempted).sum()),
        ),
        legend: &["users who attempted this many", "users who reached this many"],
        chart: Chart {
            kind: Kind::Bars,
            categories: &levels.iter().map(|level| level.streams.to_string()).collect::<Vec<_>>(),
            series: &[
                levels.iter().map(|level| level.users_attempted as f64).collect(),
                levels.iter().map(|level| level.users_reached as f64).collect(),
            ],
            unit: "",
        },
        table: Table {
            caption: "starts and users by streams of the user at once",
            header: &["Streams", "starts attempted", "reached", "users attempted", "reached"],
            rows: levels.iter().map(level_row).collect(),
        },
    };
    Ok(html! { h2 { "Concurrency" } (figure.render()?) })
}

pub(super) fn denied_users(report: &Report) -> Markup {
    let row = |user: &crate::report::model::DeniedUser| {
        vec![
            user.user.clone(),
            count(user.starts),
            count(user.denied),
            count(user.over_limit),
            user.highest_attempted.to_string(),
            user.devices.to_string(),
        ]
    };
    let table = Table {
        caption: "the users with the most starts that were denied or over the limit",
        header: &["User", "starts", "denied", "over the limit", "most streams attempted", "devices"],
        rows: report.most_denied_users.iter().map(row).collect(),
    };
    html! { @if !table.rows.is_empty() { h2 { "Most denied users" } (table.render()) } }
}

pub(super) fn rules(report: &Report) -> Markup {
    let row = |rule: &crate::report::model::RuleUse| {
        vec![
            rule.rule.clone(),
            count(rule.starts),
            count(rule.denied),
            count(rule.over_limit),
            count(rule.users),
            count(rule.users_exceeding),
        ]
    };
    let table = Table {
        caption: "starts to which a rule applied",
        header: &["Rule", "starts", "denied", "over the limit", "users", "users exceeding"],
        rows: report.rules.iter().map(row).collect(),
    };
    html! { @if !table.rows.is_empty() { h2 { "Rules" } (table.render()) } }
}

pub(super) fn hours(report: &Report) -> Result<Markup, ChartError> {
    // Time, starts, over the limit, denied, most streams at once.
    type Point = (String, u64, u64, u64, u64);
    let hourly = || -> Vec<Point> {
        let point = |hour: &crate::report::model::Hour| {
            (minute(hour.hour), hour.starts, hour.over_limit, hour.denied, hour.peak_streams)
        };
        report.hours.iter().map(point).collect()
    };
    let daily = || -> Vec<Point> {
        days(&report.hours)
            .iter()
            .map(|day| (date(day.day), day.starts, day.over_limit, day.denied, day.peak_streams))
            .collect()
    };
    let points = if report.hours.len() <= MAX_HOUR_POINTS { hourly() } else { daily() };
    let table = if report.hours.len() <= MAX_HOUR_ROWS { hourly() } else { daily() };
    // Of many hours, only midnight has a label: its date.
    let label = |point: &Point| match point.0[5..].strip_suffix(" 00:00") {
        Some(date) => date.to_owned(),
        None if report.hours.len() > MAX_HOUR_ROWS && point.0.contains(' ') => String::new(),
        None => point.0[5..].to_owned(),
    };
    let categories: Vec<String> = points.iter().map(label).collect();
    let values = |of: fn(&Point) -> u64| points.iter().map(|point| of(point) as f64).collect::<Vec<_>>();
    let row = |point: &Point| {
        let counts = [point.1, point.2, point.3, point.4].map(count);
        [point.0.clone()].into_iter().chain(counts).collect()
    };
    // The first of equal hours, as in the text.
    let busiest = report.hours.iter().rev().max_by_key(|hour| hour.starts);
    let peak = report.hours.iter().rev().max_by_key(|hour| hour.peak_streams);
    let starts = [values(|point| point.1), values(|point| point.2), values(|point| point.3)];
    let streams = [values(|point| point.4)];
    // A line needs two points, and few points are easier to read as bars.
    let kind = if points.len() <= MAX_HOUR_ROWS { Kind::Bars } else { Kind::Lines };
    let header = ["Time, UTC", "starts", "over the limit", "denied", "most streams at once"];
    let figure = |id, title, description, legend, series| {
        Figure {
            id,
            title,
            description,
            legend,
            chart: Chart { kind, categories: &categories, series, unit: "" },
            table: Table {
                caption: "starts and concurrent streams by time",
                header: &header,
                rows: table.iter().map(row).collect(),
            },
        }
        .render()
    };
    Ok(html! {
        h2 { "Over time" }
        @if let (Some(busiest), Some(peak)) = (busiest, peak) {
            (figure(
                "starts",
                "Starts",
                format!("The hour with the most starts begins at {} UTC and has {}.", minute(busiest.hour), count(busiest.starts)),
                &["starts", "over the limit", "denied"][..],
                &starts[..],
            )?)
            (figure(
                "peak",
                "Most streams at once, all users together",
                format!("The peak is {}, in the hour from {} UTC.", count(peak.peak_streams), minute(peak.hour)),
                &["streams"][..],
                &streams[..],
            )?)
        }
    })
}

pub(super) fn sessions(report: &Report) -> Result<Markup, ChartError> {
    let classes = &report.sessions.by_length;
    let figure = Figure {
        id: "sessions",
        title: "Sessions by length",
        description: format!(
            "{} of {} sessions have no event of their end. They are taken to have ended at their last known expiry.",
            count(report.sessions.assumed_ends),
            count(report.sessions.count),
        ),
        legend: &["known end", "assumed end"],
        chart: Chart {
            kind: Kind::Bars,
            categories: &classes.iter().map(length).collect::<Vec<_>>(),
            series: &[
                classes.iter().map(|class| class.known_ends as f64).collect(),
                classes.iter().map(|class| class.assumed_ends as f64).collect(),
            ],
            unit: "",
        },
        table: Table {
            caption: "sessions by length",
            header: &["Length", "known end", "assumed end"],
            rows: classes
                .iter()
                .map(|class| vec![length(class), count(class.known_ends), count(class.assumed_ends)])
                .collect(),
        },
    };
    Ok(html! { h2 { "Sessions" } (figure.render()?) })
}

pub(super) fn devices(report: &Report) -> Result<Markup, ChartError> {
    let (users, names) = (&report.devices.users, &report.devices.names);
    let classes: Vec<String> = users.iter().map(device_count).collect();
    let figure = Figure {
        id: "devices",
        title: "Users by the number of their devices",
        description: format!("{} starts have no device id.", count(report.devices.starts_without_id)),
        legend: &["users"],
        chart: Chart {
            kind: Kind::Bars,
            categories: &classes,
            series: &[users.iter().map(|class| class.users as f64).collect()],
            unit: "",
        },
        table: Table {
            caption: "users by the number of their devices",
            header: &["Devices", "users"],
            rows: classes.iter().zip(users).map(|(class, users)| vec![class.clone(), count(users.users)]).collect(),
        },
    };
    let row = |name: &crate::report::model::DeviceNameUse| {
        vec![name.device_name.clone(), count(name.starts), count(name.exceeding)]
    };
    let table = Table {
        caption: "the most frequent device names",
        header: &["Device name", "starts", "denied or over the limit"],
        rows: names.iter().map(row).collect(),
    };
    Ok(html! {
        @if !users.is_empty() || !table.rows.is_empty() {
            h2 { "Devices" }
            @if !users.is_empty() { (figure.render()?) }
            @if !table.rows.is_empty() { (table.render()) }
        }
    })
}
