//! The real binary as a process: its commands, its first lines, its end, and what it says when it cannot start.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

pub const BINARY: &str = env!("CARGO_BIN_EXE_stream-manager");

/// A running service; killed when the test ends.
pub struct Service {
    pub child: Child,
    pub address: SocketAddr,
    pub first_lines: Vec<String>,
    pub log: tokio::io::Lines<BufReader<ChildStderr>>,
}

pub fn command(folder: &Path) -> Command {
    command_of(BINARY, folder)
}

/// Another program in the same surroundings.
pub fn command_of(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().kill_on_drop(true).stderr(Stdio::piped()).stdout(Stdio::piped());
    command.env("STREAM_MANAGER__SERVER__BIND", "127.0.0.1:0");
    command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", "0");
    command.env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", "127.0.0.1:0");
    command
}

impl Service {
    pub async fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary");
        let mut log = BufReader::new(child.stderr.take().expect("a log")).lines();
        let mut first_lines = Vec::new();
        let mut address = None;
        while !first_lines.last().is_some_and(|line: &String| line.contains("metrics_url")) {
            let line = log.next_line().await.expect("a line").expect("more lines");
            let found = [" url=http://", "\"url\":\"http://"].iter().find_map(|start| line.split_once(start));
            if let Some((_, rest)) = found {
                address = rest.split(['"', ' ']).next().and_then(|address| address.parse().ok());
            }
            first_lines.push(line);
        }
        Self { child, address: address.expect("an address"), first_lines, log }
    }

    pub async fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = reqwest::Client::new().request(method, format!("http://{}{path}", self.address));
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    pub async fn terminate(&mut self) -> ExitStatus {
        send("-TERM", &self.child).await;
        tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await.expect("an end").expect("an end")
    }

    /// Waits until the log says it.
    pub async fn says(&mut self, text: &str) {
        while !self.log.next_line().await.expect("a line").expect("more lines").contains(text) {}
    }

    pub async fn rest_of_the_log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = self.log.next_line().await {
            lines.push(line);
        }
        lines
    }
}

pub async fn send(signal: &str, child: &Child) {
    let id = child.id().expect("it runs").to_string();
    Command::new("kill").args([signal, &id]).status().await.expect("kill");
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

pub async fn run(command: &mut Command) -> Output {
    tokio::time::timeout(Duration::from_secs(20), command.output()).await.expect("an end").expect("the binary")
}

/// The one line that a failing start leaves.
pub async fn refusal(command: &mut Command) -> String {
    let output = run(command).await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(errors.len(), 1, "one line: {log}");
    errors[0].to_owned()
}

#[tokio::test]
async fn the_first_lines_say_where_swagger_ui_is_and_which_file_holds_the_state() {
    let folder = folder();
    let service = Service::start(&mut command(folder.path())).await;
    let said = service.first_lines.join("\n");
    assert!(said.contains(&format!(" demo_url=http://{}/demo ", service.address)), "{said}");
    assert!(said.contains(&format!(" swagger_url=http://{}/swagger ", service.address)), "{said}");
    let file = folder.path().join("data/stream-manager.db");
    assert!(said.contains(&file.canonicalize().expect("a file").display().to_string()), "{said}");
    assert_eq!(service.call("GET", "/health").await.0, 200);
}

#[tokio::test]
async fn the_state_outlives_the_process() {
    let folder = folder();
    let mut service = Service::start(&mut command(folder.path())).await;
    let (_, started) = service.call("POST", "/v1/users/ann/streams").await;
    assert_eq!(service.terminate().await.code(), Some(0));
    let service = Service::start(&mut command(folder.path())).await;
    let id = started["streamId"].as_str().expect("an id");
    let (status, beat) = service.call("POST", &format!("/v1/users/ann/streams/{id}/heartbeat")).await;
    assert_eq!((status, &beat["startedAt"]), (200, &started["startedAt"]));
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let folder = folder();
    let mut service = Service::start(&mut command(folder.path())).await;
    let mut slow = tokio::net::TcpStream::connect(service.address).await.expect("a connection");
    let head = "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.expect("a write");
    let mut reader = BufReader::new(slow);
    let mut line = String::new();
    reader.read_line(&mut line).await.expect("the server is reading the body");
    assert!(line.starts_with("HTTP/1.1 100 "), "{line}");

    send("-TERM", &service.child).await;
    while !service.log.next_line().await.expect("a line").expect("a line").contains("stopping") {}
    while tokio::net::TcpStream::connect(service.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    reader.get_mut().write_all(b"{}").await.expect("a write");
    let mut answer = String::new();
    while reader.read_line(&mut answer).await.expect("an answer") > 0 && !answer.contains("201 Created") {}
    assert!(answer.contains("HTTP/1.1 201 Created"), "{answer}");
    let status = tokio::time::timeout(Duration::from_secs(10), service.child.wait()).await.expect("an end");
    assert_eq!(status.expect("an end").code(), Some(0));
    assert!(service.rest_of_the_log().await.join("\n").contains("stopped"));
}

#[tokio::test]
async fn after_sigterm_the_file_alone_holds_the_state() {
    let folder = folder();
    let mut service = Service::start(&mut command(folder.path())).await;
    let (_, started) = service.call("POST", "/v1/users/ann/streams").await;
    assert_eq!(service.terminate().await.code(), Some(0));
    let elsewhere = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(elsewhere.path().join("data")).expect("a folder");
    let file = "data/stream-manager.db";
    std::fs::copy(folder.path().join(file), elsewhere.path().join(file)).expect("a copy");
    let service = Service::start(&mut command(elsewhere.path())).await;
    let (_, listed) = service.call("GET", "/v1/users/ann/streams").await;
    assert_eq!(listed["streams"][0]["streamId"], started["streamId"]);
}

#[tokio::test]
async fn sigterm_during_the_start_ends_it_in_order() {
    let folder = folder();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = command(folder.path());
    command
        .env("STREAM_MANAGER__STORE__KIND", "dynamodb")
        .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", format!("http://{}", silent.local_addr().expect("an address")))
        .envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    let mut child = command.spawn().expect("the binary");
    let mut log = BufReader::new(child.stderr.take().expect("a log")).lines();
    while !log.next_line().await.expect("a line").expect("a line").contains("store_opened") {}
    send("-TERM", &child).await;
    let status = tokio::time::timeout(Duration::from_secs(3), child.wait()).await.expect("an end").expect("an end");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_start_with_the_setting_to_change() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (variable, key) in [
        ("STREAM_MANAGER__SERVER__BIND", "server.bind"),
        ("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", "server.management_bind"),
    ] {
        let line = refusal(command(folder.path()).env(variable, &address)).await;
        assert!(line.contains(&address) && line.contains(key), "{line}");
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused_in_one_line() {
    let folder = folder();
    let _first = Service::start(&mut command(folder.path())).await;
    let line = refusal(&mut command(folder.path())).await;
    assert!(line.contains("data/stream-manager.db is in use by another process"), "{line}");
}

#[tokio::test]
async fn settings_that_are_wrong_stop_the_start_in_one_line() {
    let folder = folder();
    let line = refusal(command(folder.path()).env("STREAM_MANAGER__LIMITS__STREAMS_PER_USER", "99")).await;
    assert_eq!(line, "error: limits.streams_per_user = 99: must be 1 to 50");
    let line = refusal(command(folder.path()).args(["--config", "nowhere.toml"])).await;
    assert!(line.contains("nowhere.toml"), "{line}");
    std::fs::write(folder.path().join("broken.toml"), "[server\nbind = 7").expect("a file");
    let line = refusal(command(folder.path()).args(["serve", "--config", "broken.toml"])).await;
    assert!(line.contains("TOML parse error at line 1"), "{line}");
    let output = run(command(folder.path()).arg("--bogus")).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn dynamodb_without_region_or_credentials_says_what_to_set() {
    let folder = folder();
    let dynamodb = || {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__STORE__KIND", "dynamodb").env("AWS_EC2_METADATA_DISABLED", "true");
        command
    };
    let line = refusal(&mut dynamodb()).await;
    assert!(line.contains("no AWS region: set dynamodb.region"), "{line}");
    let line = refusal(dynamodb().env("AWS_REGION", "eu-central-1")).await;
    assert!(line.contains("no AWS credentials"), "{line}");
}

#[tokio::test]
async fn a_store_that_is_away_at_the_start_leaves_the_service_alive_and_not_ready() {
    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let mut command = command(folder.path());
    command
        .env("STREAM_MANAGER__STORE__KIND", "dynamodb")
        .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", format!("http://{free}"))
        .envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    let service = Service::start(&mut command).await;
    assert_eq!(service.call("GET", "/health/live").await.0, 200);
    assert_eq!(service.call("GET", "/health/ready").await.0, 503);
    let (status, problem) = service.call("POST", "/v1/users/ann/streams").await;
    assert_eq!((status, &problem["code"]), (503, &json!("store-unavailable")));
}

#[tokio::test]
async fn the_commands_print_settings_and_document_and_ask_for_health() {
    let folder = folder();
    let output =
        run(command(folder.path()).arg("check-config").env("STREAM_MANAGER__LEASE__DURATION_S", "120")).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("[lease]\nduration_s = 120\n"), "{printed}");

    let output = run(command(folder.path()).arg("openapi")).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["info"]["title"], "stream-manager");

    let line = refusal(command(folder.path()).arg("migrate")).await;
    assert!(line.contains("store.kind"), "{line}");

    let service = Service::start(&mut command(folder.path())).await;
    let bind = service.address.to_string();
    let check = || {
        let mut check = command(folder.path());
        check.arg("healthcheck").env("STREAM_MANAGER__SERVER__BIND", &bind);
        check
    };
    assert!(run(&mut check()).await.status.success());
    drop(service);
    let line = refusal(&mut check()).await;
    assert!(line.contains("/health/live"), "{line}");
}

#[tokio::test]
async fn a_denial_is_logged_with_its_request_id_and_without_the_user() {
    for format in ["pretty", "json"] {
        let folder = folder();
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__LOG__FORMAT", format).env("STREAM_MANAGER__STORE__KIND", "memory");
        let mut service = Service::start(&mut command).await;
        let mut problem = Value::Null;
        for _ in 0..4 {
            problem = service.call("POST", "/v1/users/somebody%22%0/streams".replace("%0", "").as_str()).await.1;
        }
        service.terminate().await;
        let log = service.rest_of_the_log().await;
        let request_id =
            problem["instance"].as_str().and_then(|urn| urn.rsplit(':').next()).expect("an id").to_owned();
        let denials: Vec<&String> = log.iter().filter(|line| line.contains("denied")).collect();
        assert_eq!(denials.len(), 1, "{log:?}");
        assert!(denials[0].contains(&request_id), "{denials:?}");
        assert!(!log.iter().any(|line| line.contains("somebody")), "no names at this level: {log:?}");
        if format == "json" {
            assert!(serde_json::from_str::<Value>(denials[0]).is_ok(), "{denials:?}");
        }
    }
}

#[tokio::test]
async fn a_failure_is_logged_with_its_request_id_though_nothing_else_of_its_request_would_be() {
    let away = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{away}"));
    for (format, traces) in [("pretty", None), ("json", None), ("json", Some(collector))] {
        let folder = folder();
        let mut command = command(folder.path());
        command
            .env("STREAM_MANAGER__LOG__FORMAT", format)
            .env("STREAM_MANAGER__STORE__KIND", "dynamodb")
            .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", format!("http://{away}"))
            .envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")])
            .envs(traces.clone());
        let mut service = Service::start(&mut command).await;
        let (status, problem) = service.call("GET", "/v1/users/ann/streams/count").await;
        assert_eq!(status, 503, "{problem}");
        let request_id = problem["instance"].as_str().and_then(|urn| urn.rsplit(':').next()).expect("an id");
        service.terminate().await;
        let log = service.rest_of_the_log().await;
        let failures: Vec<&String> = log.iter().filter(|line| line.contains("request failed")).collect();
        assert_eq!(failures.len(), 1, "{format}, {traces:?}: {log:?}");
        assert!(failures[0].contains(request_id) && failures[0].contains("count"), "{traces:?}: {failures:?}");
    }
}

#[tokio::test]
async fn on_one_core_it_serves_and_ends_as_on_many() {
    for kind in ["memory", "embedded"] {
        let folder = folder();
        let mut command = command_of("taskset", folder.path());
        command.args(["-c", "0", BINARY]).env("STREAM_MANAGER__STORE__KIND", kind);
        let mut service = Service::start(&mut command).await;
        for status in [201, 201, 201, 409] {
            assert_eq!(service.call("POST", "/v1/users/ann/streams").await.0, status, "{kind}");
        }
        assert_eq!(service.terminate().await.code(), Some(0), "{kind}");
    }
}

#[tokio::test]
async fn as_many_threads_answer_as_are_set() {
    // With one, it is the one that waits for the signal, too.
    for (worker_threads, threads) in [("1", 1), ("2", 3), ("5", 6)] {
        let folder = folder();
        let mut command = command(folder.path());
        command.envs([
            ("STREAM_MANAGER__STORE__KIND", "memory"),
            ("STREAM_MANAGER__SERVER__WORKER_THREADS", worker_threads),
        ]);
        let service = Service::start(&mut command).await;
        assert_eq!(service.call("POST", "/v1/users/ann/streams").await.0, 201, "{worker_threads}");
        let tasks = format!("/proc/{}/task", service.child.id().expect("a process"));
        assert_eq!(std::fs::read_dir(tasks).expect("Linux").count(), threads, "{worker_threads}");
    }
}
