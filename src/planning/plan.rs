//! The result of `stream-manager plan`. The field names are the keys in the output of `--json`.

use serde::Serialize;

use super::demand::{Demand, Terms};
use super::estimate::{Estimate, Headroom, Month, Requests, Units};
use super::prices::Prices;

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub demand: Demand,
    pub terms: Terms,
    pub currency: String,
    pub region: String,
    pub sources: Vec<Source>,
    pub requests: Vec<Requests>,
    pub peak: Units,
    pub average: Units,
    pub month: Month,
    pub headroom: Vec<Headroom>,
    /// `None` if the rate that one instance can handle is unknown.
    pub instances: Option<u64>,
    /// Write units per second of one user at the limit, without retries.
    pub user_write_units_per_second: f64,
    /// Write units per second that the rate limits allow one user on each instance. `None` unless both rate limits are set.
    pub user_bound_write_units_per_second: Option<f64>,
    pub lease: LeaseTimes,
    pub choices: Vec<Choice>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Source {
    pub what: &'static str,
    pub source: String,
    pub as_of: String,
}

/// The effects of lease duration and heartbeat interval on crashed players, and on running players during a store outage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LeaseTimes {
    pub lease_s: u64,
    /// Longest time that a crashed player holds its slot. The time is longest if the player crashes right after a heartbeat.
    pub longest_ghost_s: u64,
    /// Average time that a crashed player holds its slot.
    pub average_ghost_s: f64,
    /// Longest store outage in which no lease expires, even if the outage begins right before a heartbeat.
    pub outage_survived_s: u64,
}

/// The costs and lease times with one heartbeat interval.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub heartbeat_s: u64,
    pub write_units_per_second: f64,
    pub table_month: f64,
    pub total_month: f64,
    /// Savings compared with the plan's interval. Negative if this interval costs more.
    pub saves_month: f64,
    pub leases: Vec<LeaseTimes>,
}

/// The heartbeat intervals to compare with the plan's interval, in seconds.
const HEARTBEATS_S: [u64; 8] = [10, 15, 20, 30, 45, 60, 90, 120];
/// The lease durations to compare, as multiples of the heartbeat interval. The settings allow no factor below 2.
const LEASES_IN_HEARTBEATS: [u64; 3] = [2, 3, 5];

impl Plan {
    pub fn new(demand: &Demand, terms: Terms, prices: &Prices) -> Self {
        let estimate = Estimate::new(demand, terms, prices);
        let month = estimate.month();
        let choices = choices(demand, terms, prices, month.total);
        Self {
            demand: demand.clone(),
            terms,
            currency: prices.currency.clone(),
            region: prices.region.clone(),
            sources: sources(prices),
            peak: estimate.peak(),
            average: estimate.average(),
            headroom: estimate.headroom(),
            instances: estimate.instances(),
            user_write_units_per_second: estimate.user(),
            user_bound_write_units_per_second: estimate.user_bound(),
            lease: LeaseTimes::new(terms.heartbeat_s, terms.lease_s),
            requests: estimate.requests,
            month,
            choices,
        }
    }
}

impl LeaseTimes {
    pub(super) fn new(heartbeat_s: u64, lease_s: u64) -> Self {
        Self {
            lease_s,
            longest_ghost_s: lease_s,
            average_ghost_s: lease_s as f64 - heartbeat_s as f64 / 2.0,
            outage_survived_s: lease_s.saturating_sub(heartbeat_s),
        }
    }
}

fn sources(prices: &Prices) -> Vec<Source> {
    let sources = [
        ("DynamoDB", &prices.dynamodb.source, &prices.dynamodb.as_of),
        ("quotas", &prices.quotas.source, &prices.quotas.as_of),
        ("Fargate", &prices.fargate.source, &prices.fargate.as_of),
        ("load balancer", &prices.load_balancer.source, &prices.load_balancer.as_of),
        ("traffic", &prices.traffic.source, &prices.traffic.as_of),
        ("heartbeats per instance", &prices.instance.source, &prices.instance.as_of),
    ];
    sources.map(|(what, source, as_of)| Source { what, source: source.clone(), as_of: as_of.clone() }).into()
}

fn choices(demand: &Demand, terms: Terms, prices: &Prices, total: f64) -> Vec<Choice> {
    let mut heartbeats = HEARTBEATS_S.to_vec();
    heartbeats.push(terms.heartbeat_s);
    heartbeats.sort_unstable();
    heartbeats.dedup();
    let choice = |heartbeat_s| {
        let estimate = Estimate::new(demand, Terms { heartbeat_s, ..terms }, prices);
        let month = estimate.month();
        Choice {
            heartbeat_s,
            write_units_per_second: estimate.peak().write_units_per_second,
            table_month: month.on_demand,
            total_month: month.total,
            saves_month: total - month.total,
            leases: LEASES_IN_HEARTBEATS.map(|n| LeaseTimes::new(heartbeat_s, n * heartbeat_s)).into(),
        }
    };
    heartbeats.into_iter().map(choice).collect()
}
