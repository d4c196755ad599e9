//! An instance's wrong clock: `faketime` in front of its `CLOCK_REALTIME`, read anew from a file at every look, so that
//! it can be moved while the instance runs. Timers go by the monotonic clock, which is left alone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far from the host's clock an instance may be, either way. Two of them are then further apart than a lease lasts.
pub const FURTHEST_MS: i64 = 1500;

/// The threads of a process share what any of them has read of the file: on a busy host that can be an old reading.
const LAG: Duration = Duration::from_secs(1);

pub struct ShiftedClock {
    library: PathBuf,
    file: PathBuf,
    settings: Mutex<Vec<Setting>>,
}

/// The new shift is in force from some instant between the two on.
struct Setting {
    before: Instant,
    after: Instant,
    shift_ms: i64,
}

impl ShiftedClock {
    /// None where `faketime` is not installed.
    pub fn new(directory: &Path, number: usize) -> Option<Self> {
        let library =
            ["/usr/lib", "/usr/lib64", "/usr/local/lib"].iter().find_map(|folder| library(Path::new(folder)))?;
        let file = directory.join(format!("clock-{number}"));
        let clock = Self { library, file, settings: Mutex::default() };
        clock.set(0);
        Some(clock)
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    pub fn set(&self, shift_ms: i64) {
        if self.settings().last().is_some_and(|setting| setting.shift_ms == shift_ms) {
            return;
        }
        let before = Instant::now();
        let new = self.file.with_extension("new");
        let text = format!(
            "{}{}.{:03}\n",
            if shift_ms < 0 { '-' } else { '+' },
            shift_ms.abs() / 1000,
            shift_ms.abs() % 1000
        );
        std::fs::write(&new, text).expect("a clock file");
        // In one step: a half-written one would be another time.
        std::fs::rename(&new, &self.file).expect("a clock file");
        let after = Instant::now();
        self.settings().push(Setting { before, after, shift_ms });
    }

    /// The least and the most that it was shifted between two instants, those of a moment before included.
    pub fn between(&self, begin: Instant, end: Instant) -> (i64, i64) {
        let settings = self.settings();
        let begin = begin.checked_sub(LAG).unwrap_or(begin);
        let first = settings.partition_point(|setting| setting.after <= begin).saturating_sub(1);
        let in_force = settings[first..].iter().take_while(|setting| setting.before <= end);
        in_force.fold((i64::MAX, i64::MIN), |(least, most), setting| {
            (least.min(setting.shift_ms), most.max(setting.shift_ms))
        })
    }

    fn settings(&self) -> MutexGuard<'_, Vec<Setting>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The variant for programs with threads; Debian has it in a folder of the architecture.
fn library(folder: &Path) -> Option<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let below = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path().join(NAME));
    std::iter::once(folder.join(NAME)).chain(below).find(|path| path.is_file())
}
