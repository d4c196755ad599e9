//! Compares plans with numbers calculated by hand.

use std::io::Write;

use super::demand::{Demand, Terms};
use super::plan::LeaseTimes;
use super::prices::Prices;
use super::{Plan, report};

const TERMS: Terms = Terms {
    heartbeat_s: 30,
    lease_s: 90,
    streams_per_user: 3,
    rules: 0,
    starts_per_minute: 0,
    heartbeats_per_minute: 0,
};

fn demand() -> Demand {
    Demand {
        streams: 1_000_000,
        average_percent: 100,
        session_minutes: 45,
        counts_per_start: 1,
        device_percent: 100,
        rule_percent: None,
        denied_percent: 0,
        lease_bytes: 400,
        users: None,
        ramp_minutes: 15,
        utilization_percent: 70,
    }
}

fn prices(overrides: &str) -> Result<Prices, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(overrides.as_bytes()).unwrap();
    Prices::load(Some(file.path())).map_err(|error| error.to_string())
}

/// Creates a plan with fixed prices, so that the expected values do not change when AWS changes its prices.
fn plan_of(demand: &Demand, terms: Terms) -> Plan {
    let fixed = "
        hours_per_month = 730
        [dynamodb]
        million_write_units = 0.625
        million_read_units = 0.125
        write_unit_hour = 0.00065
        read_unit_hour = 0.00013
        storage_gb_month = 0.25
        recovery_gb_month = 0.2
        reserved_saves_percent = 54
        [instance]
        heartbeats_per_second = 5000
        target_percent = 50
        at_least = 2
        vcpus = 2
        memory_gb = 4
        [fargate]
        vcpu_hour = 0.03238
        gb_hour = 0.00356
        [load_balancer]
        hour = 0.0225
        unit_hour = 0.008
        [traffic]
        gb_out = 0.09
        request_bytes = 1000
        answer_bytes = 500
    ";
    Plan::new(demand, terms, &prices(fixed).unwrap())
}

fn assert_near(value: f64, expected: f64) {
    assert!((value - expected).abs() <= expected.abs() * 1e-4, "{value} is not {expected}");
}

#[test]
fn capacity_units_follow_from_rates_and_item_sizes() {
    let plan = plan_of(&demand(), TERMS);
    // Per second: 1,000,000 / 30 heartbeats of 1 unit, 1,000,000 / 2,700 starts of 4 units, and as many stops of 4 units.
    assert_near(plan.peak.write_units_per_second, 33_333.33 + 2.0 * 370.37 * 4.0);
    // One read before each start, and one count after it.
    assert_near(plan.peak.read_units_per_second, 2.0 * 370.37);
    assert_near(plan.peak.requests_per_second, 33_333.33 + 3.0 * 370.37);
    assert_eq!(plan.peak, plan.average);
}

#[test]
fn on_demand_cost_is_units_times_price() {
    // 36,296.3 × 2.628 million s × 0.625 + 740.74 × 2.628 million s × 0.125 = 59,616.67 + 243.33
    assert_near(plan_of(&demand(), TERMS).month.on_demand, 59_860.0);
    // On-demand capacity is billed by use.
    let half = plan_of(&Demand { average_percent: 50, ..demand() }, TERMS);
    assert_near(half.month.on_demand, 29_930.0);
}

#[test]
fn provisioned_capacity_costs_whole_units_at_the_utilization() {
    let plan = plan_of(&Demand { average_percent: 50, ..demand() }, TERMS);
    // 36,296.3 / 0.7 = 51,852 write and 740.74 / 0.7 = 1,059 read units: 51,852 × 0.4745 + 1,059 × 0.0949
    assert_near(plan.month.provisioned_for_the_peak, 24_704.28);
    // 18,148.15 / 0.7 = 25,926 and 370.37 / 0.7 = 530
    assert_near(plan.month.provisioned_following, 12_352.18);
    // In blocks of 100 units, at 46 % of the price: (51,900 × 0.4745 + 1,100 × 0.0949) × 0.46
    assert_near(plan.month.reserved_for_the_peak, 11_376.23);
}

#[test]
fn leases_above_one_kilobyte_cost_more_write_units() {
    for (lease_bytes, heartbeat, start) in [(1024, 1.0, 4.0), (1025, 2.0, 6.0)] {
        let plan = plan_of(&Demand { lease_bytes, ..demand() }, TERMS);
        let each: Vec<f64> = plan.requests.iter().map(|row| row.write_units_each).collect();
        assert_eq!(each[..2], [heartbeat, start], "{lease_bytes}");
    }
    // 50 members of 36 bytes need two write units, and 50 leases need six read units.
    let many = plan_of(&demand(), Terms { streams_per_user: 50, ..TERMS });
    assert_eq!((many.requests[1].write_units_each, many.requests[1].read_units_each), (6.0, 6.0));
}

#[test]
fn starts_to_which_a_rule_applies_read_first() {
    let read_units = |device_percent, rule_percent, rules| {
        let plan = plan_of(&Demand { device_percent, rule_percent, ..demand() }, Terms { rules, ..TERMS });
        plan.requests[1].read_units_each
    };
    assert_near(read_units(0, Some(25), 0), 0.25);
    assert_near(read_units(60, Some(25), 0), 0.7);
    assert_eq!([read_units(0, None, 0), read_units(0, None, 1), read_units(0, Some(0), 1)], [0.0, 1.0, 0.0]);
}

#[test]
fn a_denied_start_without_device_also_costs_a_cancelled_transaction() {
    for (device_percent, write_units) in [(100, 0.0), (0, 4.0)] {
        let plan = plan_of(&Demand { device_percent, denied_percent: 20, ..demand() }, TERMS);
        let denied = &plan.requests[2];
        assert_eq!((denied.write_units_each, denied.read_units_each), (write_units, 1.0));
        // One fifth of all starts is one quarter of the admitted starts.
        assert_near(denied.per_second, 370.37 / 4.0);
    }
}

#[test]
fn exceeded_quotas_have_advice() {
    let plan = plan_of(&demand(), TERMS);
    let used: Vec<(f64, Option<&str>)> =
        plan.headroom.iter().map(|quota| (quota.used_percent.round(), quota.advice)).collect();
    let (request, warm) = (Some("request a higher quota"), Some("raise its warm throughput first"));
    // Write units per second while all streams start within 900 s: 33,333.3 heartbeats × 1 + 1,111.1 starts × 4 = 37,778 of
    // 40,000, which is 94 %.
    let expected =
        [(91.0, None), (2.0, None), (94.0, None), (130.0, request), (65.0, None), (907.0, warm), (0.0, None)];
    assert_eq!(used, expected);
    // Three streams, per second: 3 / 30 heartbeats of 1 unit, 3 / 2,700 starts of 4 units, and as many stops of 4 units.
    assert_near(plan.user_write_units_per_second, 0.1 + 3.0 / 2700.0 * 8.0);
}

#[test]
fn rate_limits_bound_the_write_units_of_a_user() {
    let terms = Terms { starts_per_minute: 10, heartbeats_per_minute: 12, ..TERMS };
    let plan = plan_of(&demand(), terms);
    // 12 heartbeats of 1 unit and 10 starts of 4 units in 60 s.
    assert_near(plan.user_bound_write_units_per_second.unwrap(), 52.0 / 60.0);
    assert!(report::text(&plan).contains("Rate limit of one user: 0.87 write units/s"), "{}", report::text(&plan));
    assert_eq!(plan_of(&demand(), TERMS).user_bound_write_units_per_second, None);
}

#[test]
fn instances_follow_from_the_measured_rate() {
    // 34,444 requests/s / (5,000 × 50 %) = 13.8
    let plan = plan_of(&demand(), TERMS);
    assert_eq!(plan.instances, Some(14));
    // 14 × (2 × 0.03238 + 4 × 0.00356) × 730
    assert_near(plan.month.fargate.unwrap(), 807.38);
    assert_eq!(plan_of(&Demand { streams: 10, ..demand() }, TERMS).instances, Some(2));

    let unknown = Plan::new(&demand(), TERMS, &prices("[instance]\nheartbeats_per_second = 0").unwrap());
    assert_eq!((unknown.instances, unknown.month.fargate), (None, None));
    assert!(report::text(&unknown).contains("not known"));
}

#[test]
fn heartbeats_beyond_the_idle_timeout_open_a_connection_each() {
    // 1,000,000 open connections / 3,000 = 333.3 LCU, which cost 730 × (0.0225 + 333.3 × 0.008).
    assert_near(plan_of(&demand(), TERMS).month.load_balancer, 1_963.09);
    // (16,666.7 + 370.4) new connections per second / 25 = 681.5 LCU
    let minute = plan_of(&demand(), Terms { heartbeat_s: 60, lease_s: 180, ..TERMS });
    assert_near(minute.month.load_balancer, 3_996.29);
}

#[test]
fn response_traffic_is_billed_per_gigabyte() {
    // 34,444.4 × 3,600 s × 500 bytes = 57.742 GB per hour, × 730 × 0.09
    assert_near(plan_of(&demand(), TERMS).month.traffic, 3_793.63);
}

#[test]
fn ghosts_last_up_to_one_lease() {
    let times = LeaseTimes::new(30, 90);
    assert_eq!((times.longest_ghost_s, times.average_ghost_s, times.outage_survived_s), (90, 75.0, 60));
}

#[test]
fn choices_contain_the_plan_and_are_compared_with_it() {
    let plan = plan_of(&demand(), Terms { heartbeat_s: 25, lease_s: 75, ..TERMS });
    let heartbeats: Vec<u64> = plan.choices.iter().map(|choice| choice.heartbeat_s).collect();
    assert_eq!(heartbeats, [10, 15, 20, 25, 30, 45, 60, 90, 120]);
    for choice in &plan.choices {
        assert_near(choice.total_month + choice.saves_month, plan.month.total);
        assert_eq!(
            choice.leases.iter().map(|lease| lease.lease_s / choice.heartbeat_s).collect::<Vec<_>>(),
            [2, 3, 5]
        );
    }
    assert_eq!(plan.choices[3].saves_month, 0.0);
}

#[test]
fn a_price_file_overrides_the_built_in_prices() {
    let euros = prices("currency = \"EUR\"\n[dynamodb]\nmillion_write_units = 1").unwrap();
    assert_eq!((euros.currency.as_str(), euros.dynamodb.million_write_units), ("EUR", 1.0));
    assert_eq!(euros.dynamodb.million_read_units, Prices::load(None).unwrap().dynamodb.million_read_units);
}

#[test]
fn invalid_price_files_are_rejected_with_the_key() {
    for (text, message) in [
        ("[dynamodb]\nmillion_write_units = -1", "prices: dynamodb.million_write_units = -1: must be 0 or more"),
        ("[instance]\ntarget_percent = 0", "prices: instance.target_percent = 0: must be above 0"),
        ("[instance]\ntarget_percent = 101", "prices: instance.target_percent = 101: must be 0 to 100"),
        ("[dynamodb]\nstorage = 1", "unknown field `storage`"),
        ("[dynamodb]\nstorage_gb_month = \"x\"", "prices: dynamodb.storage_gb_month = \"x\""),
        ("[dynamodb", "cannot read the prices"),
    ] {
        let error = prices(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn numbers_have_at_most_two_decimal_places() {
    let plan = plan_of(&Demand { streams: 1_234_567, denied_percent: 7, ..demand() }, TERMS);
    let (text, json) = (report::text(&plan), report::json(&plan));
    for word in text.split_whitespace().chain(json.split([' ', ',', '\n'])) {
        let number = word.trim_matches(',').split_once('.').filter(|(whole, _)| whole.parse::<f64>().is_ok());
        assert!(number.is_none_or(|(_, decimals)| decimals.len() <= 2), "{word}");
    }
    assert!(text.contains("1,234,567 concurrent streams"), "{text}");
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
}
