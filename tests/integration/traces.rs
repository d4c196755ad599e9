//! Traces of the real binary, decoded as an OTLP collector receives them: names, kinds, attributes, statuses and the resource.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::documents::{read, section};
use crate::otlp_collector::{Collector, attributes, hex};
use crate::service::{Service, command, dynamodb_command, is_event, temp_dir, unused_url};
use crate::startup::{CannedResponse, NO_TABLE, fake_dynamodb};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const STREAMS: &str = "/v1/users/somebody/streams";
const START: &str = "POST /v1/users/{userName}/streams";
const COUNT: &str = "GET /v1/users/{userName}/streams/count";

/// Starts the command with its traces sent to the collector.
async fn traced(command: &mut Command, collector: &Collector) -> Service {
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).env("STREAM_MANAGER__LOG__FORMAT", "json");
    Service::start(command).await
}

/// Sends a request in the caller's trace, and returns the status of the response.
async fn call(service: &Service, method: &str, path: &str) -> u16 {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = reqwest::Client::new().request(method, service.url(path)).bearer_auth("a-token");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let response = request.header("tracestate", "vendor=somebody").send().await.unwrap();
    response.status().as_u16()
}

/// A service on the embedded store, stopped after three starts and one denied start in the caller's trace. Returns its log.
async fn three_starts_and_a_denial(folder: &Path, collector: &Collector) -> (Service, Vec<String>) {
    let mut service = traced(&mut command(folder), collector).await;
    for status in [201, 201, 201, 409] {
        assert_eq!(call(&service, "POST", STREAMS).await, status);
    }
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.remaining_log().await;
    (service, log)
}

fn status(span: &Span) -> StatusCode {
    span.status.clone().unwrap_or_default().code()
}

/// The attributes without the request id, which must be present.
fn without_request_id(span: &Span) -> BTreeMap<String, Value> {
    let mut attributes = attributes(&span.attributes);
    let id = attributes.remove("request_id").unwrap();
    assert!(uuid::Uuid::parse_str(id.as_str().unwrap()).is_ok(), "{id}");
    attributes
}

fn object(value: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn requests_are_server_spans_in_the_callers_trace() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let (service, _) = three_starts_and_a_denial(folder.path(), &collector).await;
    let spans = collector.spans_named(START);
    assert_eq!(spans.len(), 4);
    for (span, status_code) in spans.iter().zip([201, 201, 201, 409]) {
        assert_eq!((span.kind(), status(span)), (SpanKind::Server, StatusCode::Unset));
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, CALLER));
        let expected = json!({
            "http.request.method": "POST",
            "http.response.status_code": status_code,
            "http.route": "/v1/users/{userName}/streams",
            "network.protocol.version": "1.1",
            "route": "start",
            "server.address": "127.0.0.1",
            "server.port": service.address.port(),
            "url.scheme": "http",
        });
        assert_eq!(without_request_id(span), object(expected));
    }
    for body in collector.bodies() {
        let text = String::from_utf8_lossy(&body);
        assert!(!text.contains("somebody") && !text.contains("a-token"), "{text}");
    }
}

#[tokio::test]
async fn store_requests_are_client_spans_and_denials_no_errors() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    three_starts_and_a_denial(folder.path(), &collector).await;
    let (starts, transactions) = (collector.spans_named(START), collector.spans_named("DynamoDB.TransactWriteItems"));
    assert_eq!(transactions.len(), 4);
    for (number, (start, transaction)) in starts.iter().zip(&transactions).enumerate() {
        assert_eq!((transaction.kind(), status(transaction)), (SpanKind::Client, StatusCode::Unset));
        assert_eq!((&transaction.trace_id, &transaction.parent_span_id), (&start.trace_id, &start.span_id));
        let mut expected = object(json!({
            "aws.dynamodb.table_names": ["user-streams"],
            "db.collection.name": "user-streams",
            "db.operation.name": "TransactWriteItems",
            "db.system.name": "aws.dynamodb",
            "rpc.method": "TransactWriteItems",
            "rpc.service": "DynamoDB",
            "rpc.system": "aws-api",
        }));
        if number == 3 {
            expected.insert("db.response.status_code".to_owned(), json!("TransactionCanceledException"));
        }
        assert_eq!(attributes(&transaction.attributes), expected, "start {number}");
    }
    let query = collector.span("DynamoDB.Query");
    assert_eq!((query.kind(), status(&query)), (SpanKind::Client, StatusCode::Unset));
    assert_eq!(query.parent_span_id, starts[3].span_id, "only the denied start reads");
    assert_eq!(collector.spans().len(), 9, "the startup has no spans");
}

#[tokio::test]
async fn ended_leases_are_no_errors_of_the_store() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let mut service = traced(&mut command(folder.path()), &collector).await;
    let heartbeat = format!("{STREAMS}/{}/heartbeat", crate::test_app::UNKNOWN_ID);
    assert_eq!(call(&service, "POST", &heartbeat).await, 404);
    assert_eq!(service.terminate().await.code(), Some(0));
    let update = collector.span("DynamoDB.UpdateItem");
    assert_eq!(status(&update), StatusCode::Unset);
    let attributes = attributes(&update.attributes);
    assert_eq!(attributes["db.response.status_code"], "ConditionalCheckFailedException");
    assert_eq!(attributes.get("error.type"), None);
}

/// A table that is unavailable at startup, and missing for requests.
fn missing_table(operation: &str) -> CannedResponse {
    if operation == "Query" { NO_TABLE } else { ("503 Service Unavailable", "{}") }
}

#[tokio::test]
async fn store_errors_mark_the_spans_and_the_docs_list_all_attributes() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let endpoint = fake_dynamodb(missing_table).await;
    let mut service = traced(&mut dynamodb_command(folder.path(), &endpoint), &collector).await;
    assert_eq!(call(&service, "GET", &format!("{STREAMS}/count")).await, 503);
    service.terminate().await;

    let count = collector.span(COUNT);
    assert_eq!((count.kind(), status(&count)), (SpanKind::Server, StatusCode::Error));
    let request = without_request_id(&count);
    assert_eq!((&request["error.type"], &request["http.response.status_code"]), (&json!("503"), &json!(503)));

    let query = collector.span("DynamoDB.Query");
    assert_eq!((query.kind(), status(&query)), (SpanKind::Client, StatusCode::Error));
    let store = attributes(&query.attributes);
    let code = json!("ResourceNotFoundException");
    assert_eq!((&store["error.type"], &store["db.response.status_code"]), (&code, &code));
    let port = endpoint.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    assert_eq!((&store["server.address"], &store["server.port"]), (&json!("127.0.0.1"), &json!(port)));
    assert_eq!(store["aws.request_id"], "fake-request");

    let names = |attributes: BTreeMap<String, Value>| attributes.into_keys().collect::<BTreeSet<_>>();
    assert_eq!(documented("server"), names(attributes(&count.attributes)));
    assert_eq!(documented("client"), names(store));
}

/// The attributes that docs/MONITORING.md lists for the spans of this kind.
fn documented(kind: &str) -> BTreeSet<String> {
    let text = read("docs/MONITORING.md");
    let row = section(&text, "Traces").lines().find(|line| line.contains(&format!("| {kind} |"))).unwrap();
    row.split('|').nth(3).unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn an_unreachable_store_is_a_connection_error() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let mut command = dynamodb_command(folder.path(), &unused_url());
    // Log only the lines of the commands. `Service::start` waits for one of them, the event `listening`.
    command.env("STREAM_MANAGER__LOG__FILTER", "off,stream_manager::commands=info");
    let mut service = traced(&mut command, &collector).await;
    assert_eq!(call(&service, "GET", &format!("{STREAMS}/count")).await, 503);
    service.terminate().await;
    let query = collector.span("DynamoDB.Query");
    assert_eq!(status(&query), StatusCode::Error);
    assert_eq!(attributes(&query.attributes)["error.type"], "connection_error");
    assert_eq!(status(&collector.span(COUNT)), StatusCode::Error, "even if nothing is logged");
}

#[tokio::test]
async fn health_checks_and_scrapes_have_no_spans() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let mut service = traced(&mut command(folder.path()), &collector).await;
    let listening: Value = serde_json::from_str(service.first_lines.last().unwrap()).unwrap();
    for path in ["/health/live", "/health/ready", "/health"] {
        assert_eq!(call(&service, "GET", path).await, 200);
    }
    assert_eq!(reqwest::get(listening["metrics_url"].as_str().unwrap()).await.unwrap().status(), 200);
    assert_eq!(call(&service, "GET", "/openapi.json").await, 200);
    service.terminate().await;
    let names: Vec<String> = collector.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["GET /openapi.json"]);
}

#[tokio::test]
async fn span_names_contain_only_known_methods_and_routes() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let mut service = traced(&mut command(folder.path()), &collector).await;
    for (method, path, status) in
        [("PATCH", STREAMS, 405), ("INVENT", STREAMS, 405), ("GET", "/v1/somebody", 404), ("INVENT", "/x", 404)]
    {
        assert_eq!(call(&service, method, path).await, status);
    }
    service.terminate().await;
    for (name, method, route) in [
        ("PATCH /v1/users/{userName}/streams", "PATCH", Some("/v1/users/{userName}/streams")),
        ("HTTP /v1/users/{userName}/streams", "_OTHER", Some("/v1/users/{userName}/streams")),
        ("GET", "GET", None),
        ("HTTP", "_OTHER", None),
    ] {
        let attributes = attributes(&collector.span(name).attributes);
        assert_eq!(attributes["http.request.method"], method);
        assert_eq!(attributes.get("http.route").and_then(Value::as_str), route, "{name}");
    }
}

#[tokio::test]
async fn the_resource_names_service_version_and_instance() {
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let (folder, collector) = (temp_dir(), Collector::start().await);
        three_starts_and_a_denial(folder.path(), &collector).await;
        let resource = collector.resource();
        assert_eq!(resource["service.name"], "stream-manager");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        let id = resource["service.instance.id"].as_str().unwrap().to_owned();
        assert!(uuid::Uuid::parse_str(&id).is_ok_and(|id| id.get_version_num() == 4), "{id}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 2, "one id per process");
}

#[tokio::test]
async fn variables_override_the_resource() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let given = "service.name=streams,service.instance.id=pod-1,service.version=7,deployment.environment.name=test";
    let mut command = command(folder.path());
    let mut service = traced(command.env("OTEL_RESOURCE_ATTRIBUTES", given), &collector).await;
    assert_eq!(call(&service, "POST", STREAMS).await, 201);
    service.terminate().await;
    let resource = collector.resource();
    for attribute in given.split(',') {
        let (name, value) = attribute.split_once('=').unwrap();
        assert_eq!(resource[name], value, "{name}");
    }
}

#[tokio::test]
async fn log_lines_of_a_traced_request_have_its_ids() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let (service, log) = three_starts_and_a_denial(folder.path(), &collector).await;
    let denied = log.iter().find(|line| is_event(line, "start_denied")).unwrap();
    let denied: Value = serde_json::from_str(denied).unwrap();
    let span = &collector.spans_named(START)[3];
    let ids = [&denied["trace_id"], &denied["span_id"], &denied["trace_flags"]];
    assert_eq!(ids, [&json!(TRACE), &json!(hex(&span.span_id)), &json!("01")]);
    assert_eq!(denied["span"]["request_id"], attributes(&span.attributes)["request_id"]);
    let fields: Vec<&String> = denied["span"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["name", "request_id", "route"], "the log has no attributes of the trace");
    let others = service.first_lines.iter().chain(log.iter().filter(|line| !is_event(line, "start_denied")));
    for line in others {
        assert!(!line.contains("trace_id"), "{line}");
    }
}
