//! The dashboard, the alerts and the docs use exactly the metrics that the service exports. `scripts/check-alerts` checks the queries
//! and the rules with promtool.

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
use stream_manager::telemetry::metrics::TextFormat;

use crate::documents::{read, section};
use crate::rules::policy;
use crate::support::{Fixture, TABLE, start, unique_user};
use crate::test_app::TestApp;

const PREFIX: &str = "stream_manager_";
/// The prefix of the process metrics, whose names are the same for every program.
const PROCESS: &str = "process_";
/// Labels that queries may use in addition to the exported ones. Prometheus adds `instance` and `job`. Histograms have `le`.
const PROMETHEUS_LABELS: [&str; 3] = ["instance", "job", "le"];

/// Maps the name of each series to its labels and their values.
type Exported = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns the exported series with their labels. First records samples, because some series are absent until their first sample.
async fn exported() -> Exported {
    let server = TestApp { policy: policy(), ..TestApp::default() }.serve().await;
    server.start_stream("ann", json!({})).await;
    let fixture = Fixture::embedded().await;
    let interceptor = MetricsInterceptor::new(server.metrics.store.clone(), Arc::new(SystemClock));
    let store = DynamoStore::new(client::with_metrics(fixture.client(), interceptor), TABLE);
    store.start(&unique_user(), &start(1), StartHint::Optimistic, fixture.now()).await.unwrap();
    let now = Timestamp::from_epoch_ms(0);
    server.metrics.store.clock_skew.observe(ClockSample { sent: now, received: now, date: now }, Duration::ZERO);
    server.metrics.live_streams.set(Some(1));

    let text = server.metrics.encode(TextFormat::Prometheus).unwrap();
    let mut exported = Exported::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = exported.entry(name.to_owned()).or_default();
        for (label, value) in matchers(rest) {
            labels.entry(label).or_default().insert(value);
        }
    }
    exported
}

/// Parses the labels and values of matchers such as `{a="b",c=~"d"}` at the start of a text.
fn matchers(text: &str) -> Vec<(String, String)> {
    let Some(inside) = text.strip_prefix('{').and_then(|text| text.split_once('}')) else { return Vec::new() };
    let pairs = inside.0.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once('"').unwrap_or_else(|| panic!("{pair}"));
        (label.trim_end_matches(['=', '~', '!']).to_owned(), value.trim_end_matches('"').to_owned())
    });
    pairs.collect()
}

/// Each series in a query, with its matchers.
fn queried(query: &str) -> Vec<(String, Vec<(String, String)>)> {
    let found = [PREFIX, PROCESS].iter().flat_map(|prefix| query.match_indices(prefix)).map(|(at, _)| {
        let name = &query[at..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        (name[..end].to_owned(), matchers(&name[end..]))
    });
    found.collect()
}

/// The labels that a query groups by.
fn grouping_labels(query: &str) -> impl Iterator<Item = &str> {
    let lists = query.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/stream-manager.json")).unwrap()
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().unwrap()
}

#[tokio::test]
async fn queries_use_existing_series_and_the_dashboard_shows_every_series() {
    let exported = exported().await;
    let dashboard = dashboard();
    let targets = panels(&dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut queries: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    let dashboard_queries = queries.join("\n");
    // In these files, only queries and descriptions contain the metric prefix.
    queries.push(read("deploy/prometheus/alerts.yml"));
    queries.push(read("deploy/prometheus/alerts_test.yml"));
    for query in &queries {
        for (name, matchers) in queried(query) {
            let labels = exported.get(&name).unwrap_or_else(|| panic!("{name} is not exported: {query}"));
            for (label, value) in matchers {
                assert!(
                    labels.contains_key(&label) || PROMETHEUS_LABELS.contains(&label.as_str()),
                    "{name}: {label}"
                );
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
        for label in grouping_labels(query) {
            let known = queried(query).iter().any(|(name, _)| exported[name].contains_key(label));
            assert!(known || PROMETHEUS_LABELS.contains(&label), "no series has {label}: {query}");
        }
    }
    for name in exported.keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")) {
        let histogram = name.trim_end_matches("_bucket");
        assert!(dashboard_queries.contains(histogram), "{name} is on no panel");
    }
}

#[tokio::test]
async fn the_docs_list_every_metric_with_its_labels() {
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, labels) in exported().await {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let labels = labels.into_keys().filter(|label| label != "le");
        metrics.entry(name.to_owned()).or_default().extend(labels);
    }
    let text = read("docs/MONITORING.md");
    let section = section(&text, "Metrics");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.split('|').skip(1);
        let name = names(cells.next().unwrap()).pop_first().unwrap();
        (name, names(cells.next().unwrap()))
    });
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), metrics);
    for labels in metrics.values() {
        for label in labels {
            assert!(
                ["outcome", "reason", "route", "rule", "status", "operation", "version", "revision"]
                    .contains(&label.as_str()),
                "{label}"
            );
        }
    }
}

#[test]
fn every_alert_has_a_test_and_a_runbook_section() {
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let text = read("docs/RUNBOOKS.md");
    let sections: BTreeSet<&str> =
        section(&text, "Alerts").lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let names: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert.lines().next()).collect();
    assert_eq!(names, sections);
    for (alert, name) in alerts.iter().map(|alert| (alert, alert.lines().next().unwrap())) {
        assert!(alert.contains("summary: ") && alert.contains("severity: "), "{name}");
        assert!(alert.contains(&format!("runbook: \"docs/RUNBOOKS.md#{}\"", name.to_lowercase())), "{name}");
        let fires = format!("alertname: {name}\n        exp_alerts:");
        assert!(
            tests.contains(&fires) && tests.contains(&format!("alertname: {name}}}")),
            "{name} needs a test in which it fires, and one in which it does not"
        );
    }
}

#[test]
fn every_dashboard_panel_uses_the_selected_datasource() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&json!("datasource"), &json!("datasource")));
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "a duplicate id: {panel}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for query in targets.iter().chain([panel]) {
            assert_eq!(query["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{query}");
        }
    }
}
