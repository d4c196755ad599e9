//! The report of a run, as JSON and as text.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::limit_check::{LimitCheck, MAX_REPORTED_VIOLATIONS};
use crate::measurements::{Latencies, Measurements, OPERATIONS, Second};
use crate::options::Options;

/// Number of points on the latency curve per halving of the distance to 100 %, for example from 90 % to 95 %.
const CURVE_POINTS_PER_HALVING: u32 = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub configuration: Options,
    /// Shorter than the duration if the run was cancelled.
    pub elapsed_seconds: f64,
    pub responses: u64,
    pub failures: u64,
    pub responses_per_second: f64,
    /// The mean rate over all full seconds after the ramp-up.
    pub responses_per_second_after_ramp_up: Option<f64>,
    /// Counts by operation and status. The status is "none" if there was no response.
    pub statuses: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Latencies by operation, for status 2xx, 404, 409 and 410.
    pub latencies: BTreeMap<&'static str, LatencySummary>,
    /// Latencies by operation, for status 401, 403, 429 and 5xx, and for requests without a response.
    pub failure_latencies: BTreeMap<&'static str, LatencySummary>,
    pub seconds: Vec<Second>,
    pub malformed_responses: u64,
    pub connections_opened: u64,
    pub requests_queued: u64,
    pub timer_delay: LatencySummary,
    pub streams_stopped_after_run: u64,
    pub streams_not_stopped: u64,
    pub limit_check: LimitCheck,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySummary {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Pairs of quantile and latency in microseconds.
    pub curve: Vec<(f64, u64)>,
}

impl Report {
    pub fn new(options: &Options, elapsed: Duration, measured: &Measurements, limit_check: LimitCheck) -> Self {
        let operations = || OPERATIONS.into_iter().map(|each| (each.name(), &measured.operations[each as usize]));
        let summary = |latencies: &Latencies| (!latencies.0.is_empty()).then(|| LatencySummary::of(latencies));
        let responses: u64 = operations().map(|(_, each)| each.succeeded.0.len()).sum();
        let ramp_up = options.ramp_up.as_secs_f64().ceil() as usize;
        let after_ramp_up = measured.seconds.iter().take(elapsed.as_secs() as usize).skip(ramp_up);
        let after_ramp_up: Vec<f64> = after_ramp_up.map(|second| f64::from(second.responses())).collect();
        Self {
            configuration: options.clone(),
            elapsed_seconds: elapsed.as_secs_f64(),
            responses,
            failures: operations().map(|(_, each)| each.failed.0.len()).sum(),
            responses_per_second: responses as f64 / elapsed.as_secs_f64(),
            responses_per_second_after_ramp_up: (!after_ramp_up.is_empty())
                .then(|| after_ramp_up.iter().sum::<f64>() / after_ramp_up.len() as f64),
            statuses: operations()
                .map(|(name, each)| (name, each.statuses.iter().map(|(status, count)| (label(*status), *count))))
                .map(|(name, statuses)| (name, statuses.collect()))
                .collect(),
            latencies: operations().filter_map(|(name, each)| Some((name, summary(&each.succeeded)?))).collect(),
            failure_latencies: operations().filter_map(|(name, each)| Some((name, summary(&each.failed)?))).collect(),
            seconds: measured.seconds.clone(),
            malformed_responses: measured.malformed,
            connections_opened: measured.connections_opened,
            requests_queued: measured.queued,
            timer_delay: LatencySummary::of(&measured.timer_delay),
            streams_stopped_after_run: measured.stopped_after_run,
            streams_not_stopped: measured.not_stopped,
            limit_check,
        }
    }

    pub fn count(&self, operation: &str, status: &str) -> u64 {
        self.statuses.get(operation).and_then(|statuses| statuses.get(status)).copied().unwrap_or(0)
    }

    /// The reasons why the run failed. Empty if it passed.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.limit_check.violations > 0 {
            failures.push(format!("the limit was exceeded {} times", self.limit_check.violations));
        }
        if self.malformed_responses > 0 {
            failures.push(format!("{} successful responses were malformed", self.malformed_responses));
        }
        if self.count("start", "201") == 0 {
            failures.push("no start succeeded, so nothing was tested".to_owned());
        }
        failures
    }
}

impl LatencySummary {
    fn of(Latencies(histogram): &Latencies) -> Self {
        let curve = histogram.iter_quantiles(CURVE_POINTS_PER_HALVING);
        let curve = curve.map(|point| (point.quantile_iterated_to(), point.value_iterated_to()));
        Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
            curve: curve.collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>9}  status", "", "count")?;
        for (operation, statuses) in &self.statuses {
            for (status, count) in statuses {
                writeln!(f, "{operation:<20} {count:>9}  {status}")?;
            }
        }
        let columns = ["p50", "p90", "p99", "p99.9", "max"].map(|column| format!("{column:>10}")).concat();
        writeln!(f, "\n{:<20} {:>9}{columns}  ms since the request was due", "", "count")?;
        for (operation, latencies) in &self.latencies {
            write_latencies(f, operation, latencies)?;
        }
        for (operation, latencies) in &self.failure_latencies {
            write_latencies(f, &format!("{operation}, failed"), latencies)?;
        }
        write_latencies(f, "timer delay", &self.timer_delay)?;
        write!(f, "\n{:.0} responses/s over {:.1} s", self.responses_per_second, self.elapsed_seconds)?;
        if let Some(rate) = self.responses_per_second_after_ramp_up {
            write!(f, ", {rate:.0}/s after the ramp-up")?;
        }
        let (opened, queued) = (self.connections_opened, self.requests_queued);
        writeln!(f, "; {} failures; {opened} connections opened, {queued} requests queued", self.failures)?;
        let (stopped, not_stopped) = (self.streams_stopped_after_run, self.streams_not_stopped);
        writeln!(f, "{stopped} streams stopped after the run, {not_stopped} left to expire")?;
        write_limit_check(f, &self.limit_check)?;
        self.failures().iter().try_for_each(|failure| writeln!(f, "FAILED: {failure}"))
    }
}

fn write_latencies(f: &mut fmt::Formatter<'_>, name: &str, latencies: &LatencySummary) -> fmt::Result {
    let LatencySummary { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = latencies;
    write!(f, "{name:<20} {count:>9}")?;
    for us in [p50_us, p90_us, p99_us, p999_us, max_us] {
        write!(f, "{:>10.2}", *us as f64 / 1000.0)?;
    }
    writeln!(f)
}

fn write_limit_check(f: &mut fmt::Formatter<'_>, check: &LimitCheck) -> fmt::Result {
    let LimitCheck { violations, reported, users, users_without_limit, users_at_limit, leases, max_held } = check;
    writeln!(
        f,
        "limit check: {violations} violations; {leases} leases of {users} users, at most {max_held} held at once; \
         {users_at_limit} users reached the limit"
    )?;
    if *users_at_limit == 0 && *violations == 0 {
        writeln!(f, "             not tested, since no user reached the limit: increase --streams-per-user")?;
    }
    if *users_without_limit > 0 {
        writeln!(f, "             {users_without_limit} users not checked, since no response contained their limit")?;
    }
    for violation in reported {
        let stream_ids: Vec<String> = violation.stream_ids.iter().map(ToString::to_string).collect();
        writeln!(
            f,
            "VIOLATION: {} held {} streams with a limit of {} from {} to {} ms: {}",
            violation.user_name,
            violation.held,
            violation.limit,
            violation.from_ms,
            violation.until_ms,
            stream_ids.join(", ")
        )?;
    }
    match violations.saturating_sub(MAX_REPORTED_VIOLATIONS as u64) {
        0 => Ok(()),
        more => writeln!(f, "VIOLATION: {more} more not shown"),
    }
}

fn label(status: Option<u16>) -> String {
    status.map_or_else(|| "none".to_owned(), |status| status.to_string())
}
