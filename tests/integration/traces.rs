//! Traces of the real binary, as a collector on loopback sees them; and what a collector that is away does not do.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{Service, command, folder, refusal, send};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Takes what is sent to it, whatever the path.
struct Collector {
    endpoint: String,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(BufReader::new(stream), Arc::clone(&kept)));
            }
        });
        Self { endpoint, received }
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.received.lock().expect("a lock").clone()
    }

    fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        self.bodies().iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).expect("protobuf")).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The only span of the caller's trace with this name.
    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let mut found = spans.iter().filter(|span| span.name == name && hex(&span.trace_id) == TRACE);
        let span = found.next().unwrap_or_else(|| panic!("no {name} among {spans:#?}"));
        assert!(found.next().is_none(), "{spans:#?}");
        span.clone()
    }
}

async fn take(mut stream: BufReader<TcpStream>, received: Arc<Mutex<Vec<Vec<u8>>>>) -> Option<()> {
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        received.lock().expect("a lock").push(body);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// The service with a request of a user named "somebody" in the caller's trace.
async fn traced(folder: &Path, variables: &[(&str, &str)]) -> Service {
    let mut command = command(folder);
    command.env("STREAM_MANAGER__LOG__FORMAT", "json").envs(variables.iter().copied());
    let service = Service::start(&mut command).await;
    let request = reqwest::Client::new().post(format!("http://{}/v1/users/somebody/streams", service.address));
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).bearer_auth("a-token");
    let request = request.header("tracestate", "vendor=somebody");
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    service
}

/// Whether the process has a thread that exports spans.
fn exports(service: &Service) -> bool {
    let tasks = format!("/proc/{}/task", service.child.id().expect("it runs"));
    let tasks = std::fs::read_dir(tasks).expect("threads").flatten();
    let mut names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.starts_with("OpenTelemetry"))
}

#[tokio::test]
async fn a_request_and_its_store_request_are_spans_of_the_callers_trace() {
    let (folder, collector) = (folder(), Collector::start().await);
    let mut service = traced(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)]).await;
    assert!(exports(&service));
    for _ in 0..3 {
        service.call("POST", "/v1/users/somebody/streams").await;
    }
    assert_eq!(service.terminate().await.code(), Some(0));

    let start = collector.span("start");
    assert_eq!((start.kind(), hex(&start.parent_span_id).as_str()), (SpanKind::Server, CALLER));
    let has = |key| attribute(&start.attributes, key);
    assert_eq!(has("http.request.method").as_deref(), Some("POST"));
    assert_eq!(has("http.route").as_deref(), Some("/v1/users/{userName}/streams"));
    assert_eq!(has("http.response.status_code").as_deref(), Some("201"));
    assert!(has("request_id").is_some(), "to be found in the log");

    let store = collector.span("DynamoDB.TransactWriteItems");
    assert_eq!((store.kind(), &store.parent_span_id), (SpanKind::Client, &start.span_id));

    let resource = collector.exports()[0].resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("stream-manager"));
    for body in collector.bodies() {
        let text = String::from_utf8_lossy(&body);
        assert!(!text.contains("somebody") && !text.contains("a-token"), "{text}");
    }

    let log = service.rest_of_the_log().await;
    let denied = log.iter().find(|line| line.contains("denied")).expect("a denial");
    let denied: serde_json::Value = serde_json::from_str(denied).expect("JSON");
    let fields: Vec<&String> = denied["span"].as_object().expect("a span").keys().collect();
    assert_eq!(fields, ["name", "request_id", "route"], "what only a collector wants is in no line");
}

#[tokio::test]
async fn a_failure_of_the_service_is_an_error_and_a_clients_mistake_is_none() {
    let (folder, collector) = (folder(), Collector::start().await);
    let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (address, away) = (free(), free());
    let mut command = command(folder.path());
    command
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/v1/traces", collector.endpoint))
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=streams,deployment.environment.name=test")
        .env("STREAM_MANAGER__SERVER__BIND", address.to_string())
        .env("STREAM_MANAGER__STORE__KIND", "dynamodb")
        .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", format!("http://{away}"))
        .env("STREAM_MANAGER__LOG__FILTER", "off")
        .envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    let mut child = command.spawn().expect("the binary");
    let serving = async {
        while reqwest::get(format!("http://{address}/nowhere")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Its log is off, so there is nothing to read but the port.
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it serves");
    let failing = reqwest::get(format!("http://{address}/v1/users/ann/streams/count")).await.expect("an answer");
    assert_eq!(failing.status(), 503);
    send("-TERM", &child).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("an end").expect("an end");
    assert_eq!(ended.code(), Some(0));

    let spans = collector.spans();
    let status = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
        let status = attribute(&span.attributes, "http.response.status_code").expect("a status");
        (status, span.status.clone().unwrap_or_default().code())
    };
    assert_eq!(status("count"), ("503".to_owned(), StatusCode::Error), "also when nothing is logged");
    assert_eq!(status("other"), ("404".to_owned(), StatusCode::Unset));
    let resource = collector.exports()[0].resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("streams"));
}

#[tokio::test]
async fn without_the_variables_there_is_no_exporter() {
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "true")];
    for variables in [&[][..], &off] {
        let folder = folder();
        assert!(!exports(&traced(folder.path(), variables).await), "{variables:?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_is_one_line_of_the_log() {
    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let endpoint = format!("http://{free}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let mut service = traced(folder.path(), &variables).await;
    for _ in 0..20 {
        assert_eq!(service.call("GET", "/v1/users/somebody/streams").await.0, 200);
    }
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.rest_of_the_log().await;
    let about = log.iter().filter(|line| line.contains("trace_export_failed")).count();
    assert_eq!(about, 1, "{log:#?}");
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let folder = folder();
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let mut service = traced(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]).await;
    // The exporter itself would wait for ten.
    let ended = tokio::time::timeout(Duration::from_secs(6), service.terminate()).await.expect("an end");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_stops_the_start_in_one_line() {
    let folder = folder();
    let mut command = command(folder.path());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let line = refusal(&mut command).await;
    assert!(line.contains("OTEL_EXPORTER_OTLP_PROTOCOL = grpc") && line.contains("http/protobuf"), "{line}");
}
