//! The instances of the service, and what all child processes have in common. A child dies with its handle, whatever
//! happens here; nothing is ever killed by name.

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

pub struct Instance {
    pub url: String,
    /// Set before it is killed: from then on it need not answer.
    pub killed: AtomicBool,
    /// It stands still: it will answer, but late.
    pub frozen: AtomicBool,
    launch: Launch,
    child: Mutex<Child>,
}

/// What it takes to run an instance, also once more.
pub struct Launch {
    pub number: usize,
    pub ports: [u16; 2],
    pub store_port: u16,
    pub directory: PathBuf,
    /// Over what every instance gets.
    pub environment: Vec<(&'static str, String)>,
}

impl Launch {
    async fn run(&self) -> Child {
        let log = log_file(&self.directory, &format!("instance-{}.log", self.number));
        let child = service(self.store_port)
            .env("STREAM_MANAGER__SERVER__BIND", format!("127.0.0.1:{}", self.ports[0]))
            .env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", format!("127.0.0.1:{}", self.ports[1]))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the service runs");
        wait_for(&format!("{}/health/ready", self.url()), Duration::from_secs(30)).await;
        child
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }
}

impl Instance {
    pub async fn start(launch: Launch) -> Self {
        let child = Mutex::new(launch.run().await);
        Self { url: launch.url(), killed: AtomicBool::new(false), frozen: AtomicBool::new(false), launch, child }
    }

    pub fn alive(&self) -> bool {
        !self.killed.load(Ordering::SeqCst)
    }

    /// Whether an answer can be expected soon.
    pub fn brisk(&self) -> bool {
        self.alive() && !self.frozen.load(Ordering::SeqCst)
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.child.lock().await.kill().await.expect("it ran");
    }

    /// After a kill, on the same ports. Comes back when it is ready.
    pub async fn start_again(&self) {
        *self.child.lock().await = self.launch.run().await;
        self.killed.store(false, Ordering::SeqCst);
    }

    /// SIGSTOP, for so long, then SIGCONT: its timers have all run out, and what it was about to send it sends now.
    pub async fn stand_still(&self, duration: Duration) {
        let child = self.child.lock().await;
        self.frozen.store(true, Ordering::SeqCst);
        freeze(&child).await;
        tokio::time::sleep(duration).await;
        signal(&child, "CONT");
        self.frozen.store(false, Ordering::SeqCst);
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

/// SIGSTOP. Comes back when the process stands still.
pub async fn freeze(child: &Child) {
    signal(child, "STOP");
    let stat = format!("/proc/{}/stat", child.id().expect("the process runs"));
    let patience = Instant::now() + Duration::from_secs(5);
    // The state is the field after the name in brackets.
    while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")) {
        assert!(Instant::now() < patience, "the process does not stand still");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
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
