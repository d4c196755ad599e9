//! The stand-in for DynamoDB: ministack as a process of its own that can be stopped, started again and frozen.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::process::{freeze, log_file, signal, wait_for};

pub struct StandIn {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
}

impl StandIn {
    /// Installs ministack if it is missing: the first time this takes a while and needs a package index.
    pub async fn install() {
        let install = Command::new(script()).arg("install").kill_on_drop(true).status();
        let status = tokio::time::timeout(Duration::from_secs(300), install).await;
        assert!(status.expect("pip ends").expect("bash is there").success(), "scripts/ministack install failed");
    }

    pub async fn start(port: u16, directory: &Path) -> Self {
        let mut stand_in = Self { child: None, port, directory: directory.to_owned() };
        stand_in.start_again().await;
        stand_in
    }

    /// Comes back when it answers.
    pub async fn start_again(&mut self) {
        let log = log_file(&self.directory, "ministack.log");
        let child = Command::new(script())
            .arg(self.port.to_string())
            .env("STATE_DIR", self.directory.join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.expect("scripts/ministack runs"));
        let url = format!("http://127.0.0.1:{}/_ministack/health", self.port);
        wait_for(&url, Duration::from_secs(30)).await;
    }

    /// SIGTERM, the one that keeps the state: it is written on the way out. Comes back when the process is gone.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal(&child, "TERM");
        let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
        status.expect("ministack ends on SIGTERM").expect("it can be waited for");
    }

    /// SIGSTOP: connections stay open, requests are taken by the kernel, nothing is answered. Comes back when the
    /// process stands still.
    pub async fn freeze(&self) {
        freeze(self.child.as_ref().expect("it runs")).await;
    }

    /// SIGCONT: whatever has piled up is now carried out, long after its senders gave up.
    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("it runs"), "CONT");
    }

    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ministack")
}
