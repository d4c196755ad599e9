//! Counts and latencies. Each thread measures separately, and the results are merged after the run.

#![allow(clippy::unwrap_used, reason = "all histograms have the same constant bounds")]

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer latencies are recorded as this value.
const MAX_LATENCY_US: u64 = 600_000_000;
pub const OPERATIONS: [Operation; 3] = [Operation::Start, Operation::Heartbeat, Operation::Stop];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Start,
    Heartbeat,
    Stop,
}

impl Operation {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Heartbeat => "heartbeat",
            Self::Stop => "stop",
        }
    }
}

#[derive(Default)]
pub struct Measurements {
    pub operations: [OperationMeasurements; OPERATIONS.len()],
    /// Delays of the tool's timers: how much later than intended a player continued.
    pub timer_delay: Latencies,
    pub seconds: Vec<Second>,
    /// Requests that waited for a connection.
    pub queued: u64,
    pub connections_opened: u64,
    /// Successful responses that do not conform to the protocol.
    pub malformed: u64,
    /// Streams that were active at the end of the run and then stopped.
    pub stopped_after_run: u64,
    /// Streams that were active at the end of the run and could not be stopped.
    pub not_stopped: u64,
}

#[derive(Default)]
pub struct OperationMeasurements {
    pub statuses: BTreeMap<Option<u16>, u64>,
    /// Latencies of responses that are not failures.
    pub succeeded: Latencies,
    /// Latencies of failures. They are separate, because failures are often fast and would make the service look faster.
    pub failed: Latencies,
}

/// How many responses and failures arrived in one particular second of the run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Second {
    pub start: u32,
    pub heartbeat: u32,
    pub stop: u32,
    pub failed: u32,
}

/// A histogram in microseconds.
pub struct Latencies(pub Histogram<u32>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).unwrap())
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.clamp(1, MAX_LATENCY_US));
    }

    fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).unwrap();
    }
}

impl Measurements {
    /// Records a response or a failure in the given second of the run.
    pub fn record(&mut self, operation: Operation, status: Option<u16>, latency: Duration, second: usize) {
        let failed = is_failure(status);
        let measured = &mut self.operations[operation as usize];
        *measured.statuses.entry(status).or_default() += 1;
        (if failed { &mut measured.failed } else { &mut measured.succeeded }).record(latency);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        let second = &mut self.seconds[second];
        let count = match operation {
            _ if failed => &mut second.failed,
            Operation::Start => &mut second.start,
            Operation::Heartbeat => &mut second.heartbeat,
            Operation::Stop => &mut second.stop,
        };
        *count += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.operations.iter_mut().zip(&other.operations) {
            for (status, count) in &other.statuses {
                *own.statuses.entry(*status).or_default() += count;
            }
            own.succeeded.merge(&other.succeeded);
            own.failed.merge(&other.failed);
        }
        self.timer_delay.merge(&other.timer_delay);
        self.seconds.resize(self.seconds.len().max(other.seconds.len()), Second::default());
        for (own, other) in self.seconds.iter_mut().zip(&other.seconds) {
            own.start += other.start;
            own.heartbeat += other.heartbeat;
            own.stop += other.stop;
            own.failed += other.failed;
        }
        self.queued += other.queued;
        self.connections_opened += other.connections_opened;
        self.malformed += other.malformed;
        self.stopped_after_run += other.stopped_after_run;
        self.not_stopped += other.not_stopped;
    }
}

/// Missing responses count as failures. Denials do not.
pub const fn is_failure(status: Option<u16>) -> bool {
    matches!(status, None | Some(401 | 403 | 429 | 500..))
}

impl Second {
    pub const fn responses(&self) -> u32 {
        self.start + self.heartbeat + self.stop
    }
}
