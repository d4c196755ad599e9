//! Calculates a plan. docs/ARCHITECTURE.md lists the store requests of each operation. tests/integration/requests.rs measures
//! their capacity units.

use serde::Serialize;

use super::demand::{Demand, Terms};
use super::prices::Prices;

/// The load at the peak, from which the results of a plan are calculated.
pub(super) struct Estimate<'a> {
    demand: &'a Demand,
    terms: Terms,
    prices: &'a Prices,
    /// Write units of a start or a stop.
    change_write_units: f64,
    pub requests: Vec<Requests>,
}

/// One operation: its rate at the peak, and the capacity units that each request consumes.
#[derive(Clone, Debug, Serialize)]
pub struct Requests {
    pub operation: &'static str,
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

/// Costs per month.
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
    /// The total with an on-demand table.
    pub total: f64,
}

/// The use of a quota, in units per second.
#[derive(Clone, Debug, Serialize)]
pub struct Headroom {
    pub what: String,
    pub needed: f64,
    pub granted: f64,
    pub used_percent: f64,
    /// What to do in advance. Set only if the plan needs more than AWS grants.
    pub advice: Option<&'static str>,
}

/// One write unit covers this many bytes of one item.
const WRITE_UNIT_BYTES: u64 = 1024;
/// One read unit covers this many bytes of the items that a consistent query reads. The sizes of these items are added up.
const READ_UNIT_BYTES: u64 = 4096;
/// Size of a counter without members, for a user name of up to 64 bytes.
const COUNTER_BYTES: u64 = 150;
/// Size of a member, which is a stream id.
const MEMBER_BYTES: u64 = 36;
/// DynamoDB bills this many bytes per stored item in addition to its size.
const STORED_ITEM_BYTES: u64 = 100;
/// A transaction costs two writes per item: one to prepare and one to commit.
const WRITES_IN_TRANSACTION: u64 = 2;
const GB: f64 = 1024.0 * 1024.0 * 1024.0;
/// Reserved capacity is sold in blocks of this many units.
const RESERVED_BLOCK: f64 = 100.0;

impl<'a> Estimate<'a> {
    pub(super) fn new(demand: &'a Demand, terms: Terms, prices: &'a Prices) -> Self {
        let counter_bytes = COUNTER_BYTES + MEMBER_BYTES * terms.streams_per_user;
        let lease_units = demand.lease_bytes.div_ceil(WRITE_UNIT_BYTES);
        let change = (WRITES_IN_TRANSACTION * (counter_bytes.div_ceil(WRITE_UNIT_BYTES) + lease_units)) as f64;
        let read = (counter_bytes + terms.streams_per_user * demand.lease_bytes).div_ceil(READ_UNIT_BYTES) as f64;
        let without_read = (100 - demand.device_percent) * (100 - demand.rule_percent(&terms));
        let read_first = 1.0 - without_read as f64 / 10_000.0;
        let streams = demand.streams as f64;
        // Steady state: streams end as fast as they start.
        let starts = streams / (demand.session_minutes as f64 * 60.0);
        let denied = starts * demand.denied_percent as f64 / (100 - demand.denied_percent) as f64;
        let counts = starts * demand.counts_per_start as f64;
        let row = |operation, per_second, write_units_each, read_units_each| Requests {
            operation,
            per_second,
            write_units_each,
            read_units_each,
        };
        let requests = vec![
            row("heartbeat", streams / terms.heartbeat_s as f64, lease_units as f64, 0.0),
            row("start", starts, change, read * read_first),
            row("start, denied", denied, change * (1.0 - read_first), read),
            row("stop", starts, change, 0.0),
            row("count or list", counts, 0.0, read),
        ];
        Self { demand, terms, prices, change_write_units: change, requests }
    }

    pub(super) fn peak(&self) -> Units {
        self.units(1.0)
    }

    pub(super) fn average(&self) -> Units {
        self.units(self.demand.average_percent as f64 / 100.0)
    }

    fn units(&self, share: f64) -> Units {
        let sum = |of: fn(&Requests) -> f64| share * self.requests.iter().map(of).sum::<f64>();
        Units {
            requests_per_second: sum(|row| row.per_second),
            write_units_per_second: sum(|row| row.per_second * row.write_units_each),
            read_units_per_second: sum(|row| row.per_second * row.read_units_each),
        }
    }

    pub(super) fn month(&self) -> Month {
        let Prices { hours_per_month: hours, dynamodb: table, .. } = self.prices;
        let (peak, average) = (self.peak(), self.average());
        let millions = |units: f64| units * hours * 3600.0 / 1e6;
        let on_demand = millions(average.write_units_per_second) * table.million_write_units
            + millions(average.read_units_per_second) * table.million_read_units;
        let provisioned =
            |writes: f64, reads: f64| hours * (writes * table.write_unit_hour + reads * table.read_unit_hour);
        let blocks = |units: f64| (units / RESERVED_BLOCK).ceil() * RESERVED_BLOCK;
        let (writes, reads) = self.provisioned(peak);
        let following = self.provisioned(average);
        let stored = self.stored_gb();
        let month = Month {
            on_demand,
            provisioned_following: provisioned(following.0, following.1),
            provisioned_for_the_peak: provisioned(writes, reads),
            reserved_for_the_peak: provisioned(blocks(writes), blocks(reads))
                * (1.0 - table.reserved_saves_percent / 100.0),
            storage: stored * table.storage_gb_month,
            recovery: stored * table.recovery_gb_month,
            fargate: self.fargate(),
            load_balancer: self.load_balancer(),
            traffic: self.gb_per_hour(self.prices.traffic.answer_bytes) * hours * self.prices.traffic.gb_out,
            total: 0.0,
        };
        let total = month.on_demand
            + month.storage
            + month.recovery
            + month.fargate.unwrap_or(0.0)
            + month.load_balancer
            + month.traffic;
        Month { total, ..month }
    }

    /// The write and read units to provision for this load at the requested utilization.
    fn provisioned(&self, load: Units) -> (f64, f64) {
        let to_provision = |units: f64| (units * 100.0 / self.demand.utilization_percent as f64).ceil();
        (to_provision(load.write_units_per_second), to_provision(load.read_units_per_second))
    }

    /// The stored data at the peak: one counter per user, one lease per stream.
    fn stored_gb(&self) -> f64 {
        let users = self.demand.users.unwrap_or(self.demand.streams) as f64;
        let counters = users * (COUNTER_BYTES + MEMBER_BYTES + STORED_ITEM_BYTES) as f64;
        let leases = self.demand.streams as f64 * (self.demand.lease_bytes + STORED_ITEM_BYTES) as f64;
        (counters + leases) / GB
    }

    pub(super) fn instances(&self) -> Option<u64> {
        let instance = &self.prices.instance;
        let each = instance.heartbeats_per_second * instance.target_percent / 100.0;
        // Counts every request as a heartbeat, because nearly all requests are heartbeats.
        (each > 0.0).then(|| (self.peak().requests_per_second / each).ceil().max(instance.at_least) as u64)
    }

    /// The monthly cost of the instances. Enough instances for the peak run during the whole month.
    fn fargate(&self) -> Option<f64> {
        let Prices { instance, fargate, hours_per_month, .. } = self.prices;
        let hour = instance.vcpus * fargate.vcpu_hour + instance.memory_gb * fargate.gb_hour;
        self.instances().map(|instances| instances as f64 * hour * hours_per_month)
    }

    fn gb_per_hour(&self, bytes_per_request: f64) -> f64 {
        self.average().requests_per_second * 3600.0 * bytes_per_request / GB
    }

    fn load_balancer(&self) -> f64 {
        let Prices { load_balancer, traffic, hours_per_month, .. } = self.prices;
        let streams = self.demand.streams as f64 * self.demand.average_percent as f64 / 100.0;
        let heartbeat_s = self.terms.heartbeat_s as f64;
        let starts = streams / (self.demand.session_minutes as f64 * 60.0);
        // The load balancer closes idle connections. If the heartbeat interval is at least the idle timeout, each heartbeat opens
        // a new connection.
        let (opened, open) = if heartbeat_s < load_balancer.idle_timeout_s {
            (starts, streams)
        } else {
            (starts + streams / heartbeat_s, streams * load_balancer.idle_timeout_s / heartbeat_s)
        };
        let units = (opened / load_balancer.unit_new_connections_per_second)
            .max(open / load_balancer.unit_active_connections)
            .max(self.gb_per_hour(traffic.request_bytes + traffic.answer_bytes) / load_balancer.unit_gb_per_hour);
        hours_per_month * (load_balancer.hour + units * load_balancer.unit_hour)
    }

    pub(super) fn headroom(&self) -> Vec<Headroom> {
        let quotas = &self.prices.quotas;
        let peak = self.peak();
        let heartbeats = &self.requests[0];
        let ramp = self.demand.streams as f64 / (self.demand.ramp_minutes as f64 * 60.0) * self.change_write_units
            + heartbeats.per_second * heartbeats.write_units_each;
        let (writes, _) = self.provisioned(peak);
        let minutes = self.demand.ramp_minutes;
        let ramping = format!("table, writes while all streams start in {minutes} min");
        let row = |what: &str, needed: f64, granted: f64, advice| Headroom {
            what: what.to_owned(),
            needed,
            granted,
            used_percent: needed / granted * 100.0,
            advice: (needed > granted).then_some(advice),
        };
        let request = "request a higher quota";
        let warm = "raise its warm throughput first";
        let peak_writes = peak.write_units_per_second;
        vec![
            row("table, writes at the peak", peak_writes, quotas.table_write_units, request),
            row("table, reads at the peak", peak.read_units_per_second, quotas.table_read_units, request),
            row(&ramping, ramp, quotas.table_write_units, request),
            row("table, writes provisioned for the peak", writes, quotas.table_write_units, request),
            row("account, writes provisioned for the peak", writes, quotas.account_write_units, request),
            row("new table on demand, writes at the peak", peak_writes, quotas.new_table_write_units, warm),
            row("partition, writes of one user at the limit", self.user(), quotas.partition_write_units, "throttled"),
        ]
    }

    pub(super) fn user(&self) -> f64 {
        let peak = self.peak().write_units_per_second / self.demand.streams as f64;
        peak * self.terms.streams_per_user as f64
    }

    pub(super) fn user_bound(&self) -> Option<f64> {
        let Terms { starts_per_minute, heartbeats_per_minute, .. } = self.terms;
        if starts_per_minute == 0 || heartbeats_per_minute == 0 {
            return None;
        }
        let heartbeats = heartbeats_per_minute as f64 * self.requests[0].write_units_each;
        let per_minute = heartbeats + starts_per_minute as f64 * self.change_write_units;
        Some(per_minute / 60.0)
    }
}
