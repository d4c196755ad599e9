//! Traces of the real binary, which an OTLP collector on loopback receives. Also tests unreachable and silent collectors.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::service::{
    Service, command, dynamodb_command, is_event, send_signal, startup_error, temp_dir, unused_address, unused_url,
    wait,
};
use crate::support::eventually;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector that accepts every POST and keeps the bodies.
struct Collector {
    endpoint: String,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let bodies = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(BufReader::new(stream), Arc::clone(&bodies)));
            }
        });
        Self { endpoint, received }
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }

    fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        self.bodies().iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The span with this name in the caller's trace. Panics unless there is exactly one such span.
    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let mut found = spans.iter().filter(|span| span.name == name && hex(&span.trace_id) == TRACE);
        let span = found.next().unwrap_or_else(|| panic!("no {name} among {spans:#?}"));
        assert!(found.next().is_none(), "{spans:#?}");
        span.clone()
    }
}

async fn receive(mut stream: BufReader<TcpStream>, received: Arc<Mutex<Vec<Vec<u8>>>>) -> Option<()> {
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        received.lock().unwrap().push(body);
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

/// A service that has handled one start of the user "somebody" in the caller's trace.
async fn traced_service(folder: &Path, variables: &[(&str, &str)]) -> Service {
    let mut command = command(folder);
    command.env("STREAM_MANAGER__LOG__FORMAT", "json").envs(variables.iter().copied());
    let service = Service::start(&mut command).await;
    let request = reqwest::Client::new().post(service.url("/v1/users/somebody/streams"));
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).bearer_auth("a-token");
    let response = request.header("tracestate", "vendor=somebody").send().await.unwrap();
    assert_eq!(response.status(), 201);
    service
}

/// Whether the process has a thread that exports spans.
fn has_exporter(service: &Service) -> bool {
    let tasks = format!("/proc/{}/task", service.child.id().unwrap());
    let tasks = std::fs::read_dir(tasks).unwrap().flatten();
    let mut names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.starts_with("OpenTelemetry"))
}

#[tokio::test]
async fn request_and_store_request_are_spans_in_the_callers_trace() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let mut service = traced_service(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)]).await;
    assert!(has_exporter(&service));
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
    assert!(has("request_id").is_some(), "it links the span to the log");

    let store = collector.span("DynamoDB.TransactWriteItems");
    assert_eq!((store.kind(), &store.parent_span_id), (SpanKind::Client, &start.span_id));

    let resource = collector.exports()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("stream-manager"));
    for body in collector.bodies() {
        let text = String::from_utf8_lossy(&body);
        assert!(!text.contains("somebody") && !text.contains("a-token"), "{text}");
    }

    let log = service.remaining_log().await;
    let denied = log.iter().find(|line| is_event(line, "start_denied")).unwrap();
    let denied: serde_json::Value = serde_json::from_str(denied).unwrap();
    let fields: Vec<&String> = denied["span"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["name", "request_id", "route"], "no attributes of the trace");
}

#[tokio::test]
async fn server_errors_mark_the_span_but_client_errors_do_not() {
    let (folder, collector) = (temp_dir(), Collector::start().await);
    let address = unused_address();
    let mut command = dynamodb_command(folder.path(), &unused_url());
    command
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/v1/traces", collector.endpoint))
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=streams,deployment.environment.name=test")
        .env("STREAM_MANAGER__SERVER__BIND", address.to_string())
        .env("STREAM_MANAGER__LOG__FILTER", "off");
    let mut child = command.spawn().unwrap();
    // The log is off, so poll the port until the service listens.
    eventually(async || reqwest::get(format!("http://{address}/nowhere")).await.is_ok()).await;
    let failing = reqwest::get(format!("http://{address}/v1/users/ann/streams/count")).await.unwrap();
    assert_eq!(failing.status(), 503);
    send_signal("-TERM", &child).await;
    assert_eq!(wait(&mut child).await.code(), Some(0));

    let spans = collector.spans();
    let status = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
        let status = attribute(&span.attributes, "http.response.status_code").unwrap();
        (status, span.status.clone().unwrap_or_default().code())
    };
    assert_eq!(status("count"), ("503".to_owned(), StatusCode::Error), "even if nothing is logged");
    assert_eq!(status("other"), ("404".to_owned(), StatusCode::Unset));
    let resource = collector.exports()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("streams"));
}

#[tokio::test]
async fn traces_are_exported_only_if_the_environment_enables_them() {
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "true")];
    for variables in [&[][..], &off] {
        let folder = temp_dir();
        assert!(!has_exporter(&traced_service(folder.path(), variables).await), "{variables:?}");
    }
}

#[tokio::test]
async fn an_unreachable_collector_is_logged_once() {
    let folder = temp_dir();
    let endpoint = unused_url();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let mut service = traced_service(folder.path(), &variables).await;
    for _ in 0..20 {
        assert_eq!(service.call("GET", "/v1/users/somebody/streams").await.0, 200);
    }
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.remaining_log().await;
    let warnings: Vec<&String> = log.iter().filter(|line| !line.contains(r#""level":"INFO""#)).collect();
    assert_eq!(warnings.len(), 1, "{log:#?}");
    assert!(is_event(warnings[0], "trace_export_failed"), "{warnings:?}");
}

#[tokio::test]
async fn a_silent_collector_does_not_delay_shutdown() {
    let folder = temp_dir();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut service = traced_service(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]).await;
    // The limit is shorter than the exporter's own timeout of 10 s.
    let status = tokio::time::timeout(Duration::from_secs(6), service.terminate()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn an_unsupported_otlp_protocol_fails_startup() {
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let line = startup_error(&mut command).await;
    assert!(line.contains("OTEL_EXPORTER_OTLP_PROTOCOL = grpc") && line.contains("http/protobuf"), "{line}");
}
