//! Dashboard, alerts and documentation name what the service exports, and all of it. That the queries and rules are right is
//! checked by scripts/alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stream_manager::clock::SystemClock;
use stream_manager::domain::lease::Timestamp;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client;
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::{LeaseStore, StartHint};
use stream_manager::telemetry::clock_skew::ClockSample;

use crate::documents::read;
use crate::server::TestServer;
use crate::support::{Backing, Fixture, TABLE, someone, start};

const PREFIX: &str = "stream_manager_";
/// Labels that Prometheus gives.
const PROMETHEUS: [&str; 3] = ["instance", "job", "le"];

/// Every series of a service to which everything has happened once, by name, with its labels and their values.
type Exported = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

async fn exported() -> Exported {
    let server = TestServer::start().await;
    server.started("ann", json!({})).await;
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(_, client) = &fixture.backing else { panic!("embedded") };
    let observer = MetricsInterceptor::new(server.metrics.store.clone(), Arc::new(SystemClock));
    let store = DynamoStore::new(client::with_metrics(client, observer), TABLE);
    store.start(&someone(), &start(1), StartHint::Optimistic, fixture.now()).await.expect("a start");
    let now = Timestamp::from_epoch_ms(0);
    server.metrics.store.clock_skew.observe(ClockSample { sent: now, received: now, date: now }, Duration::ZERO);

    let text = server.metrics.encode().expect("text");
    let mut exported = Exported::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a sample"));
        let labels = exported.entry(name.to_owned()).or_default();
        for (label, value) in matchers(rest) {
            labels.entry(label).or_default().insert(value);
        }
    }
    exported
}

/// The labels and values of `{a="b",c=~"d"}` at the beginning of a text.
fn matchers(text: &str) -> Vec<(String, String)> {
    let Some(inside) = text.strip_prefix('{').and_then(|text| text.split_once('}')) else { return Vec::new() };
    let pairs = inside.0.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once('"').unwrap_or_else(|| panic!("{pair}"));
        (label.trim_end_matches(['=', '~', '!']).to_owned(), value.trim_end_matches('"').to_owned())
    });
    pairs.collect()
}

/// Each series that a query asks for, with its matchers.
fn asked(query: &str) -> Vec<(String, Vec<(String, String)>)> {
    let found = query.match_indices(PREFIX).map(|(at, _)| {
        let name = &query[at..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        (name[..end].to_owned(), matchers(&name[end..]))
    });
    found.collect()
}

/// The labels by which a query sums.
fn grouped(query: &str) -> impl Iterator<Item = &str> {
    let lists = query.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/stream-manager.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().expect("panels")
}

#[tokio::test]
async fn every_query_asks_for_series_and_labels_that_exist_and_no_series_is_forgotten() {
    let exported = exported().await;
    let dashboard = dashboard();
    let targets = panels(&dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut queries: Vec<String> =
        targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect();
    let drawn = queries.join("\n");
    // Expressions and descriptions alike: nothing else in the rules has the prefix.
    queries.push(read("deploy/prometheus/alerts.yml"));
    queries.push(read("deploy/prometheus/alerts_test.yml"));
    for query in &queries {
        for (name, matchers) in asked(query) {
            let labels = exported.get(&name).unwrap_or_else(|| panic!("{name} is not exported: {query}"));
            for (label, value) in matchers {
                assert!(labels.contains_key(&label) || PROMETHEUS.contains(&label.as_str()), "{name}: {label}");
                match label.as_str() {
                    "le" => {
                        assert!(labels["le"].contains(&value) || query.contains("rule_files"), "{name}: le={value}");
                    }
                    "outcome" | "reason" => {
                        let unknown = value.split('|').find(|value| !labels[&label].contains(*value));
                        assert_eq!(unknown, None, "{name}: {label}={value}");
                    }
                    _ => {}
                }
            }
        }
        for label in grouped(query) {
            let known = asked(query).iter().any(|(name, _)| exported[name].contains_key(label));
            assert!(known || PROMETHEUS.contains(&label), "no series has {label}: {query}");
        }
    }
    for name in exported.keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")) {
        let histogram = name.trim_end_matches("_bucket");
        assert!(drawn.contains(histogram), "{name} is on no panel");
    }
}

#[tokio::test]
async fn the_table_of_metrics_names_each_with_its_labels() {
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, labels) in exported().await {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        let name = name.strip_prefix(PREFIX).expect("our prefix");
        let labels = labels.into_keys().filter(|label| label != "le");
        metrics.entry(name.to_owned()).or_default().extend(labels);
    }
    let text = read("docs/MONITORING.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("a section");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.split('|').skip(1);
        let name = names(cells.next().expect("a name")).pop_first().expect("a name");
        (name, names(cells.next().expect("labels")))
    });
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), metrics);
    for labels in metrics.values() {
        for label in labels {
            assert!(["outcome", "reason", "route", "status", "operation"].contains(&label.as_str()), "{label}");
        }
    }
}

#[test]
fn every_alert_has_its_section_and_its_test_and_every_section_its_alert() {
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let text = read("docs/RUNBOOKS.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Alerts\n")).expect("a section");
    let sections: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let names: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert.lines().next()).collect();
    assert_eq!(names, sections);
    for (alert, name) in alerts.iter().map(|alert| (alert, alert.lines().next().expect("a name"))) {
        assert!(alert.contains("summary: ") && alert.contains("severity: "), "{name}");
        assert!(alert.contains(&format!("runbook: \"docs/RUNBOOKS.md#{}\"", name.to_lowercase())), "{name}");
        let fires = format!("alertname: {name}\n        exp_alerts:");
        assert!(
            tests.contains(&fires) && tests.contains(&format!("alertname: {name}}}")),
            "{name}: fires, and is quiet"
        );
    }
}

#[test]
fn the_dashboard_asks_the_prometheus_that_is_chosen() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&json!("datasource"), &json!("datasource")));
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "twice: {panel}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().expect("queries");
        assert!(!targets.is_empty(), "{panel}");
        for asks in targets.iter().chain([panel]) {
            assert_eq!(asks["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{asks}");
        }
    }
}
