//! Measures `stream-manager report` on a generated month: the time on one core and the peak memory, with 10,000 starts, 1 million
//! starts (about 1 GB of events) and, with `-- --large`, 10 million starts. Each run has at most 256 MiB of memory.
//! Run it with `cargo bench --bench report`. With `-- --keep FOLDER`, the files of the month stay in this folder.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

#[path = "../tests/integration/report/generator.rs"]
mod generator;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use generator::{EventLog, FIRST_DAY_MS, World};

const DAYS: u64 = 30;
const DAY_MS: i64 = 24 * 3_600_000;
/// The limit of the address space, in KiB.
const MEMORY_KIB: u64 = 256 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let keep = arguments.iter().position(|argument| argument == "--keep").map(|at| PathBuf::from(&arguments[at + 1]));
    let folder = tempfile::tempdir().unwrap();
    let large = arguments.iter().any(|argument| argument == "--large").then_some(10_000_000);
    println!("{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}", "starts", "events", "MB", "seconds", "CPU s", "peak MB");
    for starts in [10_000, 1_000_000].into_iter().chain(large) {
        let folder = keep.as_deref().filter(|_| starts == 1_000_000).unwrap_or(folder.path());
        fs::create_dir_all(folder).unwrap();
        let (files, events) = generate(folder, starts);
        let megabytes = files.iter().map(|file| file.metadata().unwrap().len()).sum::<u64>() / 1_000_000;
        let Usage { wall_s, cpu_s, peak_kib } = measure(&files);
        let peak_mb = peak_kib * 1024 / 1_000_000;
        println!("{starts:>12}{events:>12}{megabytes:>12}{wall_s:>12.1}{cpu_s:>12.1}{peak_mb:>12}");
    }
}

/// Writes one file per day. Returns the files and the number of events.
fn generate(folder: &Path, starts: u64) -> (Vec<PathBuf>, u64) {
    let (world, mut log) = (World { seed: 1, days: DAYS, max_sessions: 20 }, EventLog::new(1));
    // The last sessions end after midnight.
    let paths: Vec<PathBuf> = (0..DAYS + 2).map(|day| folder.join(format!("events-{day:02}.jsonl"))).collect();
    let mut files: Vec<_> = paths.iter().map(|path| BufWriter::new(File::create(path).unwrap())).collect();
    let (mut started, mut events) = (0, 0);
    for number in 0.. {
        if started >= starts {
            break;
        }
        let user = world.user(number, &mut log);
        started += user.sessions.len() as u64;
        events += user.events.len() as u64;
        for event in user.events {
            let day = usize::try_from((event.time.0.epoch_ms() - FIRST_DAY_MS) / DAY_MS).unwrap();
            let file = &mut files[day.min(paths.len() - 1)];
            serde_json::to_writer(&mut *file, &event).unwrap();
            file.write_all(b"\n").unwrap();
        }
    }
    files.iter_mut().for_each(|file| file.flush().unwrap());
    (paths, events)
}

/// Runs the command on one core.
fn measure(files: &[PathBuf]) -> Usage {
    let script = format!("ulimit -v {MEMORY_KIB}; exec taskset -c 0 \"$0\" \"$@\"");
    let start = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_stream-manager"), "report"])
        .args(files)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut usage = Usage::default();
    loop {
        // The last values before the process ends are close to the final ones, because they never decrease.
        usage.read(child.id());
        match child.try_wait().unwrap() {
            Some(status) if status.success() => return Usage { wall_s: start.elapsed().as_secs_f64(), ..usage },
            Some(status) => panic!("the report failed: {status}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[derive(Default)]
struct Usage {
    wall_s: f64,
    cpu_s: f64,
    peak_kib: u64,
}

impl Usage {
    /// Reads the CPU time and the peak resident memory of a process. Leaves the values if the process has ended.
    fn read(&mut self, id: u32) {
        const TICKS_PER_S: f64 = 100.0;
        let file = |name: &str| fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
        let status = file("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(peak) = peak.and_then(|peak| peak.split_whitespace().next()) {
            self.peak_kib = peak.parse().unwrap();
        }
        // The times in user and kernel mode are the 12th and 13th field after the name.
        if let Some((_, fields)) = file("stat").rsplit_once(')') {
            let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
            self.cpu_s = ticks.sum::<f64>() / TICKS_PER_S;
        }
    }
}
