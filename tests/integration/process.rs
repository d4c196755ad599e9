//! The real binary: its commands, startup, shutdown, and the log of failures.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::{
    BINARY, Log, Service, command, command_of, dynamodb_command, is_event, request_id, run, send_signal,
    startup_error, stdout, temp_dir, unused_url,
};
use crate::support::eventually;
use crate::test_app::STREAMS;

#[tokio::test]
async fn startup_log_shows_the_urls_and_the_database_file() {
    let folder = temp_dir();
    let service = Service::start(&mut command(folder.path())).await;
    let log = service.first_lines.join("\n");
    for path in ["/demo", "/swagger"] {
        assert!(log.contains(&service.url(path)), "{path}: {log}");
    }
    let file = folder.path().join("data/stream-manager.db");
    assert!(log.contains(&file.canonicalize().unwrap().display().to_string()), "{log}");
    assert_eq!(service.call("GET", "/health").await.0, 200);
}

#[tokio::test]
async fn a_service_that_holds_all_streams_exports_their_number() {
    for store in ["memory", "embedded"] {
        let folder = temp_dir();
        let service = Service::start(command(folder.path()).env("STREAM_MANAGER__STORE__KIND", store)).await;
        assert_eq!(service.call("POST", STREAMS).await.0, 201);
        let metrics = reqwest::get(service.metrics_url()).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("\nstream_manager_live_streams 1\n"), "{store}: {metrics}");
    }
}

#[tokio::test]
async fn leases_survive_a_restart() {
    let folder = temp_dir();
    let mut service = Service::start(&mut command(folder.path())).await;
    let (_, started) = service.call("POST", STREAMS).await;
    assert_eq!(service.terminate().await.code(), Some(0));
    let service = Service::start(&mut command(folder.path())).await;
    let id = started["streamId"].as_str().unwrap();
    let (status, renewed) = service.call("POST", &format!("{STREAMS}/{id}/heartbeat")).await;
    assert_eq!((status, &renewed["startedAt"]), (200, &started["startedAt"]));
}

#[tokio::test]
async fn sigterm_finishes_in_flight_requests_and_exits_with_0() {
    let folder = temp_dir();
    let mut service = Service::start(&mut command(folder.path())).await;
    let mut slow = TcpStream::connect(service.address).await.unwrap();
    let head = format!("POST {STREAMS} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(slow);
    let mut line = String::new();
    timeout(Duration::from_secs(10), reader.read_line(&mut line)).await.unwrap().unwrap();
    assert!(line.starts_with("HTTP/1.1 100 "), "the server reads the body: {line}");

    service.send_signal("-TERM").await;
    service.wait_for_event("stopping").await;
    let address = service.address;
    eventually(async || TcpStream::connect(address).await.is_err()).await;
    reader.get_mut().write_all(b"{}").await.unwrap();
    let mut response = String::new();
    let read =
        async { while reader.read_line(&mut response).await.unwrap() > 0 && !response.contains("201 Created") {} };
    timeout(Duration::from_secs(10), read).await.unwrap();
    assert!(response.contains("HTTP/1.1 201 Created"), "{response}");
    assert_eq!(service.wait().await.code(), Some(0));
    assert!(service.remaining_log().await.iter().any(|line| is_event(line, "stopped")));
}

#[tokio::test]
async fn after_sigterm_the_database_file_holds_the_whole_state() {
    let folder = temp_dir();
    let mut service = Service::start(&mut command(folder.path())).await;
    let (_, started) = service.call("POST", STREAMS).await;
    assert_eq!(service.terminate().await.code(), Some(0));
    let other_folder = temp_dir();
    std::fs::create_dir(other_folder.path().join("data")).unwrap();
    let file = "data/stream-manager.db";
    std::fs::copy(folder.path().join(file), other_folder.path().join(file)).unwrap();
    let service = Service::start(&mut command(other_folder.path())).await;
    let (_, listed) = service.call("GET", STREAMS).await;
    assert_eq!(listed["streams"][0]["streamId"], started["streamId"]);
}

#[tokio::test]
async fn sigterm_during_startup_exits_with_0() {
    let folder = temp_dir();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut child = dynamodb_command(folder.path(), &endpoint).spawn().unwrap();
    Log::of(&mut child).wait_for_event("store_opened").await;
    send_signal("-TERM", &child).await;
    let status = timeout(Duration::from_secs(3), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_fails_startup_and_names_the_setting() {
    let folder = temp_dir();
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = in_use.local_addr().unwrap().to_string();
    for (variable, key) in [
        ("STREAM_MANAGER__SERVER__BIND", "server.bind"),
        ("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", "server.management_bind"),
    ] {
        let line = startup_error(command(folder.path()).env(variable, &address)).await;
        assert!(line.contains(&address) && line.contains(key), "{line}");
    }
}

#[tokio::test]
async fn a_second_process_on_one_database_file_fails_startup() {
    let folder = temp_dir();
    let _first = Service::start(&mut command(folder.path())).await;
    let line = startup_error(&mut command(folder.path())).await;
    assert!(line.contains("data/stream-manager.db is in use by another process"), "{line}");
}

#[tokio::test]
async fn invalid_settings_fail_startup_with_one_line() {
    let folder = temp_dir();
    let line = startup_error(command(folder.path()).env("STREAM_MANAGER__LIMITS__STREAMS_PER_USER", "99")).await;
    assert_eq!(line, "error: limits.streams_per_user = 99: must be 1 to 50");
    let line = startup_error(command(folder.path()).args(["--config", "nowhere.toml"])).await;
    assert!(line.contains("nowhere.toml"), "{line}");
    std::fs::write(folder.path().join("broken.toml"), "[server\nbind = 7").unwrap();
    let line = startup_error(command(folder.path()).args(["serve", "--config", "broken.toml"])).await;
    assert!(line.contains("TOML parse error at line 1"), "{line}");
    let output = run(command(folder.path()).arg("--bogus")).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn dynamodb_without_region_or_credentials_names_what_to_set() {
    let folder = temp_dir();
    let dynamodb = || {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__STORE__KIND", "dynamodb").env("AWS_EC2_METADATA_DISABLED", "true");
        command
    };
    let line = startup_error(&mut dynamodb()).await;
    assert!(line.contains("no AWS region: set dynamodb.region"), "{line}");
    let line = startup_error(dynamodb().env("AWS_REGION", "eu-central-1")).await;
    assert!(line.contains("no AWS credentials"), "{line}");
}

#[tokio::test]
async fn an_unreachable_store_leaves_the_service_live_but_not_ready() {
    let folder = temp_dir();
    let service = Service::start(&mut dynamodb_command(folder.path(), &unused_url())).await;
    assert_eq!(service.call("GET", "/health/live").await.0, 200);
    assert_eq!(service.call("GET", "/health/ready").await.0, 503);
    let (status, problem) = service.call("POST", STREAMS).await;
    assert_eq!((status, &problem["code"]), (503, &json!("store-unavailable")));
}

#[tokio::test]
async fn check_config_prints_the_settings() {
    let folder = temp_dir();
    let output =
        run(command(folder.path()).arg("check-config").env("STREAM_MANAGER__LEASE__DURATION_S", "120")).await;
    assert!(output.status.success());
    assert!(stdout(&output).contains("[lease]\nduration_s = 120\n"), "{}", stdout(&output));
}

#[tokio::test]
async fn openapi_prints_the_document() {
    let folder = temp_dir();
    let output = run(command(folder.path()).arg("openapi")).await;
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["info"]["title"], "stream-manager");
}

#[tokio::test]
async fn migrate_requires_the_dynamodb_store() {
    let folder = temp_dir();
    let line = startup_error(command(folder.path()).arg("migrate")).await;
    assert!(line.contains("store.kind"), "{line}");
}

#[tokio::test]
async fn healthcheck_succeeds_only_while_the_service_is_live() {
    let folder = temp_dir();
    let service = Service::start(&mut command(folder.path())).await;
    let bind = service.address.to_string();
    let check = || {
        let mut check = command(folder.path());
        check.arg("healthcheck").env("STREAM_MANAGER__SERVER__BIND", &bind);
        check
    };
    assert!(run(&mut check()).await.status.success());
    drop(service);
    let line = startup_error(&mut check()).await;
    assert!(line.contains("/health/live"), "{line}");
}

#[tokio::test]
async fn denials_log_the_request_id_but_not_the_user() {
    for format in ["pretty", "json"] {
        let folder = temp_dir();
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__LOG__FORMAT", format).env("STREAM_MANAGER__STORE__KIND", "memory");
        let mut service = Service::start(&mut command).await;
        let mut problem = Value::Null;
        for _ in 0..4 {
            problem = service.call("POST", "/v1/users/somebody%22/streams").await.1;
        }
        service.terminate().await;
        let log = service.remaining_log().await;
        let denials: Vec<&String> = log.iter().filter(|line| is_event(line, "start_denied")).collect();
        assert_eq!(denials.len(), 1, "{log:?}");
        assert!(denials[0].contains(request_id(&problem)), "{denials:?}");
        assert!(!log.iter().any(|line| line.contains("somebody")), "{log:?}");
        if format == "json" {
            assert!(serde_json::from_str::<Value>(denials[0]).is_ok(), "{denials:?}");
        }
    }
}

#[tokio::test]
async fn failures_always_log_the_request_id() {
    let unreachable = unused_url();
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", unreachable.as_str());
    for (format, traces) in [("pretty", None), ("json", None), ("json", Some(collector))] {
        let folder = temp_dir();
        let mut command = dynamodb_command(folder.path(), &unreachable);
        command.env("STREAM_MANAGER__LOG__FORMAT", format).envs(traces);
        let mut service = Service::start(&mut command).await;
        let (status, problem) = service.call("GET", "/v1/users/ann/streams/count").await;
        assert_eq!(status, 503, "{problem}");
        service.terminate().await;
        let log = service.remaining_log().await;
        let failures: Vec<&String> = log.iter().filter(|line| is_event(line, "request_failed")).collect();
        assert_eq!(failures.len(), 1, "{format}, {traces:?}: {log:?}");
        let failure = failures[0];
        assert!(failure.contains(request_id(&problem)) && failure.contains("count"), "{traces:?}: {failure}");
    }
}

#[tokio::test]
async fn the_service_runs_on_one_cpu_core() {
    for kind in ["memory", "embedded"] {
        let folder = temp_dir();
        let mut command = command_of("taskset", folder.path());
        command.args(["-c", "0", BINARY]).env("STREAM_MANAGER__STORE__KIND", kind);
        let mut service = Service::start(&mut command).await;
        for status in [201, 201, 201, 409] {
            assert_eq!(service.call("POST", STREAMS).await.0, status, "{kind}");
        }
        assert_eq!(service.terminate().await.code(), Some(0), "{kind}");
    }
}

#[tokio::test]
async fn worker_threads_sets_the_number_of_threads() {
    // With one worker thread, the main thread is the worker. Otherwise, the main thread is an additional thread.
    for (worker_threads, threads) in [("1", 1), ("2", 3), ("5", 6)] {
        let folder = temp_dir();
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__STORE__KIND", "memory");
        command.env("STREAM_MANAGER__SERVER__WORKER_THREADS", worker_threads);
        let service = Service::start(&mut command).await;
        assert_eq!(service.call("POST", STREAMS).await.0, 201, "{worker_threads}");
        let tasks = format!("/proc/{}/task", service.child.id().unwrap());
        assert_eq!(std::fs::read_dir(tasks).unwrap().count(), threads, "{worker_threads}");
    }
}
