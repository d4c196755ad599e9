//! Formats a plan as text for people or as JSON for programs. Numbers are rounded.

use std::fmt::Write;

use serde_json::Value;

use super::plan::Plan;
use crate::text_table::{columns, number, percent, row, whole};

/// The plan as JSON. Rounds numbers to two decimal places, which is enough for every number of a plan.
pub fn json(plan: &Plan) -> String {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    round(&mut value);
    format!("{value:#}\n")
}

fn round(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(values) => values.values_mut().for_each(round),
        // Always finite, because `Prices` rejects zeros in divisors.
        value if value.is_f64() => *value = Value::from((value.as_f64().unwrap_or(0.0) * 100.0).round() / 100.0),
        _ => {}
    }
}

pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    _ = write!(text, "{}", assumptions(plan));
    text.push_str(&rules(plan));
    for part in [requests(plan), month(plan), headroom(plan), lease(plan), choices(plan), sources(plan)] {
        _ = write!(text, "\n{part}");
    }
    text
}

fn assumptions(plan: &Plan) -> String {
    let Plan { demand, terms, .. } = plan;
    let users = demand.users.unwrap_or(demand.streams);
    format!(
        "{} concurrent streams at the peak, {} % of that on average; sessions of {} min.\n\
         A heartbeat every {} s, leases of {} s and {} bytes, at most {} streams per user, {} distinct users.\n\
         {} % of the starts have a device id, {} % are denied; {} count or list requests per start.\n",
        whole(demand.streams as f64),
        demand.average_percent,
        demand.session_minutes,
        terms.heartbeat_s,
        terms.lease_s,
        demand.lease_bytes,
        terms.streams_per_user,
        whole(users as f64),
        demand.device_percent,
        demand.denied_percent,
        demand.counts_per_start,
    )
}

/// Empty if no rule applies to any start.
fn rules(plan: &Plan) -> String {
    match plan.demand.rule_percent(&plan.terms) {
        0 => String::new(),
        percent => format!("A rule applies to {percent} % of the starts without a device id.\n"),
    }
}

fn requests(plan: &Plan) -> String {
    let mut rows = vec![row([
        "At the peak",
        "requests/s",
        "write units each",
        "read units each",
        "write units/s",
        "read units/s",
    ])];
    for requests in &plan.requests {
        rows.push(row([
            requests.operation,
            &number(requests.per_second),
            &number(requests.write_units_each),
            &number(requests.read_units_each),
            &number(requests.per_second * requests.write_units_each),
            &number(requests.per_second * requests.read_units_each),
        ]));
    }
    for (what, units) in [("total", plan.peak), ("total, on average", plan.average)] {
        let writes = number(units.write_units_per_second);
        let reads = number(units.read_units_per_second);
        rows.push(row([what, &number(units.requests_per_second), "", "", &writes, &reads]));
    }
    columns(&rows)
}

fn month(plan: &Plan) -> String {
    let month = &plan.month;
    let money = |what: &str, amount: Option<f64>| row([what, &amount.map_or("not known".to_owned(), number)]);
    let provisioned = format!("table, provisioned, scaled with the load at {} %", plan.demand.utilization_percent);
    let peak = format!("table, provisioned for the peak at {} %", plan.demand.utilization_percent);
    let tasks =
        plan.instances.map_or("instances".to_owned(), |instances| format!("{} instances", whole(instances as f64)));
    columns(&[
        row(["Per month", &format!("{} in {}", plan.currency, plan.region)]),
        money("table, on demand", Some(month.on_demand)),
        money(&provisioned, Some(month.provisioned_following)),
        money(&peak, Some(month.provisioned_for_the_peak)),
        money("table, the same reserved for one year", Some(month.reserved_for_the_peak)),
        money("storage", Some(month.storage)),
        money("point-in-time recovery", Some(month.recovery)),
        money(&format!("{tasks} on Fargate"), month.fargate),
        money("load balancer (estimate)", Some(month.load_balancer)),
        money("traffic to the internet (estimate)", Some(month.traffic)),
        money("total, with the table on demand", Some(month.total)),
    ])
}

fn headroom(plan: &Plan) -> String {
    let mut rows = vec![row(["Quotas, in units per second", "needed", "granted", "used"])];
    let mut texts = vec![""];
    for quota in &plan.headroom {
        rows.push(row([&quota.what, &number(quota.needed), &number(quota.granted), &percent(quota.used_percent)]));
        texts.push(quota.advice.unwrap_or_default());
    }
    let bound = match plan.user_bound_write_units_per_second {
        Some(units) => format!("{} write units/s per instance; stops are not limited", number(units)),
        None => "none; set rate.starts_per_minute and rate.heartbeats_per_minute".to_owned(),
    };
    format!("{}Rate limit of one user: {bound}.\n", with_texts(&rows, texts))
}

fn lease(plan: &Plan) -> String {
    format!(
        "A crashed player holds its slot for at most {} s, {} s on average.\n\
         Running streams survive store outages of up to {} s, and none longer than {} s.\n",
        plan.lease.longest_ghost_s,
        number(plan.lease.average_ghost_s),
        plan.lease.outage_survived_s,
        plan.lease.lease_s,
    )
}

fn choices(plan: &Plan) -> String {
    let mut rows = vec![row([
        "Heartbeat",
        "write units/s",
        "table, on demand",
        "total",
        "saves per month",
        "ghost/outage at lease 2x",
        "3x",
        "5x",
    ])];
    for choice in &plan.choices {
        let mark = if choice.heartbeat_s == plan.terms.heartbeat_s { " (this plan)" } else { "" };
        let mut cells = row([
            &format!("{} s{mark}", choice.heartbeat_s),
            &number(choice.write_units_per_second),
            &number(choice.table_month),
            &number(choice.total_month),
            &number(choice.saves_month),
        ]);
        cells.extend(
            choice.leases.iter().map(|lease| format!("{}/{} s", lease.longest_ghost_s, lease.outage_survived_s)),
        );
        rows.push(cells);
    }
    columns(&rows)
}

fn sources(plan: &Plan) -> String {
    let mut rows = vec![row(["From", "as of", "source"])];
    rows.extend(plan.sources.iter().map(|from| row([from.what, &from.as_of, &from.source])));
    let texts: Vec<String> = rows.iter_mut().filter_map(Vec::pop).collect();
    with_texts(&rows, texts.iter().map(String::as_str))
}

/// Aligned columns, and one text of any length at the end of each row.
fn with_texts<'a>(rows: &[Vec<String>], texts: impl IntoIterator<Item = &'a str>) -> String {
    let lines = columns(rows);
    lines.lines().zip(texts).map(|(line, text)| format!("{}\n", format!("{line}  {text}").trim_end())).collect()
}
