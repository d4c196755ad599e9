//! Who runs on which core, what it used of it, and the peers, which are processes of their own. Needs two cores and
//! `taskset` (util-linux).

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{free_port, listening};

pub const MEASURED: &str = "0";
pub const CLIENT: &str = "1";

/// Of this process, before it has threads, so that all of them have it.
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

/// User and system time of a process, in the kernel's ticks of ten milliseconds.
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    let after_name = stat.rsplit(')').next().expect("fields");
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}

/// Least, median and greatest.
pub fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// A process that ends with this.
pub struct Peer {
    pub address: SocketAddr,
    pub child: Child,
}

impl Peer {
    /// One of the package `peers`: `cargo build --profile bench -p peers` puts it beside the binary that is measured.
    pub async fn start(name: &str, core: &str, arguments: &[&str]) -> Self {
        let address = free_port().await;
        let mut command = pinned(core, Path::new(env!("CARGO_BIN_EXE_stream-manager")).with_file_name(name));
        let child =
            command.arg(address.to_string()).args(arguments).spawn().expect("cargo build --profile bench -p peers");
        listening(address).await;
        Self { address, child }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
