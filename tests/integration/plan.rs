//! `stream-manager plan`. The planned capacity units equal the units that the embedded engine reports. docs/CAPACITY.md
//! shows the printed output. The bounds of the settings apply to the options.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::lease::{Fingerprint, StreamLimit, Timestamp};
use stream_manager::domain::names::{DeviceId, DisplayText};
use stream_manager::planning::Plan;
use stream_manager::planning::demand::{Demand, Terms};
use stream_manager::planning::prices::Prices;
use stream_manager::store::dynamodb::codec::{Item, encode_lease};
use stream_manager::store::{LeaseStore, StartHint};

use crate::documents::read;
use crate::requests::{recorded_store, take_costs};
use crate::service::{command, run, startup_error, stdout, temp_dir};
use crate::support::{on_device, renewal, start, stream, unique_user, user};

/// The output of the command line `stream-manager plan …`.
async fn output(line: &str) -> String {
    let folder = temp_dir();
    let output = run(command(folder.path()).args(line.split_whitespace().skip(1))).await;
    assert!(output.status.success(), "{line}: {output:?}");
    stdout(&output)
}

fn demand(lease_bytes: u64, device_percent: u64) -> Demand {
    Demand {
        streams: 1000,
        average_percent: 100,
        session_minutes: 45,
        counts_per_start: 1,
        device_percent,
        rule_percent: None,
        denied_percent: 10,
        lease_bytes,
        users: None,
        ramp_minutes: 15,
        utilization_percent: 70,
    }
}

/// The write and read units that the plan assumes for an operation.
fn planned(demand: &Demand, operation: &str) -> (f64, f64) {
    let terms = Terms {
        heartbeat_s: 30,
        lease_s: 90,
        streams_per_user: 3,
        rules: 0,
        starts_per_minute: 0,
        heartbeats_per_minute: 0,
    };
    let plan = Plan::new(demand, terms, &Prices::load(None).unwrap());
    let found = plan.requests.iter().find(|requests| requests.operation == operation).unwrap();
    (found.write_units_each, found.read_units_each)
}

/// The write and read units of recorded requests.
fn recorded(costs: &[String]) -> (f64, f64) {
    let mut units = (0.0, 0.0);
    for cost in costs {
        let (operation, each) = cost.split_once(' ').unwrap();
        let each: f64 = each.parse().unwrap();
        match operation {
            "Query" | "GetItem" => units.1 += each,
            _ => units.0 += each,
        }
    }
    units
}

#[tokio::test]
async fn planned_units_equal_recorded_units() {
    let (recorder, store, fixture) = recorded_store().await;
    let (ann, now) = (unique_user(), fixture.now());
    let (plain, device) = (demand(400, 0), demand(400, 100));
    store.start(&ann, &start(1), StartHint::Optimistic, now).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&plain, "start"));
    store.start(&ann, &on_device(2, "tv"), StartHint::Optimistic, now).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&device, "start"));
    store.heartbeat(&ann, &renewal(1), now.plus_s(1)).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&plain, "heartbeat"));
    store.start(&ann, &start(3), StartHint::Optimistic, now).await.unwrap();
    take_costs(&recorder);
    store.streams(&ann, now).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&plain, "count or list"));
    store.start(&ann, &on_device(4, "phone"), StartHint::Optimistic, now).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&device, "start, denied"));
    store.start(&ann, &start(4), StartHint::Optimistic, now).await.unwrap();
    // DynamoDB bills a refused transaction like any other transaction, but does not report its units.
    let (_, read_units) = recorded(&take_costs(&recorder));
    assert_eq!((4.0, read_units), planned(&plain, "start, denied"));
    store.stop(&ann, stream(1)).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&plain, "stop"));
}

/// The item size as DynamoDB calculates it: the bytes of names and texts, and for a number one byte per two digits plus one byte.
/// A map has 3 bytes, and one byte for each member.
fn item_bytes(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::M(map) => 3 + map.len() + item_bytes(map),
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        other => panic!("not in a new lease: {other:?}"),
    };
    item.iter().map(|(name, content)| name.len() + value(content)).sum()
}

#[tokio::test]
async fn the_largest_lease_costs_more_write_units() {
    let (recorder, store, fixture) = recorded_store().await;
    let now = fixture.now();
    let labels = |prefix: &str| {
        let label = |n| {
            (LabelName::parse(&format!("{prefix}{n:0>31}")).unwrap(), LabelValue::parse(&"v".repeat(64)).unwrap())
        };
        Labels::new((0..8).map(label).collect()).unwrap()
    };
    let largest = StartRequest {
        fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(1))),
        device_id: DeviceId::parse(&"d".repeat(128)).ok(),
        device_name: DisplayText::clean(&"n".repeat(256)),
        content_id: DisplayText::clean(&"c".repeat(256)),
        labels: labels("a").overridden_by(&labels("b")),
        at_limit: AtLimit::EvictOldest,
        token_limit: StreamLimit::new(3),
        ..start(1)
    };
    let ann = user(&"u".repeat(256));
    let size = item_bytes(&encode_lease(&ann, &largest.lease(now))) as u64;
    assert_eq!(size, 2631, "as in docs/CAPACITY.md");
    store.start(&ann, &largest, StartHint::Optimistic, now).await.unwrap();
    // The query returns no lease, but a plan assumes a user at the limit.
    assert_eq!(recorded(&take_costs(&recorder)).0, planned(&demand(size, 100), "start").0);
    store.heartbeat(&ann, &renewal(1), now.plus_s(1)).await.unwrap();
    assert_eq!(recorded(&take_costs(&recorder)), planned(&demand(size, 100), "heartbeat"));
}

#[test]
fn the_default_lease_size_covers_a_typical_lease() {
    let now = Timestamp::from_epoch_ms(1_790_000_000_000);
    let typical = StartRequest {
        device_id: DeviceId::parse("3f2b8c1e-5d4a-4b7e-9f60-1a2b3c4d5e6f").ok(),
        device_name: DisplayText::clean("Living-room TV"),
        content_id: DisplayText::clean("urn:example:movie:6f1d2c3b-season-2-episode-7"),
        ..start(1)
    };
    let size = item_bytes(&encode_lease(&user("0b9f6c1e-5d4a-4b7e-9f60-1a2b3c4d5e6f"), &typical.lease(now)));
    assert!((250..=400).contains(&size), "{size}");
}

/// The command lines in docs/CAPACITY.md, each with the output below it.
fn blocks(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```console\n$ ").skip(1).filter_map(|block| block.split("```").next());
    blocks
        .filter_map(|block| block.split_once('\n'))
        .map(|(line, output)| (line.to_owned(), output.to_owned()))
        .collect()
}

#[tokio::test]
async fn the_capacity_docs_show_the_printed_output() {
    let blocks = blocks(&read("docs/CAPACITY.md"));
    assert!(blocks.len() >= 2, "docs/CAPACITY.md must show at least two commands");
    for (line, shown) in blocks {
        assert!(line.starts_with("stream-manager plan "), "{line}");
        let printed = output(&line).await;
        assert!(
            printed == shown,
            "docs/CAPACITY.md, {line}: run `just update-capacity-docs`; the output is now:\n{printed}"
        );
    }
}

#[tokio::test]
async fn the_capacity_chart_shows_the_printed_points() {
    let (line, _) = blocks(&read("docs/CAPACITY.md")).swap_remove(0);
    let plan: Value = serde_json::from_str(&output(&format!("{line} --json")).await).unwrap();
    let points: Vec<String> = plan["choices"].as_array().unwrap().iter().map(point).collect();
    let chart = read("docs/images/heartbeats.svg");
    assert!(
        chart.contains(&points.join(" ")),
        "run `just update-capacity-docs`; the points are now: {}",
        points.join(" ")
    );
}

/// A point in the format that `scripts/update-capacity-docs` writes into the chart.
fn point(choice: &Value) -> String {
    let ghost = &choice["leases"][1]["longest_ghost_s"];
    format!("{}:{}:{}:{ghost}", choice["heartbeat_s"], choice["table_month"], choice["total_month"])
}

#[tokio::test]
async fn lease_and_heartbeat_come_from_options_before_settings() {
    let terms = async |options: &[&str], heartbeat_setting: &str| {
        let folder = temp_dir();
        let mut command = command(folder.path());
        command.args(["plan", "--streams", "1", "--json"]).args(options);
        let output = run(command.env("stream_manager__lease__heartbeat_interval_s", heartbeat_setting)).await;
        let plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let term = |name: &str| plan["terms"][name].as_u64().unwrap();
        (term("heartbeat_s"), term("lease_s"))
    };
    assert_eq!(terms(&[], "").await, (30, 90));
    assert_eq!(terms(&["--heartbeat", "60"], "").await, (60, 180));
    assert_eq!(terms(&[], "20").await, (20, 90));
    assert_eq!(terms(&["--heartbeat", "10"], "20").await, (10, 30));
}

#[tokio::test]
async fn options_out_of_bounds_are_refused() {
    let folder = temp_dir();
    let plan = |options: &[&str]| {
        let mut command = command(folder.path());
        command.args(["plan", "--streams", "1"]).args(options);
        command
    };
    let line = startup_error(&mut plan(&["--heartbeat", "60", "--lease", "100"])).await;
    assert_eq!(line, "error: lease.heartbeat_interval_s = 60: must be at most 50 (half of lease.duration_s)");
    let line = startup_error(&mut plan(&["--heartbeat", "0"])).await;
    assert!(line.contains("lease.duration_s = 0: must be 2 to 86400"), "{line}");
    let line = startup_error(&mut plan(&["--prices", "nowhere.toml"])).await;
    assert!(line.contains("cannot read the prices") && line.contains("nowhere.toml"), "{line}");
    let output = run(plan(&["--streams", "0"]).arg("--json")).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_price_file_overrides_the_built_in_prices() {
    let folder = temp_dir();
    let file = folder.path().join("prices.toml");
    std::fs::write(&file, "region = \"eu-central-1\"\n[dynamodb]\nmillion_write_units = 0.7\n").unwrap();
    let mut command = command(folder.path());
    command.args(["plan", "--streams", "1000000", "--prices", "prices.toml"]);
    let printed = stdout(&run(&mut command).await);
    assert!(printed.contains("USD in eu-central-1"), "{printed}");
    // 36,296.3 write units per second × 2.628 million seconds per month × 0.7 USD per million, plus 243.33 USD for reads.
    assert!(
        printed.lines().any(|line| line.starts_with("table, on demand") && line.ends_with("67,014")),
        "{printed}"
    );
}
