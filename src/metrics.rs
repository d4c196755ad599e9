//! What an operator counts, in Prometheus' names and units. No label ever holds a user's name or an id.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admission::Start;
use crate::store::{Stop, StoppedBy, StoreError, StreamState};

pub struct Metrics {
    registry: Registry,
    starts: Family<Outcome, Counter>,
    heartbeats: Family<Outcome, Counter>,
    stops: Family<Outcome, Counter>,
    streams_ended: Counter,
    leases_reaped: Counter,
    /// Attempts that were repeated because others changed the same user's streams.
    pub contention: Counter,
    requests: Family<Request, Counter>,
    request_seconds: Family<Route, Histogram>,
    pub in_flight: Gauge,
    pub connections: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
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
            starts: Family::default(),
            heartbeats: Family::default(),
            stops: Family::default(),
            streams_ended: Counter::default(),
            leases_reaped: Counter::default(),
            contention: Counter::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("starts", "Starts by outcome", metrics.starts.clone());
        registry.register("heartbeats", "Heartbeats by outcome", metrics.heartbeats.clone());
        registry.register("stops", "Stops and evictions by outcome", metrics.stops.clone());
        registry.register("streams_ended", "Streams replaced or evicted by a start", metrics.streams_ended.clone());
        registry.register("leases_reaped", "Dead leases cleared away by a start", metrics.leases_reaped.clone());
        registry.register("contention_retries", "Attempts repeated after contention", metrics.contention.clone());
        registry.register("http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time to answer by route",
            metrics.request_seconds.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register("http_connections", "Open connections", metrics.connections.clone());
        metrics
    }

    pub fn started(&self, start: Result<&Start, &StoreError>) {
        if let Ok(Start::Started(started)) = start {
            self.streams_ended.inc_by(started.ended.len() as u64);
            self.leases_reaped.inc_by(started.reaped as u64);
        }
        count(
            &self.starts,
            match start {
                Ok(Start::Started(_)) => "started",
                Ok(Start::Existing(_)) => "replayed",
                Ok(Start::Ended(_)) => "ended",
                Ok(Start::KeyReused) => "key_reused",
                Ok(Start::Denied(_)) => "denied",
                Err(_) => "failed",
            },
        );
    }

    pub fn heartbeat(&self, beat: Result<&StreamState, &StoreError>) {
        count(
            &self.heartbeats,
            match beat {
                Ok(StreamState::Live(_)) => "renewed",
                Ok(StreamState::Over(lease)) if lease.ending.is_some() => "ended",
                Ok(StreamState::Over(_)) => "expired",
                Ok(StreamState::NotFound) => "not_found",
                Err(_) => "failed",
            },
        );
    }

    pub fn stopped(&self, by: StoppedBy, stop: Result<&Stop, &StoreError>) {
        count(
            &self.stops,
            match (by, stop) {
                (StoppedBy::Player, Ok(Stop::Freed)) => "stopped",
                (StoppedBy::Evictor, Ok(Stop::Freed)) => "evicted",
                (_, Ok(Stop::AlreadyGone)) => "already_gone",
                (_, Err(_)) => "failed",
            },
        );
    }

    /// One answered HTTP request. `route` is the operation's name, never the path.
    pub fn request(&self, route: &'static str, status: u16, seconds: f64) {
        self.requests.get_or_create(&Request { route, status }).inc();
        self.request_seconds.get_or_create(&Route { route }).observe(seconds);
    }

    /// All of it in Prometheus' text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From a fast answer out of memory to the request timeout.
const BUCKETS_S: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

fn count(family: &Family<Outcome, Counter>, outcome: &'static str) {
    family.get_or_create(&Outcome { outcome }).inc();
}
