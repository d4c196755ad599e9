//! What an operator counts, in Prometheus' names and units. No label ever holds a user's name or an id.
//! What the numbers mean: docs/MONITORING.md, "Metrics".

use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::admission::StartOutcome;
use crate::store::dynamodb::metrics_interceptor::StoreMetrics;
use crate::store::{Stop, StoppedBy, StoreError, StreamState};

pub struct Metrics {
    registry: Registry,
    starts: Outcomes,
    heartbeats: Outcomes,
    stops: Outcomes,
    heartbeat_lateness: Histogram,
    streams_ended: Family<Reason, Counter>,
    leases_reaped: Counter,
    /// Attempts that were repeated because others changed the same user's streams.
    pub contention: Counter,
    requests: Family<Request, Counter>,
    request_seconds: Family<Route, Histogram>,
    pub in_flight: Gauge,
    pub in_flight_limit: Gauge,
    /// Requests refused because too many were in flight.
    pub overloaded: Counter,
    pub connections: Gauge,
    pub connections_limit: Gauge,
    pub store: StoreMetrics,
}

/// Of one route, found once and not for each request.
pub struct RouteMetrics {
    route: &'static str,
    requests: Family<Request, Counter>,
    /// Of the status that the route answered first: mostly the only one.
    usual: OnceLock<(u16, Counter)>,
    seconds: Histogram,
}

/// How often each of a verb's outcomes came; all are there from the beginning, because a rate sees the first of its kind
/// only if there was a 0 before.
struct Outcomes {
    family: Family<Outcome, Counter>,
    counters: Vec<(&'static str, Counter)>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("stream_manager"),
            starts: Outcomes::new(&STARTS),
            heartbeats: Outcomes::new(&HEARTBEATS),
            stops: Outcomes::new(&STOPS),
            heartbeat_lateness: Histogram::new(BUCKETS_LATENESS),
            streams_ended: Family::default(),
            leases_reaped: Counter::default(),
            contention: Counter::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            in_flight: Gauge::default(),
            in_flight_limit: Gauge::default(),
            overloaded: Counter::default(),
            connections: Gauge::default(),
            connections_limit: Gauge::default(),
            store: StoreMetrics::new(),
        };
        let registry = &mut metrics.registry;
        registry.register("starts", "Starts by outcome", metrics.starts.family.clone());
        registry.register("heartbeats", "Heartbeats by outcome", metrics.heartbeats.family.clone());
        registry.register("stops", "Stops and evictions by outcome", metrics.stops.family.clone());
        registry.register(
            "heartbeat_lateness_ratio",
            "Share of the lease that had passed when a heartbeat renewed it",
            metrics.heartbeat_lateness.clone(),
        );
        registry.register("streams_ended", "Streams ended by others, by reason", metrics.streams_ended.clone());
        registry.register("leases_reaped", "Dead leases cleared away by a start", metrics.leases_reaped.clone());
        registry.register("contention_retries", "Attempts repeated after contention", metrics.contention.clone());
        registry.register("http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time to answer by route",
            metrics.request_seconds.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register(
            "http_requests_in_flight_limit",
            "How many requests may be in flight",
            metrics.in_flight_limit.clone(),
        );
        registry.register(
            "http_requests_overloaded",
            "Requests refused because too many were in flight",
            metrics.overloaded.clone(),
        );
        registry.register("http_connections", "Open connections", metrics.connections.clone());
        registry.register(
            "http_connections_limit",
            "How many connections may be open",
            metrics.connections_limit.clone(),
        );
        metrics.store.register(registry);
        // As with outcomes.
        metrics.ended("evicted", 0);
        metrics.ended("replaced", 0);
        metrics
    }

    pub fn started(&self, start: Result<&StartOutcome, &StoreError>) {
        if let Ok(StartOutcome::Started(started)) = start {
            let (ended, evicted) = (started.ended.len() as u64, started.evicted as u64);
            self.ended("evicted", evicted);
            self.ended("replaced", ended.saturating_sub(evicted));
            self.leases_reaped.inc_by(started.reaped as u64);
        }
        self.starts.count(match start {
            Ok(StartOutcome::Started(_)) => "started",
            Ok(StartOutcome::Existing(_)) => "replayed",
            Ok(StartOutcome::Ended(_)) => "ended",
            Ok(StartOutcome::KeyReused) => "key_reused",
            Ok(StartOutcome::Denied(_)) => "denied",
            Err(_) => "failed",
        });
    }

    pub fn heartbeat(&self, beat: Result<&StreamState, &StoreError>) {
        self.heartbeats.count(match beat {
            Ok(StreamState::Live(_)) => "renewed",
            Ok(StreamState::Inactive(lease)) if lease.termination.is_some() => "ended",
            Ok(StreamState::Inactive(_)) => "expired",
            Ok(StreamState::NotFound) => "not_found",
            Err(_) => "failed",
        });
    }

    /// How late a heartbeat came that renewed its lease: 0 at once, 1 as the lease ran out.
    pub fn heartbeat_lateness(&self, ratio: f64) {
        self.heartbeat_lateness.observe(ratio);
    }

    pub fn stopped(&self, by: StoppedBy, stop: Result<&Stop, &StoreError>) {
        if let (StoppedBy::Evictor, Ok(Stop::Freed)) = (by, stop) {
            self.ended("evicted", 1);
        }
        self.stops.count(match (by, stop) {
            (StoppedBy::Player, Ok(Stop::Freed)) => "stopped",
            (StoppedBy::Evictor, Ok(Stop::Freed)) => "evicted",
            (_, Ok(Stop::AlreadyGone)) => "already_gone",
            (_, Err(_)) => "failed",
        });
    }

    /// `route` is an operation's name, never a path.
    pub fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics {
            route,
            requests: self.requests.clone(),
            usual: OnceLock::new(),
            seconds: self.request_seconds.get_or_create_owned(&Route { route }),
        })
    }

    /// All of it in Prometheus' text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn ended(&self, reason: &'static str, streams: u64) {
        self.streams_ended.get_or_create(&Reason { reason }).inc_by(streams);
    }
}

impl RouteMetrics {
    pub fn route(&self) -> &'static str {
        self.route
    }

    /// One answered HTTP request.
    pub fn answered(&self, status: u16, seconds: f64) {
        let counter = || self.requests.get_or_create_owned(&Request { route: self.route, status });
        match self.usual.get_or_init(|| (status, counter())) {
            (usual, requests) if *usual == status => requests.inc(),
            _ => counter().inc(),
        };
        self.seconds.observe(seconds);
    }
}

impl Outcomes {
    fn new(outcomes: &[&'static str]) -> Self {
        let family = Family::<Outcome, Counter>::default();
        let counter = |outcome: &&'static str| (*outcome, family.get_or_create_owned(&Outcome { outcome }));
        Self { counters: outcomes.iter().map(counter).collect(), family }
    }

    fn count(&self, outcome: &'static str) {
        let counter = self.counters.iter().find(|(known, _)| *known == outcome);
        debug_assert!(counter.is_some(), "{outcome} is not there from the beginning");
        counter.inspect(|(_, counter)| _ = counter.inc());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const STARTS: [&str; 6] = ["started", "replayed", "ended", "key_reused", "denied", "failed"];
const HEARTBEATS: [&str; 5] = ["renewed", "ended", "expired", "not_found", "failed"];
const STOPS: [&str; 4] = ["stopped", "evicted", "already_gone", "failed"];

/// From a fast answer out of memory to the request timeout.
const BUCKETS_S: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Around a third, the heartbeat interval of the default settings: beyond two thirds, a heartbeat was missed; towards 1, the
/// stream was nearly lost.
const BUCKETS_LATENESS: [f64; 9] = [0.1, 0.25, 0.35, 0.5, 0.66, 0.8, 0.9, 0.95, 1.0];
