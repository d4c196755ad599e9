//! The places of requests in flight, bounded, and who gets the last of them. What keeps a player playing goes before
//! what starts another one, and that before what only asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics::Metrics;

pub struct Places {
    taken: AtomicUsize,
    most: usize,
    metrics: Arc<Metrics>,
}

/// What a request is for, by which it is refused sooner or later when there is much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Asked most when there is most to do, and costs nothing: never refused.
    Health,
    /// Stops free slots, heartbeats keep them. A refused one costs a player its stream.
    Keeping,
    Starting,
    Asking,
}

/// A request's place, until its operation has ended, whether or not anybody still waits for it.
pub struct Place {
    places: Arc<Places>,
    counted: bool,
}

impl Places {
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.in_flight_limit.set(i64::try_from(most).unwrap_or(i64::MAX));
        Arc::new(Self { taken: AtomicUsize::new(0), most, metrics })
    }

    /// Whether there would be a place now.
    pub fn has_room(&self, priority: Priority) -> bool {
        self.taken.load(Ordering::Relaxed) < self.most_for(priority)
    }

    /// None when there is none for this priority.
    pub fn enter(self: &Arc<Self>, priority: Priority) -> Option<Place> {
        let most = self.most_for(priority);
        let counted = priority != Priority::Health;
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        if counted {
            self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        }
        self.metrics.in_flight.inc();
        Some(Place { places: Arc::clone(self), counted })
    }

    fn most_for(&self, priority: Priority) -> usize {
        match priority {
            Priority::Health => usize::MAX,
            Priority::Keeping => self.most,
            Priority::Starting => self.most - self.most / 8,
            Priority::Asking => self.most - self.most / 4,
        }
    }
}

impl Priority {
    /// `operation` as the OpenAPI document names it.
    pub fn of(operation: &str) -> Self {
        match operation {
            "live" | "ready" | "health" => Self::Health,
            "heartbeat" | "stop" | "stopByPost" => Self::Keeping,
            "start" => Self::Starting,
            _ => Self::Asking,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.metrics.in_flight.dec();
        if self.counted {
            self.places.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_are_for_stops_and_heartbeats_and_the_ones_before_for_starts() {
        let places = Places::new(16, Arc::default());
        let take = |priority, n: usize| {
            let taken: Vec<Place> = (0..n).filter_map(|_| places.enter(priority)).collect();
            taken
        };
        let asking = take(Priority::Asking, 99);
        assert_eq!(asking.len(), 12);
        let starting = take(Priority::Starting, 99);
        assert_eq!(starting.len(), 2);
        let keeping = take(Priority::Keeping, 99);
        assert_eq!(keeping.len(), 2);
        assert!(places.enter(Priority::Keeping).is_none());
        assert!(places.enter(Priority::Health).is_some(), "health needs none");
        drop(asking);
        assert_eq!(take(Priority::Asking, 99).len(), 8);
    }

    #[test]
    fn a_single_place_is_for_everybody() {
        for priority in [Priority::Asking, Priority::Starting, Priority::Keeping] {
            let places = Places::new(1, Arc::default());
            let place = places.enter(priority);
            assert!(place.is_some() && places.enter(priority).is_none());
            drop(place);
            assert!(places.enter(priority).is_some());
        }
    }

    #[test]
    fn the_document_knows_the_operations_that_are_told_apart() {
        let document: serde_json::Value =
            serde_json::from_str(&crate::http::api::openapi::openapi_document()).unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|methods| methods.as_object().unwrap().values());
        let names: Vec<&str> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
        for name in ["live", "ready", "health", "heartbeat", "stop", "stopByPost", "start"] {
            assert!(names.contains(&name) && Priority::of(name) != Priority::Asking, "{name}");
        }
    }
}
