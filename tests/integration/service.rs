//! The real binary as a child process: command lines, a running service, and its log.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

pub const BINARY: &str = env!("CARGO_BIN_EXE_stream-manager");

/// A running service. Dropping it kills the process.
pub struct Service {
    pub child: Child,
    pub address: SocketAddr,
    /// The log up to and including the line with the event `listening`.
    pub first_lines: Vec<String>,
    log: Lines<BufReader<ChildStderr>>,
}

impl Service {
    /// Starts the command and waits until the service listens.
    pub async fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = log_lines(&mut child);
        let mut first_lines = Vec::new();
        loop {
            let line = log.next_line().await.unwrap().unwrap();
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

    pub async fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let response = reqwest::Client::new().request(method, self.url(path)).send().await.unwrap();
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
        wait_for_event(&mut self.log, event).await;
    }

    /// Waits for the end of the process, and returns the log lines that were not read before.
    pub async fn remaining_log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = self.log.next_line().await {
            lines.push(line);
        }
        lines
    }
}

/// A command of the binary, with free ports and the working directory `folder`.
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

pub fn log_lines(child: &mut Child) -> Lines<BufReader<ChildStderr>> {
    use tokio::io::AsyncBufReadExt;
    BufReader::new(child.stderr.take().unwrap()).lines()
}

pub async fn wait_for_event(log: &mut Lines<BufReader<ChildStderr>>, event: &str) {
    while !is_event(&log.next_line().await.unwrap().unwrap(), event) {}
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
