//! The variables that enable the export of traces, and unreachable and silent collectors.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::service::{Service, command, is_event, startup_error, temp_dir, unused_url};

/// A service that has handled one start of the user "somebody".
async fn traced_service(folder: &Path, variables: &[(&str, &str)]) -> Service {
    let mut command = command(folder);
    command.env("STREAM_MANAGER__LOG__FORMAT", "json").envs(variables.iter().copied());
    let service = Service::start(&mut command).await;
    assert_eq!(service.call("POST", "/v1/users/somebody/streams").await.0, 201);
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
    // This timeout is shorter than the exporter's own timeout of 10 s.
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
