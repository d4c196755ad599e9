//! What comes out: as JSON for programs and as text for people. Measures and judges nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::holds::{TOLD, Verdict};
use crate::measurements::{Measurements, Second, VERBS};
use crate::options::Options;

/// Points of a curve for each halving of what is above.
const POINTS_A_HALVING: u32 = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub configuration: Options,
    /// Less than the duration if it was ended sooner.
    pub lasted_seconds: f64,
    pub answers: u64,
    pub failures: u64,
    pub answers_per_second: f64,
    /// In the full seconds after the last player's first start.
    pub answers_per_second_after_ramp_up: Option<f64>,
    /// How many, by verb and status; "none" for no answer.
    pub statuses: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// By verb: 2xx, 404, 409, 410.
    pub answered: BTreeMap<&'static str, Times>,
    /// By verb: 401, 403, 429, 5xx and no answer.
    pub failed: BTreeMap<&'static str, Times>,
    pub seconds: Vec<Second>,
    pub malformed_answers: u64,
    pub connections_opened: u64,
    pub requests_that_waited_for_a_connection: u64,
    pub woken_late: Times,
    pub stopped_after_the_run: u64,
    pub left_to_run_out: u64,
    pub limit_check: Verdict,
}

/// Of one histogram, in microseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Quantile and time.
    pub curve: Vec<(f64, u64)>,
}

impl Report {
    pub fn new(options: &Options, lasted: Duration, measured: &Measurements, limit_check: Verdict) -> Self {
        let verbs = || VERBS.map(|verb| (verb.name(), &measured.verbs[verb as usize]));
        let times = |histogram: &Histogram<u32>| (!histogram.is_empty()).then(|| Times::of(histogram));
        let answers: u64 = verbs().map(|(_, verb)| verb.answered.len()).iter().sum();
        let failures: u64 = verbs().map(|(_, verb)| verb.failed.len()).iter().sum();
        let ramp_up = usize::try_from(options.ramp_up.as_secs_f64().ceil() as u64).unwrap_or(usize::MAX);
        let settled = measured.seconds.iter().take(lasted.as_secs() as usize).skip(ramp_up);
        let settled: Vec<f64> = settled.map(|second| f64::from(second.answers())).collect();
        Self {
            configuration: options.clone(),
            lasted_seconds: lasted.as_secs_f64(),
            answers,
            failures,
            answers_per_second: answers as f64 / lasted.as_secs_f64(),
            answers_per_second_after_ramp_up: (!settled.is_empty())
                .then(|| settled.iter().sum::<f64>() / settled.len() as f64),
            statuses: verbs()
                .into_iter()
                .map(|(name, verb)| (name, verb.statuses.iter().map(|(status, count)| (label(*status), *count))))
                .map(|(name, statuses)| (name, statuses.collect()))
                .collect(),
            answered: verbs().into_iter().filter_map(|(name, verb)| Some((name, times(&verb.answered)?))).collect(),
            failed: verbs().into_iter().filter_map(|(name, verb)| Some((name, times(&verb.failed)?))).collect(),
            seconds: measured.seconds.clone(),
            malformed_answers: measured.malformed,
            connections_opened: measured.opened,
            requests_that_waited_for_a_connection: measured.queued,
            woken_late: Times::of(&measured.lateness),
            stopped_after_the_run: measured.cleared,
            left_to_run_out: measured.left,
            limit_check,
        }
    }

    pub fn count(&self, verb: &str, status: &str) -> u64 {
        self.statuses.get(verb).and_then(|statuses| statuses.get(status)).copied().unwrap_or(0)
    }

    /// What makes the run a failure.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.limit_check.violations > 0 {
            faults.push(format!("the limit was exceeded {} times", self.limit_check.violations));
        }
        if self.malformed_answers > 0 {
            faults.push(format!("{} successes were not what the protocol says", self.malformed_answers));
        }
        if self.count("start", "201") == 0 {
            faults.push("no start was ever admitted: nothing was tested".to_owned());
        }
        faults
    }
}

impl Times {
    fn of(histogram: &Histogram<u32>) -> Self {
        let curve = histogram.iter_quantiles(POINTS_A_HALVING);
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
        writeln!(f, "{:<20} {:>9}  answers", "", "count")?;
        for (verb, statuses) in &self.statuses {
            for (status, count) in statuses {
                writeln!(f, "{verb:<20} {count:>9}  {status}")?;
            }
        }
        let heads = ["p50", "p90", "p99", "p99.9", "max"].map(|head| format!("{head:>10}")).concat();
        writeln!(f, "\n{:<20} {:>9}{heads}  in ms, from when a request was due", "", "count")?;
        for (verb, times) in &self.answered {
            row(f, verb, times)?;
        }
        for (verb, times) in &self.failed {
            row(f, &format!("{verb}, failed"), times)?;
        }
        row(f, "woken late", &self.woken_late)?;
        write!(f, "\n{:.0} answers/s over {:.1} s", self.answers_per_second, self.lasted_seconds)?;
        if let Some(settled) = self.answers_per_second_after_ramp_up {
            write!(f, ", {settled:.0}/s after the ramp-up")?;
        }
        let (opened, waited) = (self.connections_opened, self.requests_that_waited_for_a_connection);
        writeln!(f, "; {} failures; {opened} connections, {waited} requests waited for one", self.failures)?;
        writeln!(
            f,
            "{} streams stopped after the run, {} left to run out",
            self.stopped_after_the_run, self.left_to_run_out
        )?;
        limit_check(f, &self.limit_check)?;
        self.faults().iter().try_for_each(|fault| writeln!(f, "FAILED: {fault}"))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, times: &Times) -> fmt::Result {
    write!(f, "{name:<20} {:>9}", times.count)?;
    for micros in [times.p50_us, times.p90_us, times.p99_us, times.p999_us, times.max_us] {
        write!(f, "{:>10.2}", micros as f64 / 1000.0)?;
    }
    writeln!(f)
}

fn limit_check(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    let Verdict { violations, told, users, users_without_limit, users_at_limit, leases, most_held } = verdict;
    writeln!(
        f,
        "limit: {violations} times a user surely held too many; {leases} leases of {users} users, at most {most_held} at \
         once; {users_at_limit} users came up against it"
    )?;
    if *users_at_limit == 0 && *violations == 0 {
        writeln!(f, "       nobody asked for more than the limit, so it was not tested: see --streams-per-user")?;
    }
    if *users_without_limit > 0 {
        writeln!(f, "       {users_without_limit} users were told no limit, and are not judged")?;
    }
    for violation in told {
        let streams: Vec<String> = violation.streams.iter().map(ToString::to_string).collect();
        writeln!(
            f,
            "VIOLATED: {} held {} of {} from {} to {} ms: {}",
            violation.user_name,
            violation.held,
            violation.limit,
            violation.from_ms,
            violation.until_ms,
            streams.join(", ")
        )?;
    }
    if *violations > TOLD as u64 { writeln!(f, "VIOLATED: and {} more", violations - TOLD as u64) } else { Ok(()) }
}

fn label(status: u16) -> String {
    if status == 0 { "none".to_owned() } else { status.to_string() }
}
