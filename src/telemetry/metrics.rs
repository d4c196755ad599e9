//! The service's metrics, with Prometheus names and units. docs/MONITORING.md, "Metrics", describes each metric.
//!
//! No label contains a user name, an id or a path. The names of rules are labels, because the settings bound their number.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text, text};
use prometheus_client::metrics::family::Family;
pub(crate) use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::event_metrics::EventMetrics;
use super::live_streams_gauge::LiveStreamsGauge;
use super::per_worker::{Counter, Histogram};
use super::process_metrics::ProcessCollector;
use super::rule_metrics::RuleCounters;
use super::store_metrics::StoreMetrics;

pub struct Metrics {
    registry: Registry,
    pub(crate) starts: StartCounters,
    pub(crate) heartbeats: HeartbeatCounters,
    pub(crate) stops: StopCounters,
    pub(crate) streams_ended: EndedCounters,
    pub(crate) rules: RuleCounters,
    /// Share of the lease duration that had passed when a heartbeat renewed the lease: 0 right after the previous renewal, 1 at
    /// the expiry.
    pub(crate) heartbeat_lateness: Histogram,
    pub(crate) heartbeat_interval: Gauge,
    pub live_streams: Arc<LiveStreamsGauge>,
    pub(crate) leases_reaped: Counter,
    /// Attempts that were repeated because another request changed the streams of the same user at the same time.
    pub(crate) contention: Counter,
    /// Requests whose token has a limit claim that is not a limit.
    pub token_limit_claims_ignored: Counter,
    /// Grants in responses to starts and heartbeats.
    pub(crate) grants_signed: Counter,
    pub(crate) grant_checks: GrantCheckCounters,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    pub in_flight: Gauge,
    pub(crate) in_flight_limit: Gauge,
    /// Requests shed because too many were in flight.
    pub overloaded: Counter,
    pub connections: Gauge,
    pub(crate) connections_limit: Gauge,
    pub(crate) parse_errors: ParseErrorCounters,
    pub events: EventMetrics,
    pub store: StoreMetrics,
}

/// Starts by outcome.
///
/// Each series of these counters, and of the counters below, is created at startup with the value 0. PromQL's `rate()` would miss
/// the first event of a series that starts at 1.
pub(crate) struct StartCounters {
    pub started: Counter,
    /// Admitted only because the limit or rule that they exceed is in observe mode. Not in `started`.
    pub over_limit: Counter,
    pub replayed: Counter,
    pub ended: Counter,
    pub key_reused: Counter,
    pub denied: Counter,
    pub failed: Counter,
}

/// Heartbeats by outcome.
pub(crate) struct HeartbeatCounters {
    pub renewed: Counter,
    pub ended: Counter,
    pub expired: Counter,
    pub not_found: Counter,
    pub failed: Counter,
}

/// Stops by outcome.
pub(crate) struct StopCounters {
    pub stopped: Counter,
    pub evicted: Counter,
    pub already_gone: Counter,
    pub failed: Counter,
}

/// Streams that were evicted or replaced.
pub(crate) struct EndedCounters {
    pub evicted: Counter,
    pub replaced: Counter,
}

/// Checks of grants by outcome.
pub(crate) struct GrantCheckCounters {
    pub valid: Counter,
    pub missing: Counter,
    pub invalid: Counter,
    pub expired: Counter,
    pub other_content: Counter,
    pub not_live: Counter,
    pub failed: Counter,
}

/// Request heads that the HTTP parser refused, by reason. `http_requests` does not count these requests, because they reach no
/// route.
pub(crate) struct ParseErrorCounters {
    pub malformed: Counter,
    pub too_large: Counter,
    pub http2: Counter,
}

/// The text formats of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// The Prometheus text format 0.0.4, which every scraper reads.
    Prometheus,
    OpenMetrics,
}

/// The metrics of one route.
pub(crate) struct RouteMetrics {
    route: &'static str,
    requests: Family<RequestLabels, Counter>,
    /// The counters of the first 16 statuses that this route returned. The family needs a lock for each lookup, which all workers would
    /// share.
    by_status: [OnceLock<(u16, Counter)>; 16],
    seconds: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    revision: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

/// Buckets from the fastest responses with the memory store up to the default request timeout.
const REQUEST_BUCKETS_S: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Dense around 1/3, because the default heartbeat interval is 1/3 of the lease duration. Above 2/3, a heartbeat was missed. Near
/// 1, the lease almost expired.
const LATENESS_BUCKETS: [f64; 9] = [0.1, 0.25, 0.35, 0.5, 0.66, 0.8, 0.9, 0.95, 1.0];

/// `BUILD_REVISION` is set by the Dockerfile and by the release workflow. The name lacks the prefix `STREAM_MANAGER`, because the
/// service refuses unknown variables with this prefix.
const BUILD: BuildLabels = BuildLabels {
    version: env!("CARGO_PKG_VERSION"),
    revision: match option_env!("BUILD_REVISION") {
        Some(revision) if !revision.is_empty() => revision,
        _ => "unknown",
    },
};

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        let r = registry.sub_registry_with_prefix("stream_manager");
        r.register("build", "Version and commit of this binary", Info::new(BUILD));
        let live_streams = Arc::<LiveStreamsGauge>::default();
        r.register_collector(Box::new(Arc::clone(&live_streams)));
        let store = StoreMetrics::new();
        store.register(r);
        Self {
            starts: StartCounters::register(r),
            heartbeats: HeartbeatCounters::register(r),
            stops: StopCounters::register(r),
            streams_ended: EndedCounters::register(r),
            rules: RuleCounters::register(r),
            heartbeat_lateness: registered(
                r,
                "heartbeat_lateness_ratio",
                "Share of the lease that had passed when a heartbeat renewed it",
                Histogram::new(&LATENESS_BUCKETS),
            ),
            heartbeat_interval: registered(
                r,
                "heartbeat_interval_seconds",
                "Heartbeat interval that players receive",
                Gauge::default(),
            ),
            live_streams,
            leases_reaped: registered(r, "leases_reaped", "Dead leases that starts deleted", Counter::default()),
            contention: registered(r, "contention_retries", "Attempts repeated after contention", Counter::default()),
            token_limit_claims_ignored: registered(
                r,
                "token_limit_claims_ignored",
                "Requests whose token has a limit claim that is not a limit",
                Counter::default(),
            ),
            grants_signed: registered(r, "grants_signed", "Grants in responses", Counter::default()),
            grant_checks: GrantCheckCounters::register(r),
            requests: registered(r, "http_requests", "Responses by route and status", Family::default()),
            request_seconds: registered(
                r,
                "http_request_duration_seconds",
                "Time from the head to the response by route",
                Family::new_with_constructor(|| Histogram::new(&REQUEST_BUCKETS_S)),
            ),
            in_flight: registered(r, "http_requests_in_flight", "Requests in flight", Gauge::default()),
            in_flight_limit: registered(
                r,
                "http_requests_in_flight_limit",
                "Highest number of requests in flight",
                Gauge::default(),
            ),
            overloaded: registered(
                r,
                "http_requests_overloaded",
                "Requests shed because too many were in flight",
                Counter::default(),
            ),
            connections: registered(r, "http_connections", "Open connections", Gauge::default()),
            connections_limit: registered(
                r,
                "http_connections_limit",
                "Highest number of open connections",
                Gauge::default(),
            ),
            parse_errors: ParseErrorCounters::register(r),
            events: EventMetrics::register(r),
            store,
            registry,
        }
    }

    /// `route` is the name of an operation, never a path.
    pub(crate) fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        let seconds = self.request_seconds.get_or_create_owned(&RouteLabels { route });
        Arc::new(RouteMetrics { route, requests: self.requests.clone(), by_status: Default::default(), seconds })
    }

    /// All metrics as text.
    pub fn encode(&self, format: TextFormat) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            TextFormat::Prometheus => prometheus_text::encode(&mut text, &self.registry)?,
            TextFormat::OpenMetrics => text::encode(&mut text, &self.registry)?,
        }
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RouteMetrics {
    /// Records one response, and the time from the head of the request to the response.
    pub(crate) fn observe(&self, status: u16, seconds: f64) {
        self.seconds.observe(seconds);
        let counter = || self.requests.get_or_create_owned(&RequestLabels { route: self.route, status });
        for slot in &self.by_status {
            let (known, requests) = slot.get_or_init(|| (status, counter()));
            if *known == status {
                requests.inc();
                return;
            }
        }
        counter().inc();
    }
}

impl TextFormat {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl StartCounters {
    fn register(registry: &mut Registry) -> Self {
        let counter = by_outcome(registry, "starts", "Starts by outcome");
        Self {
            started: counter("started"),
            over_limit: counter("over_limit"),
            replayed: counter("replayed"),
            ended: counter("ended"),
            key_reused: counter("key_reused"),
            denied: counter("denied"),
            failed: counter("failed"),
        }
    }
}

impl HeartbeatCounters {
    fn register(registry: &mut Registry) -> Self {
        let counter = by_outcome(registry, "heartbeats", "Heartbeats by outcome");
        Self {
            renewed: counter("renewed"),
            ended: counter("ended"),
            expired: counter("expired"),
            not_found: counter("not_found"),
            failed: counter("failed"),
        }
    }
}

impl StopCounters {
    fn register(registry: &mut Registry) -> Self {
        let counter = by_outcome(registry, "stops", "Stops and evictions by outcome");
        Self {
            stopped: counter("stopped"),
            evicted: counter("evicted"),
            already_gone: counter("already_gone"),
            failed: counter("failed"),
        }
    }
}

impl EndedCounters {
    fn register(registry: &mut Registry) -> Self {
        let counter = by_reason(registry, "streams_ended", "Streams ended by others, by reason");
        Self { evicted: counter("evicted"), replaced: counter("replaced") }
    }
}

impl GrantCheckCounters {
    fn register(registry: &mut Registry) -> Self {
        let counter = by_outcome(registry, "grant_checks", "Checks of grants by outcome");
        Self {
            valid: counter("valid"),
            missing: counter("missing"),
            invalid: counter("invalid"),
            expired: counter("expired"),
            other_content: counter("other_content"),
            not_live: counter("not_live"),
            failed: counter("failed"),
        }
    }
}

impl ParseErrorCounters {
    fn register(registry: &mut Registry) -> Self {
        let counter = by_reason(registry, "http_parse_errors", "Requests that the HTTP parser refused, by reason");
        Self { malformed: counter("malformed"), too_large: counter("too_large"), http2: counter("http2") }
    }
}

/// Registers a metric and returns it.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a counter with the label `outcome`, and returns a function that creates its series.
fn by_outcome(registry: &mut Registry, name: &str, help: &str) -> impl Fn(&'static str) -> Counter + use<> {
    let family = registered(registry, name, help, Family::<OutcomeLabels, Counter>::default());
    move |outcome| family.get_or_create_owned(&OutcomeLabels { outcome })
}

/// Registers a counter with the label `reason`, and returns a function that creates its series.
fn by_reason(registry: &mut Registry, name: &str, help: &str) -> impl Fn(&'static str) -> Counter + use<> {
    let family = registered(registry, name, help, Family::<ReasonLabels, Counter>::default());
    move |reason| family.get_or_create_owned(&ReasonLabels { reason })
}
