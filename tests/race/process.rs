//! The instances of the service, and what all child processes have in common. A child dies with its handle, whatever
//! happens here; nothing is ever killed by name.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

const BINARY: &str = env!("CARGO_BIN_EXE_stream-manager");
pub const LEASE_S: u64 = 2;
pub const RETENTION_S: u64 = 5;

pub struct Instance {
    pub url: String,
    /// Set before it is killed: from then on it need not answer.
    pub killed: AtomicBool,
    child: Mutex<Child>,
}

impl Instance {
    pub async fn start(number: usize, ports: [u16; 2], store_port: u16, directory: &Path) -> Self {
        let log = log_file(directory, &format!("instance-{number}.log"));
        let child = service(store_port)
            .env("STREAM_MANAGER__SERVER__BIND", format!("127.0.0.1:{}", ports[0]))
            .env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", format!("127.0.0.1:{}", ports[1]))
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the service runs");
        let url = format!("http://127.0.0.1:{}", ports[0]);
        wait_for(&format!("{url}/health/ready"), Duration::from_secs(20)).await;
        Self { url, killed: AtomicBool::new(false), child: Mutex::new(child) }
    }

    pub fn alive(&self) -> bool {
        !self.killed.load(Ordering::SeqCst)
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.child.lock().await.kill().await.expect("it ran");
    }

    pub async fn runs(&self) -> bool {
        matches!(self.child.lock().await.try_wait(), Ok(None))
    }

    /// SIGTERM. Whether it ended by itself and well.
    pub async fn stop(&self) -> bool {
        let mut child = self.child.lock().await;
        signal(&child, "TERM");
        let status = tokio::time::timeout(Duration::from_secs(25), child.wait()).await;
        status.is_ok_and(|status| status.is_ok_and(|status| status.success()))
    }
}

/// `stream-manager migrate`
pub async fn migrate(store_port: u16) {
    let output = service(store_port).arg("migrate").output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("it ends").expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "migrate failed: {out}{err}");
    print!("migrate: {out}");
}

/// The service with nothing from outside: no profile, proxy or setting of whoever runs this.
fn service(store_port: u16) -> Command {
    let mut command = Command::new(BINARY);
    command
        .env_clear()
        .env("STREAM_MANAGER__STORE__KIND", "dynamodb")
        .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", format!("http://127.0.0.1:{store_port}"))
        .env("STREAM_MANAGER__DYNAMODB__OPERATION_TIMEOUT_MS", "3000")
        .env("STREAM_MANAGER__LEASE__DURATION_S", LEASE_S.to_string())
        .env("STREAM_MANAGER__LEASE__HEARTBEAT_INTERVAL_S", "1")
        .env("STREAM_MANAGER__LEASE__RETENTION_S", RETENTION_S.to_string())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// By id, and only to a process that runs: its id cannot have become another's, since it has not been waited for.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().expect("the process runs");
    let sent = std::process::Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name} to {id}");
}

pub fn log_file(directory: &Path, name: &str) -> File {
    File::options().create(true).append(true).open(directory.join(name)).expect("a log file")
}

/// Ports that were free a moment ago, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// Waits until the URL answers with a success.
pub async fn wait_for(url: &str, patience: Duration) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().expect("a client");
    let until = Instant::now() + patience;
    loop {
        match http.get(url).send().await {
            Ok(answer) if answer.status().is_success() => return,
            outcome if Instant::now() > until => panic!("{url} is not well: {outcome:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
