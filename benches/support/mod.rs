//! Code shared by the benchmarks: processes under test, HTTP load, test data and statistics.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub mod apps;
pub mod closed_loop;
pub mod fixtures;
pub mod open_loop;
pub mod process;

use std::fmt;
use std::time::Duration;

use process::cpu_seconds;

/// Rate and CPU time of one contender in each round. The first round is a warm-up and is not counted.
#[derive(Default)]
pub struct Series {
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Series {
    /// Measures one round. Awaits `requests_per_s`, which puts load on `processes` for the duration `run` and returns the request
    /// rate. Records this rate, and the CPU time of the processes per request.
    pub async fn measure(&mut self, processes: &[u32], run: Duration, requests_per_s: impl Future<Output = f64>) {
        let cpu_before: f64 = processes.iter().copied().map(cpu_seconds).sum();
        let rate = requests_per_s.await;
        let cpu_after: f64 = processes.iter().copied().map(cpu_seconds).sum();
        self.rates.push(rate);
        self.cpu_us.push((cpu_after - cpu_before) * 1e6 / (rate * run.as_secs_f64()));
    }

    pub fn rates(&self) -> Spread {
        Spread::of(self.rates[1..].iter().copied())
    }

    /// CPU time per request, in microseconds.
    pub fn cpu_us(&self) -> Spread {
        Spread::of(self.cpu_us[1..].iter().copied())
    }

    /// The ratio of the rates, calculated for each round.
    pub fn rate_ratio(&self, base: &Self) -> Spread {
        Spread::of(self.rates[1..].iter().zip(&base.rates[1..]).map(|(rate, base)| rate / base))
    }

    /// The ratio of the CPU times per request, calculated for each round.
    pub fn cpu_ratio(&self, base: &Self) -> Spread {
        Spread::of(self.cpu_us[1..].iter().zip(&base.cpu_us[1..]).map(|(cpu, base)| cpu / base))
    }

    /// The share of the CPU time per request that `base` does not need, calculated for each round.
    pub fn cpu_overhead(&self, base: &Self) -> Spread {
        Spread::of(self.cpu_us[1..].iter().zip(&base.cpu_us[1..]).map(|(cpu, base)| 1.0 - base / cpu))
    }
}

pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }

    pub fn divided_by(self, divisor: f64) -> Self {
        Self { min: self.min / divisor, median: self.median / divisor, max: self.max / divisor }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} ({:.2}-{:.2})", self.median, self.min, self.max))
    }
}
