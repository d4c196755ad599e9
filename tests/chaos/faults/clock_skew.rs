//! Skews the clock of an instance with `faketime`, which intercepts `CLOCK_REALTIME` and reads the skew from a file on
//! every call. Therefore, the skew can change while the instance runs. The monotonic clock, which timers use, is not
//! skewed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Maximum skew of an instance relative to the host, in either direction. Between two instances, the skew can be twice as
/// large, which is longer than a lease.
pub const MAX_SKEW_MS: i64 = 1500;

/// Maximum delay before a new skew takes effect. Such delays occur on a busy host, because the threads of a process
/// share the skew that one of them read last.
const LAG: Duration = Duration::from_secs(1);

pub struct SkewedClock {
    library: PathBuf,
    file: PathBuf,
    changes: Mutex<Vec<Change>>,
}

/// A change of the skew. The clock's file was replaced between `before` and `after`.
struct Change {
    before: Instant,
    after: Instant,
    skew_ms: i64,
}

impl SkewedClock {
    /// Returns `None` if `faketime` is not installed.
    pub fn new(directory: &Path, number: usize) -> Option<Self> {
        let library =
            ["/usr/lib", "/usr/lib64", "/usr/local/lib"].iter().find_map(|folder| library(Path::new(folder)))?;
        let file = directory.join(format!("clock-{number}"));
        let clock = Self { library, file, changes: Mutex::default() };
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

    pub fn set(&self, skew_ms: i64) {
        if self.changes().last().is_some_and(|change| change.skew_ms == skew_ms) {
            return;
        }
        let before = Instant::now();
        let new = self.file.with_extension("new");
        let sign = if skew_ms < 0 { '-' } else { '+' };
        let text = format!("{sign}{}.{:03}\n", skew_ms.abs() / 1000, skew_ms.abs() % 1000);
        std::fs::write(&new, text).unwrap();
        // A rename is atomic, so the instance never reads a partial file.
        std::fs::rename(&new, &self.file).unwrap();
        let after = Instant::now();
        self.changes().push(Change { before, after, skew_ms });
    }

    /// The smallest and the largest skew that can have been in effect between `begin` and `end`.
    pub fn range_ms(&self, begin: Instant, end: Instant) -> (i64, i64) {
        let changes = self.changes();
        let begin = begin.checked_sub(LAG).unwrap_or(begin);
        let first = changes.partition_point(|change| change.after <= begin).saturating_sub(1);
        let in_effect = changes[first..].iter().take_while(|change| change.before <= end);
        in_effect.fold((i64::MAX, i64::MIN), |(min, max), change| (min.min(change.skew_ms), max.max(change.skew_ms)))
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the variant of the library for multithreaded programs. Debian installs it in an architecture-specific folder.
fn library(folder: &Path) -> Option<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let subfolders = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path().join(NAME));
    std::iter::once(folder.join(NAME)).chain(subfolders).find(|path| path.is_file())
}
