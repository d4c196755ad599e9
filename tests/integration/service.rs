//! The real binary as a child process: command lines, a running service, and its log.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

pub const BINARY: &str = env!("CARGO_BIN_EXE_stream-manager");

/// A running service. Dropping it kills the process.
pub struct Service {
    pub child: Child,
    pub address: SocketAddr,
    /// The log up to and including the line with the event `listening`.
    pub first_lines: Vec<String>,
    log: Log,
}

impl Service {
    /// Starts the command and waits until the service listens.
    pub async fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = Log::of(&mut child);
        let mut first_lines = Vec::new();
        loop {
            let line = log
                .next_line()
                .await
                .unwrap_or_else(|| panic!("the service ended before it listened: {first_lines:?}"));
            let address = public_address(&line).filter(|_| is_event(&line, "listening"));
            first_lines.push(line);
            if let Some(address) = address {
                return Self { child, address, first_lines, log };
            }
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The URL of the metrics, from the log.
    pub fn metrics_url(&self) -> &str {
        let found = self.first_lines.iter().find_map(|line| line.split_once("metrics_url=")?.1.split(' ').next());
        found.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let response = http_client().request(method, self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    pub async fn send_signal(&self, signal: &str) {
        send_signal(signal, &self.child).await;
    }

    pub async fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child).await
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.send_signal("-TERM").await;
        self.wait().await
    }

    /// Reads the log up to the next line with this event.
    pub async fn wait_for_event(&mut self, event: &str) {
        self.log.wait_for_event(event).await;
    }

    /// Waits for the end of the process, and returns the log lines that were not read before.
    pub async fn remaining_log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.log.next_line().await {
            lines.push(line);
        }
        lines
    }
}

/// The log of a child process. A task reads it continuously, because the process would block if the pipe was full.
pub struct Log(UnboundedReceiver<String>);

impl Log {
    /// The log that the process writes to its standard error.
    pub fn of(child: &mut Child) -> Self {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, receiver) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// Reads up to the next line with this event.
    pub async fn wait_for_event(&mut self, event: &str) {
        let mut read = Vec::new();
        loop {
            let line =
                self.next_line().await.unwrap_or_else(|| panic!("the log ended without the event {event}: {read:?}"));
            if is_event(&line, event) {
                return;
            }
            read.push(line);
        }
    }

    /// The next line, or `None` after the last. Panics after 30 s without a line.
    async fn next_line(&mut self) -> Option<String> {
        timeout(Duration::from_secs(30), self.0.recv()).await.expect("a log line within 30 s")
    }
}

/// A command that runs the binary on free ports, with the working directory `folder`.
pub fn command(folder: &Path) -> Command {
    command_of(BINARY, folder)
}

/// Like `command`, for another program.
pub fn command_of(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().kill_on_drop(true).stderr(Stdio::piped()).stdout(Stdio::piped());
    command.env("STREAM_MANAGER__SERVER__BIND", "127.0.0.1:0");
    command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", "0");
    command.env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", "127.0.0.1:0");
    command
}

/// Like `command`, with the DynamoDB endpoint at this URL.
pub fn dynamodb_command(folder: &Path, endpoint: &str) -> Command {
    let mut command = command(folder);
    command.env("STREAM_MANAGER__STORE__KIND", "dynamodb").env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", endpoint);
    command.envs([("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    command
}

/// A client whose requests fail after 30 s, so that a test fails if the service never responds.
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

pub fn temp_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A loopback address on which nothing listens.
pub fn unused_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The URL of a server that does not exist.
pub fn unused_url() -> String {
    format!("http://{}", unused_address())
}

/// Runs the command to its end.
pub async fn run(command: &mut Command) -> Output {
    // Do not use `output()`, because it would replace a standard output that the caller has set.
    timeout(Duration::from_secs(20), command.spawn().unwrap().wait_with_output()).await.unwrap().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs a command that must fail with exit code 1, and returns its only log line that is not at level `INFO`.
pub async fn startup_error(command: &mut Command) -> String {
    let output = run(command).await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    errors[0].to_owned()
}

pub async fn send_signal(signal: &str, child: &Child) {
    let id = child.id().unwrap().to_string();
    Command::new("kill").args([signal, &id]).status().await.unwrap();
}

/// Waits for the end of the process. Panics after 10 s.
pub async fn wait(child: &mut Child) -> ExitStatus {
    timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap()
}

/// The request id in a problem response.
pub fn request_id(problem: &Value) -> &str {
    problem["instance"].as_str().unwrap().rsplit(':').next().unwrap()
}

/// Whether a log line, pretty or JSON, reports this event.
pub fn is_event(line: &str, event: &str) -> bool {
    line.contains(&format!("event=\"{event}\"")) || line.contains(&format!("\"event\":\"{event}\""))
}

/// The address in the field `url` of a log line.
fn public_address(line: &str) -> Option<SocketAddr> {
    let found = [" url=http://", "\"url\":\"http://"];
    let rest = found.iter().find_map(|start| line.split_once(start))?.1;
    rest.split(['"', ' ']).next()?.parse().ok()
}
