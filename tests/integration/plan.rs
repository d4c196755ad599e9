//! `stream-manager plan`: its units are those that are measured, its document says what it prints, and what settings refuse
//! it refuses too.

use std::process::Output;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::lease::{Fingerprint, StreamLimit};
use stream_manager::domain::names::Label;
use stream_manager::planning::Plan;
use stream_manager::planning::demand::{Demand, Terms};
use stream_manager::planning::prices::Prices;
use stream_manager::store::dynamodb::codec::{Item, encode_lease};
use stream_manager::store::{LeaseStore, StartHint, StoppedBy};

use crate::documents::read;
use crate::process::{command, folder, refusal, run};
use crate::requests::{costs, tapped};
use crate::support::{TERMS, on_device, someone, start, stream, user};

/// Runs the command line `stream-manager plan …`.
async fn output(line: &str) -> String {
    let folder = folder();
    let Output { status, stdout, stderr } = run(command(folder.path()).args(line.split_whitespace().skip(1))).await;
    assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("UTF-8")
}

fn demand(lease_bytes: u64, device_percent: u64) -> Demand {
    Demand {
        streams: 1000,
        average_percent: 100,
        session_minutes: 45,
        counts_per_start: 1,
        device_percent,
        denied_percent: 10,
        lease_bytes,
        users: None,
        ramp_minutes: 15,
        utilization_percent: 70,
    }
}

/// What the plan takes a verb for, as the requests that cost so much.
fn planned(demand: &Demand, verb: &str) -> (f64, f64) {
    let terms =
        Terms { heartbeat_s: 30, lease_s: 90, streams_per_user: 3, starts_per_minute: 0, heartbeats_per_minute: 0 };
    let plan = Plan::new(demand, terms, &Prices::load(None).expect("prices"));
    let found = plan.requests.iter().find(|requests| requests.operation == verb).expect("a verb");
    (found.write_units_each, found.read_units_each)
}

/// The same of what was measured, as (write units, read units).
fn measured(costs: &[String]) -> (f64, f64) {
    let mut units = (0.0, 0.0);
    for cost in costs {
        let (operation, each) = cost.split_once(' ').expect("units");
        let each: f64 = each.parse().expect("a number");
        match operation {
            "Query" | "GetItem" => units.1 += each,
            _ => units.0 += each,
        }
    }
    units
}

#[tokio::test]
async fn the_plan_goes_by_the_units_that_are_measured() {
    let (tap, store, fixture) = tapped().await;
    let (ann, now) = (someone(), fixture.now());
    let (plain, device) = (demand(400, 0), demand(400, 100));
    store.start(&ann, &start(1), StartHint::Optimistic, now).await.expect("a start");
    assert_eq!(measured(&costs(&tap)), planned(&plain, "start"));
    store.start(&ann, &on_device(2, "tv"), StartHint::Optimistic, now).await.expect("a start");
    assert_eq!(measured(&costs(&tap)), planned(&device, "start"));
    store.heartbeat(&ann, stream(1), TERMS, now.plus_s(1)).await.expect("a heartbeat");
    assert_eq!(measured(&costs(&tap)), planned(&plain, "heartbeat"));
    store.start(&ann, &start(3), StartHint::Optimistic, now).await.expect("a start");
    costs(&tap);
    store.streams(&ann, now).await.expect("a count");
    assert_eq!(measured(&costs(&tap)), planned(&plain, "count or list"));
    store.start(&ann, &on_device(4, "phone"), StartHint::Optimistic, now).await.expect("a denial");
    assert_eq!(measured(&costs(&tap)), planned(&device, "start, denied"));
    store.start(&ann, &start(4), StartHint::Optimistic, now).await.expect("a denial");
    // DynamoDB bills a refused transaction as if it were not, and does not tell.
    let (_, looks) = measured(&costs(&tap));
    assert_eq!((4.0, looks), planned(&plain, "start, denied"));
    store.stop(&ann, stream(1), StoppedBy::Player, TERMS, now).await.expect("a stop");
    assert_eq!(measured(&costs(&tap)), planned(&plain, "stop"));
}

/// By AWS' rules: a text is its bytes, a number half a byte a digit and one more, a name counts too.
fn bytes(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        other => panic!("not in a new lease: {other:?}"),
    };
    item.iter().map(|(name, content)| name.len() + value(content)).sum()
}

#[tokio::test]
async fn the_largest_lease_is_larger_than_a_write_unit_and_a_usual_one_is_not() {
    let (tap, store, fixture) = tapped().await;
    let now = fixture.now();
    let largest = StartRequest {
        fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(1))),
        device_id: Label::parse(&"d".repeat(128)).ok(),
        device_name: Label::parse(&"n".repeat(256)).ok(),
        content_id: Label::parse(&"c".repeat(256)).ok(),
        at_limit: AtLimit::EvictOldest,
        token_limit: StreamLimit::new(3),
        ..start(1)
    };
    let ann = user(&"u".repeat(256));
    let size = bytes(&encode_lease(&ann, &largest.lease(now))) as u64;
    assert_eq!(size, 1070, "docs/CAPACITY.md says so");
    store.start(&ann, &largest, StartHint::Optimistic, now).await.expect("a start");
    assert_eq!(measured(&costs(&tap)), planned(&demand(size, 100), "start"));
    store.heartbeat(&ann, stream(1), TERMS, now.plus_s(1)).await.expect("a heartbeat");
    assert_eq!(measured(&costs(&tap)), planned(&demand(size, 100), "heartbeat"));

    let usual = StartRequest {
        device_id: Label::parse("3f2b8c1e-5d4a-4b7e-9f60-1a2b3c4d5e6f").ok(),
        device_name: Label::parse("Living-room TV").ok(),
        content_id: Label::parse("urn:example:movie:6f1d2c3b-season-2-episode-7").ok(),
        ..start(1)
    };
    let size = bytes(&encode_lease(&user("0b9f6c1e-5d4a-4b7e-9f60-1a2b3c4d5e6f"), &usual.lease(now)));
    assert!((250..=400).contains(&size), "the default of --lease-bytes is enough: {size}");
}

/// Every block of docs/CAPACITY.md that begins with a command line, and what stands below it.
fn blocks(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```console\n$ ").skip(1).filter_map(|block| block.split("```").next());
    blocks
        .filter_map(|block| block.split_once('\n'))
        .map(|(line, output)| (line.to_owned(), output.to_owned()))
        .collect()
}

#[tokio::test]
async fn the_document_on_capacity_shows_what_the_command_prints() {
    let blocks = blocks(&read("docs/CAPACITY.md"));
    assert!(blocks.len() >= 2, "it shows the command");
    for (line, shown) in blocks {
        assert!(line.starts_with("stream-manager plan "), "{line}");
        let printed = output(&line).await;
        assert!(
            printed == shown,
            "docs/CAPACITY.md, {line}: `just charts` writes it anew; it prints now:\n{printed}"
        );
    }
}

#[tokio::test]
async fn the_chart_is_drawn_from_what_the_command_prints() {
    let (line, _) = blocks(&read("docs/CAPACITY.md")).swap_remove(0);
    let plan: Value = serde_json::from_str(&output(&format!("{line} --json")).await).expect("JSON");
    let points: Vec<String> = plan["choices"].as_array().expect("choices").iter().map(point).collect();
    let chart = read("docs/images/heartbeats.svg");
    assert!(chart.contains(&points.join(" ")), "`just charts` draws it anew, from: {}", points.join(" "));
}

/// As `scripts/charts` writes it into the picture.
fn point(choice: &Value) -> String {
    let ghost = &choice["leases"][1]["longest_ghost_s"];
    format!("{}:{}:{}:{ghost}", choice["heartbeat_s"], choice["table_month"], choice["total_month"])
}

#[tokio::test]
async fn heartbeat_and_lease_are_those_in_force_or_those_asked_for_within_the_same_bounds() {
    let plan: Value = serde_json::from_str(&output("stream-manager plan --streams 1 --json").await).expect("JSON");
    assert_eq!((&plan["terms"]["heartbeat_s"], &plan["terms"]["lease_s"]), (&30.into(), &90.into()));
    let line = "stream-manager plan --streams 1 --heartbeat 60 --json";
    let plan: Value = serde_json::from_str(&output(line).await).expect("JSON");
    assert_eq!((&plan["terms"]["heartbeat_s"], &plan["terms"]["lease_s"]), (&60.into(), &180.into()));

    let folder = folder();
    let asked = |arguments: &[&str]| {
        let mut command = command(folder.path());
        command.args(["plan", "--streams", "1"]).args(arguments);
        command
    };
    let mut set = asked(&["--json"]);
    set.env("stream_manager__lease__heartbeat_interval_s", "20");
    let printed = String::from_utf8(run(&mut set).await.stdout).expect("UTF-8");
    assert!(printed.contains("\"heartbeat_s\": 20"), "{printed}");
    let mut over = asked(&["--json", "--heartbeat", "10"]);
    over.env("stream_manager__lease__heartbeat_interval_s", "20");
    let printed = String::from_utf8(run(&mut over).await.stdout).expect("UTF-8");
    assert!(printed.contains("\"lease_s\": 30"), "{printed}");

    let line = refusal(&mut asked(&["--heartbeat", "60", "--lease", "100"])).await;
    assert_eq!(line, "error: lease.heartbeat_interval_s = 60: must be at most 50 (half of lease.duration_s)");
    let line = refusal(&mut asked(&["--heartbeat", "0"])).await;
    assert!(line.contains("lease.duration_s = 0: must be 2 to 86400"), "{line}");
    let line = refusal(&mut asked(&["--prices", "nowhere.toml"])).await;
    assert!(line.contains("cannot read the prices") && line.contains("nowhere.toml"), "{line}");
    let output = run(asked(&["--streams", "0"]).arg("--json")).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn prices_of_another_region_are_laid_over_the_built_in_ones() {
    let folder = folder();
    let file = folder.path().join("prices.toml");
    std::fs::write(&file, "region = \"eu-central-1\"\n[dynamodb]\nmillion_write_units = 0.7\n").expect("a file");
    let mut command = command(folder.path());
    command.args(["plan", "--streams", "1000000", "--prices", "prices.toml"]);
    let printed = String::from_utf8(run(&mut command).await.stdout).expect("UTF-8");
    assert!(printed.contains("USD in eu-central-1"), "{printed}");
    // 36,296.3 × 2.628 × 0.7 + 243.33
    assert!(
        printed.lines().any(|line| line.starts_with("table, on demand") && line.ends_with("67,014")),
        "{printed}"
    );
}
