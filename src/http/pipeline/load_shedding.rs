//! Load shedding: limits the number of requests in flight. Near the limit, only the more important requests are admitted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::telemetry::metrics::{Gauge, Metrics};

/// Admits at most `max` requests at a time, on all workers together.
pub struct InFlightLimiter {
    /// Also the metric, so that each request changes only one value that all workers share.
    in_flight: Gauge,
    max: usize,
}

/// The importance of a request. As load rises, requests of lower priority are rejected first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Health checks. They are cheap and matter most under load, so they are never rejected.
    Exempt,
    /// Heartbeats and stops. A rejected heartbeat can cost a player its stream, and a stop frees a slot.
    Critical,
    /// Starts.
    Normal,
    /// All other requests.
    Low,
}

/// Counts one request as in flight until the permit is dropped. The handler holds the permit until the handler completes,
/// even if the client has disconnected.
pub(crate) struct Permit<'a>(Option<&'a InFlightLimiter>);

impl InFlightLimiter {
    pub fn new(max: usize, metrics: &Metrics) -> Arc<Self> {
        metrics.in_flight_limit.set(i64::try_from(max).unwrap_or(i64::MAX));
        Arc::new(Self { in_flight: metrics.in_flight.clone(), max })
    }

    /// Whether [`Self::try_acquire`] would succeed now.
    pub(crate) fn has_capacity(&self, priority: Priority) -> bool {
        priority == Priority::Exempt || self.in_flight.get() < self.max_for(priority)
    }

    /// `None` if the limit for this priority is reached.
    pub(crate) fn try_acquire(&self, priority: Priority) -> Option<Permit<'_>> {
        if priority == Priority::Exempt {
            return Some(Permit(None));
        }
        let max = self.max_for(priority);
        let increment = |in_flight: i64| (in_flight < max).then_some(in_flight + 1);
        self.in_flight.inner().fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment).ok()?;
        Some(Permit(Some(self)))
    }

    fn max_for(&self, priority: Priority) -> i64 {
        let max = match priority {
            Priority::Exempt | Priority::Critical => self.max,
            Priority::Normal => self.max - self.max / 8,
            Priority::Low => self.max - self.max / 4,
        };
        i64::try_from(max).unwrap_or(i64::MAX)
    }
}

impl Priority {
    /// The priority of an operation. `operation_id` is its id in the code.
    pub(crate) fn of(operation_id: &str) -> Self {
        match operation_id {
            "live" | "ready" | "health" => Self::Exempt,
            "heartbeat" | "stop" | "stopByPost" => Self::Critical,
            "start" => Self::Normal,
            _ => Self::Low,
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(limiter) = self.0 {
            limiter.in_flight.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::OpenApi;

    use super::*;
    use crate::http::api::openapi::Apis;

    #[test]
    fn reads_are_shed_before_starts_and_starts_before_heartbeats() {
        let limiter = InFlightLimiter::new(16, &Metrics::new());
        let acquire_all =
            |priority| -> Vec<Permit<'_>> { std::iter::from_fn(|| limiter.try_acquire(priority)).take(99).collect() };
        let low = acquire_all(Priority::Low);
        assert_eq!(low.len(), 12);
        let normal = acquire_all(Priority::Normal);
        assert_eq!(normal.len(), 2);
        let critical = acquire_all(Priority::Critical);
        assert_eq!(critical.len(), 2);
        assert!(limiter.try_acquire(Priority::Critical).is_none());
        assert!(limiter.try_acquire(Priority::Exempt).is_some());
        drop(low);
        assert_eq!(acquire_all(Priority::Low).len(), 8);
    }

    #[test]
    fn a_limit_of_one_admits_every_priority() {
        for priority in [Priority::Low, Priority::Normal, Priority::Critical] {
            let limiter = InFlightLimiter::new(1, &Metrics::new());
            let permit = limiter.try_acquire(priority);
            assert!(permit.is_some() && limiter.try_acquire(priority).is_none());
            drop(permit);
            assert!(limiter.try_acquire(priority).is_some());
        }
    }

    #[test]
    fn every_operation_with_a_priority_exists() {
        let paths = Apis::meta().into_iter().flat_map(|api| api.paths);
        let ids: Vec<&str> =
            paths.flat_map(|path| path.operations).filter_map(|operation| operation.operation_id).collect();
        for id in ["live", "ready", "health", "heartbeat", "stop", "stopByPost", "start"] {
            assert!(ids.contains(&id) && Priority::of(id) != Priority::Low, "{id}");
        }
    }
}
