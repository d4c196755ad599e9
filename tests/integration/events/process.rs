//! Both sinks of the real process, also when they are broken: requests and the shutdown never wait for them.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{KEY, events, kinds, text};
use crate::service::{Service, command, http_client, is_event, startup_error, temp_dir};
use crate::support::{eventually, host_now};

fn recording(folder: &Path, sink: &str) -> Command {
    let mut command = command(folder);
    command.env("STREAM_MANAGER__STORE__KIND", "memory").env("STREAM_MANAGER__SERVER__WORKER_THREADS", "2");
    command.env("STREAM_MANAGER__EVENTS__SINK", sink).env("STREAM_MANAGER__EVENTS__HASH_KEY", KEY);
    command.env("STREAM_MANAGER__EVENTS__DIRECTORY", folder.join("events"));
    command
}

async fn metric(service: &Service, series: &str) -> u64 {
    let text = http_client().get(service.metrics_url()).send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("stream_manager_{series} ")));
    value.unwrap_or_else(|| panic!("{series}: {text}")).parse().unwrap()
}

async fn start_streams(service: &Service, streams: usize) {
    for n in 0..streams {
        assert_eq!(service.call("POST", &format!("/v1/users/user-{n}/streams")).await.0, 201);
    }
}

#[tokio::test]
async fn shutdown_writes_the_queued_events_to_the_file() {
    let folder = temp_dir();
    let mut service = Service::start(&mut recording(folder.path(), "file")).await;
    start_streams(&service, 20).await;
    assert_eq!(service.terminate().await.code(), Some(0));
    let events = events(&text(&folder.path().join("events")));
    assert_eq!(kinds(&events), vec!["stream.started"; 20]);
    let sequences: Vec<&str> = events.iter().map(|event| event["sequence"].as_str().unwrap()).collect();
    assert!(sequences.is_sorted() && sequences.last().unwrap().ends_with("00020"), "{sequences:?}");
}

#[tokio::test]
async fn standard_output_contains_only_events() {
    let folder = temp_dir();
    let mut service = Service::start(&mut recording(folder.path(), "stdout")).await;
    start_streams(&service, 3).await;
    service.call("DELETE", "/v1/users/user-0").await;
    eventually(async || metric(&service, "events_written_total").await == 4).await;
    let mut stdout = service.child.stdout.take().unwrap();
    assert_eq!(service.terminate().await.code(), Some(0));
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(events(&text).len(), 4, "{text}");
    assert!(!folder.path().join("events").exists());
}

/// Starts streams on a service whose sink fails, and checks that the losses are counted and logged, and that the shutdown is fast.
async fn assert_losses_are_reported(mut service: Service) {
    start_streams(&service, 50).await;
    eventually(async || metric(&service, "events_dropped_total{reason=\"write_failed\"}").await == 50).await;
    assert_eq!(metric(&service, "events_written_total").await, 0);
    service.wait_for_event("events_dropped").await;
    assert_eq!(timeout(Duration::from_secs(2), service.terminate()).await.unwrap().code(), Some(0));
    let log = service.remaining_log().await;
    assert!(!log.iter().any(|line| is_event(line, "events_dropped")), "one line a minute: {log:?}");
}

#[tokio::test]
async fn a_full_disk_loses_events_but_fails_no_request() {
    let folder = temp_dir();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_losses_are_reported(Service::start(recording(folder.path(), "stdout").stdout(full)).await).await;
}

#[tokio::test]
async fn a_closed_pipe_loses_events_but_fails_no_request() {
    let folder = temp_dir();
    let mut service = Service::start(&mut recording(folder.path(), "stdout")).await;
    drop(service.child.stdout.take());
    assert_losses_are_reported(service).await;
}

#[tokio::test]
async fn an_unread_pipe_delays_neither_requests_nor_shutdown() {
    let folder = temp_dir();
    let mut service = Service::start(&mut recording(folder.path(), "stdout")).await;
    // More than the pipe holds.
    start_streams(&service, 300).await;
    assert!(metric(&service, "events_written_total").await < 300);
    assert_eq!(timeout(Duration::from_secs(6), service.terminate()).await.unwrap().code(), Some(0));
    let log = service.remaining_log().await;
    assert!(log.iter().any(|line| is_event(line, "events_not_flushed")), "{log:?}");
}

#[tokio::test]
async fn a_broken_line_is_ended_after_a_restart() {
    let folder = temp_dir();
    let directory = folder.path().join("events");
    std::fs::create_dir(&directory).unwrap();
    let today = DateTime::from_timestamp_millis(host_now().epoch_ms()).unwrap().format("%Y-%m-%d");
    std::fs::write(directory.join(format!("events.{today}.jsonl")), "{\"broken\":").unwrap();
    for _ in 0..2 {
        let mut service = Service::start(&mut recording(folder.path(), "file")).await;
        start_streams(&service, 1).await;
        service.terminate().await;
    }
    let text = text(&directory);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines.len()), ("{\"broken\":", 3), "{text}");
    assert_eq!(events(&lines[1..].join("\n")).len(), 2);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_prevents_the_start() {
    let folder = temp_dir();
    std::fs::write(folder.path().join("events"), "a file").unwrap();
    let error = startup_error(&mut recording(folder.path(), "file")).await;
    assert!(error.contains("events.directory = "), "{error}");
}

#[tokio::test]
async fn the_log_names_the_instance_of_the_events() {
    let folder = temp_dir();
    let mut service = Service::start(&mut recording(folder.path(), "file")).await;
    start_streams(&service, 1).await;
    service.terminate().await;
    let opened = service.first_lines.iter().find(|line| is_event(line, "events_opened")).unwrap().clone();
    let event = &events(&text(&folder.path().join("events")))[0];
    let instance = event["source"].as_str().unwrap().rsplit(':').next().unwrap();
    assert!(opened.contains(&format!("instance={instance}")), "{opened}");
}
