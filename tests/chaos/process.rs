//! Starts, stops, kills and freezes instances of the service. Contains helpers for all child processes. Dropping a
//! child's handle kills the child. The helpers send signals to process ids, never to names.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

const BINARY: &str = env!("CARGO_BIN_EXE_stream-manager");
pub const LEASE_S: u64 = 2;
pub const RETENTION_S: u64 = 5;
/// One rule: one UHD stream.
const RULES: &str = r#"[{"name": "one UHD stream", "max": 1, "labels": {"quality": "uhd"}}]"#;

pub struct Instance {
    pub url: String,
    /// True from just before a kill until the instance is ready again. During this time, requests may fail.
    pub killed: AtomicBool,
    /// True between SIGSTOP and SIGCONT. During this time, responses arrive late.
    pub frozen: AtomicBool,
    launch_options: LaunchOptions,
    child: Mutex<Child>,
}

/// The arguments of an instance, kept for restarts.
pub struct LaunchOptions {
    pub number: usize,
    pub ports: [u16; 2],
    pub store_port: u16,
    pub directory: PathBuf,
    /// Variables that override the common environment.
    pub environment: Vec<(&'static str, String)>,
}

impl LaunchOptions {
    async fn launch(&self) -> Child {
        let log = log_file(&self.directory, &format!("instance-{}.log", self.number));
        let child = service_command(self.store_port)
            .env("STREAM_MANAGER__SERVER__BIND", format!("127.0.0.1:{}", self.ports[0]))
            .env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", format!("127.0.0.1:{}", self.ports[1]))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_until_healthy(&format!("{}/health/ready", self.url()), Duration::from_secs(30)).await;
        child
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }
}

impl Instance {
    pub async fn start(launch_options: LaunchOptions) -> Self {
        let child = Mutex::new(launch_options.launch().await);
        let url = launch_options.url();
        Self { url, killed: AtomicBool::new(false), frozen: AtomicBool::new(false), launch_options, child }
    }

    pub fn is_alive(&self) -> bool {
        !self.killed.load(Ordering::SeqCst)
    }

    /// Whether the instance is neither down nor frozen.
    pub fn is_responsive(&self) -> bool {
        self.is_alive() && !self.frozen.load(Ordering::SeqCst)
    }

    /// Sends SIGKILL.
    pub async fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.child.lock().await.kill().await.unwrap();
    }

    /// Starts the killed instance again on the same ports, and waits until it is ready.
    pub async fn restart(&self) {
        *self.child.lock().await = self.launch_options.launch().await;
        self.killed.store(false, Ordering::SeqCst);
    }

    /// Sends SIGSTOP and, after `duration`, SIGCONT. When the instance resumes, its timers have expired, and it still
    /// sends the requests that it had prepared.
    pub async fn freeze(&self, duration: Duration) {
        let child = self.child.lock().await;
        self.frozen.store(true, Ordering::SeqCst);
        freeze_process(&child).await;
        tokio::time::sleep(duration).await;
        send_signal(&child, "CONT");
        self.frozen.store(false, Ordering::SeqCst);
    }

    pub async fn is_running(&self) -> bool {
        matches!(self.child.lock().await.try_wait(), Ok(None))
    }

    /// Sends SIGTERM. Returns whether the instance exits successfully within 25 s.
    pub async fn stop(&self) -> bool {
        let mut child = self.child.lock().await;
        send_signal(&child, "TERM");
        let status = tokio::time::timeout(Duration::from_secs(25), child.wait()).await;
        status.is_ok_and(|status| status.is_ok_and(|status| status.success()))
    }
}

/// Runs `stream-manager migrate`.
pub async fn migrate(store_port: u16) {
    let output = service_command(store_port).arg("migrate").output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "migrate failed: {out}{err}");
    print!("migrate: {out}");
}

/// The service command without the caller's environment, which can contain an AWS profile, a proxy or settings.
fn service_command(store_port: u16) -> Command {
    let mut command = Command::new(BINARY);
    command
        .env_clear()
        .env("STREAM_MANAGER__STORE__KIND", "dynamodb")
        .env("STREAM_MANAGER__DYNAMODB__ENDPOINT_URL", format!("http://127.0.0.1:{store_port}"))
        .env("STREAM_MANAGER__DYNAMODB__OPERATION_TIMEOUT_MS", "3000")
        .env("STREAM_MANAGER__LIMITS__RULES", RULES)
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

/// Sends a signal to a running child. The system cannot have reused the child's process id, because nothing has waited
/// for the child.
pub fn send_signal(child: &Child, name: &str) {
    let id = child.id().unwrap();
    let sent = std::process::Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name} to {id}");
}

/// Sends SIGSTOP and waits until the process is stopped.
pub async fn freeze_process(child: &Child) {
    send_signal(child, "STOP");
    let stat = format!("/proc/{}/stat", child.id().unwrap());
    let deadline = Instant::now() + Duration::from_secs(5);
    // In /proc/PID/stat, the state follows the process name in parentheses. `T` means stopped.
    while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")) {
        assert!(Instant::now() < deadline, "the process did not stop");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub fn log_file(directory: &Path, name: &str) -> File {
    File::options().create(true).append(true).open(directory.join(name)).unwrap()
}

/// Distinct ports that were free when this function returned.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Polls the URL until it returns success. Panics after `limit`.
pub async fn wait_until_healthy(url: &str, limit: Duration) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
    let deadline = Instant::now() + limit;
    loop {
        match http.get(url).send().await {
            Ok(response) if response.status().is_success() => return,
            result if Instant::now() > deadline => panic!("{url} is not healthy: {result:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
