//! Starts the processes under test, and can pin them to a core. Requires Linux, two cores and `taskset` (util-linux).

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

/// The stream-manager binary.
pub const SERVICE: &str = env!("CARGO_BIN_EXE_stream-manager");
/// The core of the measured process.
pub const SERVER_CORE: &str = "0";
/// The core of the benchmark itself, which sends the requests.
pub const CLIENT_CORE: &str = "1";

/// Contains static credentials, so that the SDK does not look for credentials elsewhere.
pub const AWS_ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_REGION", "eu-central-1"),
    ("AWS_ACCESS_KEY_ID", "bench"),
    ("AWS_SECRET_ACCESS_KEY", "bench"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A child process that accepts connections. Dropping it kills the process.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Server {
    /// Starts the service with `command`. The names in `settings` have no prefix, for example `STORE__KIND`.
    pub async fn service(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let address = free_address();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.env("STREAM_MANAGER__SERVER__BIND", address.to_string());
        command.env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", "127.0.0.1:0");
        for (name, value) in settings {
            command.env(format!("STREAM_MANAGER__{name}"), value);
        }
        Self::spawn(command, address).await
    }

    /// Starts a binary of the package `peers`. It must have been built with the same profile as the benchmark.
    pub async fn peer(name: &str, core: &str, arguments: &[&str]) -> Self {
        let address = free_address();
        let mut command = pinned(core, Path::new(SERVICE).with_file_name(name));
        command.arg(address.to_string()).args(arguments);
        Self::spawn(command, address).await
    }

    /// Starts Redis without persistence, because the memory store has none either.
    pub async fn redis(core: &str) -> Self {
        let address = free_address();
        let mut command = pinned(core, "redis-server");
        command.args([
            "--port",
            &address.port().to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.stdout(Stdio::null());
        Self::spawn(command, address).await
    }

    /// Starts the process and waits until it accepts connections at `address`.
    async fn spawn(mut command: Command, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command.current_dir(folder.path()).spawn().unwrap();
        while TcpStream::connect(address).await.is_err() {
            let exited = child.try_wait().unwrap();
            assert_eq!(exited, None, "{command:?} exited (`just bench` builds the peers first)");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { address, child, _folder: folder }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Pins this process to a core. New threads inherit the core, so call this before starting threads.
pub fn pin_self(core: &str) {
    let mut taskset = Command::new("taskset");
    taskset.args(["-cp", core, &std::process::id().to_string()]).stdout(Stdio::null());
    assert!(taskset.status().is_ok_and(|status| status.success()), "needs taskset (util-linux) and two cores");
}

pub fn pinned(core: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program.as_ref());
    command
}

/// User and system CPU time of a process. The kernel counts it in ticks of 10 ms.
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
