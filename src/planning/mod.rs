//! What a number of streams costs and needs on AWS: rates, units, money, quotas, instances, and how long a crashed player
//! holds its slot. Plain data; the arithmetic is in `estimate`, what it goes by in `prices`, how it is written in `report`.

pub mod demand;
mod estimate;
pub mod prices;
pub mod report;
#[cfg(test)]
mod tests;

use serde::Serialize;

use self::demand::{Demand, Terms};
use self::estimate::Estimate;
use self::prices::Prices;

/// The heartbeats that are compared, in seconds, beside the one that is asked for.
const HEARTBEATS_S: [u64; 8] = [10, 15, 20, 30, 45, 60, 90, 120];
/// The leases that are compared, in heartbeats. 2 is the least that is allowed.
const LEASES_IN_HEARTBEATS: [u64; 3] = [2, 3, 5];

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
    /// None when it is not known how much an instance takes.
    pub instances: Option<u64>,
    /// What all of one user's players write at the limit, as they should.
    pub user_write_units_per_second: f64,
    /// The most that the rates let a user's heartbeats and starts write through each instance; none when there is no bound.
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

/// One verb: how often at the peak, and what each time takes of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Requests {
    pub verb: &'static str,
    pub per_second: f64,
    pub write_units_each: f64,
    pub read_units_each: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Units {
    pub requests_per_second: f64,
    pub write_units_per_second: f64,
    pub read_units_per_second: f64,
}

/// Money, by what it is for.
#[derive(Clone, Debug, Serialize)]
pub struct Month {
    pub on_demand: f64,
    pub provisioned_following: f64,
    pub provisioned_for_the_peak: f64,
    pub reserved_for_the_peak: f64,
    pub storage: f64,
    pub recovery: f64,
    pub fargate: Option<f64>,
    pub load_balancer: f64,
    pub traffic: f64,
    /// With the table on demand.
    pub total: f64,
}

/// How much of a quota is used, in units a second.
#[derive(Clone, Debug, Serialize)]
pub struct Headroom {
    pub what: String,
    pub needed: f64,
    pub granted: f64,
    pub used_percent: f64,
    /// What to do before it is needed, when it is more than is granted.
    pub advice: Option<&'static str>,
}

/// What a lease and a heartbeat mean for who has crashed, and for who plays while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LeaseTimes {
    pub lease_s: u64,
    /// A crash right after a heartbeat.
    pub longest_ghost_s: u64,
    /// A crash at any moment.
    pub average_ghost_s: f64,
    /// An outage that begins right before a heartbeat.
    pub outage_survived_s: u64,
}

/// Another heartbeat: its bill, and its leases.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub heartbeat_s: u64,
    pub write_units_per_second: f64,
    pub table_month: f64,
    pub total_month: f64,
    /// Against the plan's own heartbeat; negative when it costs more.
    pub saves_month: f64,
    pub leases: Vec<LeaseTimes>,
}

pub fn plan(demand: &Demand, terms: Terms, prices: &Prices) -> Plan {
    let estimate = Estimate::new(demand, terms, prices);
    let month = estimate.month();
    let choices = choices(demand, terms, prices, month.total);
    let sources = [
        ("DynamoDB", &prices.dynamodb.source, &prices.dynamodb.as_of),
        ("quotas", &prices.quotas.source, &prices.quotas.as_of),
        ("Fargate", &prices.fargate.source, &prices.fargate.as_of),
        ("load balancer", &prices.load_balancer.source, &prices.load_balancer.as_of),
        ("traffic", &prices.traffic.source, &prices.traffic.as_of),
        ("heartbeats an instance takes", &prices.instance.source, &prices.instance.as_of),
    ];
    Plan {
        demand: demand.clone(),
        terms,
        currency: prices.currency.clone(),
        region: prices.region.clone(),
        sources: sources
            .map(|(what, source, as_of)| Source { what, source: source.clone(), as_of: as_of.clone() })
            .into(),
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

impl LeaseTimes {
    pub fn new(heartbeat_s: u64, lease_s: u64) -> Self {
        Self {
            lease_s,
            longest_ghost_s: lease_s,
            average_ghost_s: lease_s as f64 - heartbeat_s as f64 / 2.0,
            outage_survived_s: lease_s.saturating_sub(heartbeat_s),
        }
    }
}
