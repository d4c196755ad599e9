//! Runs the DynamoDB emulator, ministack, as a child process that can be stopped, restarted and frozen.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::process::{freeze_process, log_file, send_signal, wait_until_healthy};

pub struct Emulator {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
}

impl Emulator {
    /// Installs ministack if it is missing. The installation needs a package index and can take minutes.
    pub async fn install() {
        let install = Command::new(script()).arg("install").kill_on_drop(true).status();
        let status = tokio::time::timeout(Duration::from_secs(300), install).await;
        assert!(status.unwrap().unwrap().success(), "scripts/ministack install failed");
    }

    pub async fn start(port: u16, directory: &Path) -> Self {
        let mut emulator = Self { child: None, port, directory: directory.to_owned() };
        emulator.launch().await;
        emulator
    }

    /// Starts the process and waits until it is healthy.
    pub async fn launch(&mut self) {
        let log = log_file(&self.directory, "ministack.log");
        let child = Command::new(script())
            .arg(self.port.to_string())
            .env("STATE_DIR", self.directory.join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
        let url = format!("http://127.0.0.1:{}/_ministack/health", self.port);
        wait_until_healthy(&url, Duration::from_secs(30)).await;
    }

    /// Sends SIGTERM and waits until the process exits. Ministack writes its state when it receives SIGTERM.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        send_signal(&child, "TERM");
        let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
        status.unwrap().unwrap();
    }

    /// Sends SIGSTOP and waits until the process is stopped. Connections stay open and the kernel queues requests, but no
    /// response is sent.
    pub async fn freeze(&self) {
        freeze_process(self.child.as_ref().unwrap()).await;
    }

    /// Sends SIGCONT. The emulator then executes the queued requests, long after their senders have given up.
    pub fn resume(&self) {
        send_signal(self.child.as_ref().unwrap(), "CONT");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ministack")
}
