//! Counts, logs and records the outcomes of the operations.

use std::sync::Arc;

use tracing::info;

use super::retry::Timestamped;
use crate::clock::Clock;
use crate::domain::admission::{StartOutcome, StartRequest};
use crate::domain::lease::{LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};
use crate::events::queue::EventSender;
use crate::events::record::{Operation, Record, StartResult};
use crate::store::{Ended, Heartbeat, Result, Stop, StreamState};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::start_log::StartLog;

pub(super) struct Outcomes {
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub start_log: Arc<StartLog>,
    /// `None` if events are off.
    pub events: Option<EventSender>,
}

impl Outcomes {
    pub fn start(&self, user: &UserName, request: StartRequest, result: &Result<Timestamped<StartOutcome>>) {
        self.count_start(result);
        let Ok(Timestamped { now, value: outcome }) = result else { return };
        match outcome {
            StartOutcome::Started(started) => {
                if started.evicted() > 0 {
                    let (stream_id, ended) = (request.stream_id, joined(started.ended_ids()));
                    info!(event = "streams_evicted", %stream_id, ended, "start evicted streams");
                }
                if let Some(exceeded) = started.over_limit.first() {
                    self.start_log.over_limit(user, exceeded, self.clock.monotonic());
                }
            }
            StartOutcome::Denied(denial) => self.start_log.denied(user, denial, self.clock.monotonic()),
            _ => {}
        }
        self.record(user, *now, || {
            let result = match outcome {
                StartOutcome::Started(started) => StartResult::admitted(started, false),
                // Without a key, only an earlier attempt of this same start can have stored the lease.
                StartOutcome::Existing(started) => StartResult::admitted(started, request.fingerprint.is_some()),
                StartOutcome::Denied(denial) => StartResult::denied(denial),
                StartOutcome::Ended(_) | StartOutcome::KeyReused => return None,
            };
            Some(Operation::Start(request, result))
        });
    }

    pub fn heartbeat(&self, result: &Result<Timestamped<Heartbeat>>, terms: LeaseTerms) {
        let counters = &self.metrics.heartbeats;
        let counter = match result.as_ref().map(|at| &at.value.state) {
            Ok(StreamState::Live(_)) => &counters.renewed,
            Ok(StreamState::Inactive(lease)) if lease.termination.is_some() => &counters.ended,
            Ok(StreamState::Inactive(_)) => &counters.expired,
            Ok(StreamState::NotFound) => &counters.not_found,
            Err(_) => &counters.failed,
        };
        counter.inc();
        if let Ok(Timestamped { now, value: Heartbeat { previous_expiry: Some(previous), .. } }) = result {
            self.metrics.heartbeat_lateness.observe(terms.elapsed_fraction(*previous, *now));
        }
    }

    pub fn stop(&self, user: &UserName, stream_id: StreamId, result: &Result<Timestamped<Stop>>) {
        let counters = &self.metrics.stops;
        match result {
            Ok(Timestamped { now, value: Stop::Freed }) => {
                counters.stopped.inc();
                self.record(user, *now, || Some(Operation::Stop(stream_id)));
            }
            Ok(Timestamped { value: Stop::AlreadyGone, .. }) => _ = counters.already_gone.inc(),
            Err(_) => _ = counters.failed.inc(),
        };
    }

    pub fn eviction(&self, user: &UserName, result: &Result<Timestamped<Ended>>) {
        self.count_ended(result);
        let Ok(Timestamped { now, value: ended }) = result else { return };
        if ended.leases.is_empty() {
            // The request counts once, even if it lists several ids.
            self.metrics.stops.already_gone.inc();
            return;
        }
        log_evictions(ended);
        self.record(user, *now, || Some(Operation::Evict(ended.leases.clone())));
    }

    pub fn limit_and_excess(&self, user: &UserName, limit: StreamLimit, result: &Result<Timestamped<Ended>>) {
        self.count_ended(result);
        let Ok(Timestamped { now, value: ended }) = result else { return };
        if !ended.leases.is_empty() {
            log_evictions(ended);
        }
        let operation = || {
            let (previous, ended) = (ended.previous_limit, ended.leases.clone());
            Some(Operation::SetLimit { limit: Some(limit), previous, ended })
        };
        self.record(user, *now, operation);
    }

    pub fn limit(&self, user: &UserName, limit: Option<StreamLimit>, set: &Timestamped<Option<StreamLimit>>) {
        let previous = set.value;
        self.record(user, set.now, || Some(Operation::SetLimit { limit, previous, ended: Vec::new() }));
    }

    /// The whole erasure. `ended` is the result of its first step, and `purged` that of the second one.
    pub fn erasure(&self, user: &UserName, ended: Timestamped<Ended>, purged: &Result<Timestamped<()>>) {
        match purged {
            Ok(_) => info!(event = "user_erased", ended = ended.value.leases.len(), "user erased"),
            Err(_) => _ = self.metrics.stops.failed.inc(),
        }
        // Also after a failure, because the first step has ended the streams.
        self.record(user, ended.now, || Some(Operation::Erase(ended.value.ids())));
    }

    /// Calls `operation` only if events are on.
    fn record(&self, user: &UserName, now: Timestamp, operation: impl FnOnce() -> Option<Operation>) {
        if let Some(events) = &self.events
            && let Some(operation) = operation()
        {
            events.send(Record { now, user: user.clone(), operation });
        }
    }

    fn count_start(&self, result: &Result<Timestamped<StartOutcome>>) {
        let counters = &self.metrics.starts;
        let counter = match result.as_ref().map(|at| &at.value) {
            Ok(StartOutcome::Started(started)) => {
                let (ended, evicted) = (started.ended.len() as u64, started.evicted() as u64);
                self.metrics.streams_ended.evicted.inc_by(evicted);
                self.metrics.streams_ended.replaced.inc_by(ended.saturating_sub(evicted));
                self.metrics.leases_reaped.inc_by(started.reaped as u64);
                let rules = started.over_limit.iter().filter_map(|exceeded| exceeded.rule.as_ref());
                rules.for_each(|rule| self.metrics.rules.exceeded(rule));
                if started.over_limit.is_empty() { &counters.started } else { &counters.over_limit }
            }
            Ok(StartOutcome::Existing(_)) => &counters.replayed,
            Ok(StartOutcome::Ended(_)) => &counters.ended,
            Ok(StartOutcome::KeyReused) => &counters.key_reused,
            Ok(StartOutcome::Denied(denial)) => {
                if let Some(rule) = &denial.rule {
                    self.metrics.rules.denied(rule);
                }
                &counters.denied
            }
            Err(_) => &counters.failed,
        };
        counter.inc();
    }

    /// Counts the ended streams, or the failure. The first step of an erasure needs no more.
    pub fn count_ended(&self, result: &Result<Timestamped<Ended>>) {
        match result {
            Ok(Timestamped { value: Ended { leases, .. }, .. }) => {
                self.metrics.streams_ended.evicted.inc_by(leases.len() as u64);
                self.metrics.stops.evicted.inc_by(leases.len() as u64)
            }
            Err(_) => self.metrics.stops.failed.inc(),
        };
    }
}

fn log_evictions(ended: &Ended) {
    info!(event = "streams_evicted", ended = joined(ended.ids()), "streams evicted");
}

/// The ids, separated by spaces, for a log field.
fn joined(ids: Vec<StreamId>) -> String {
    ids.iter().map(StreamId::to_string).collect::<Vec<_>>().join(" ")
}
