//! One file of events per day (UTC). Deletes the files whose names contain an old date.
//!
//! The crate tracing-appender also rotates files, but it orders them by the time at which they were created. After a backup was
//! restored, it deleted the file of the day. It also continues without an error when it cannot open the next file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate};
use tracing::warn;

use crate::clock::Clock;

pub(super) struct DailyFiles {
    directory: PathBuf,
    keep_days: u64,
    clock: Arc<dyn Clock>,
    current: Option<Current>,
}

/// A file that was opened.
pub(super) struct Opened {
    pub file: File,
    /// Whether its last line is incomplete, because a write failed or the process was killed.
    pub is_mid_line: bool,
}

/// The file that was opened last.
struct Current {
    path: PathBuf,
    id: FileId,
}

/// The device and the inode of a file.
type FileId = (u64, u64);

impl DailyFiles {
    pub fn new(directory: PathBuf, keep_days: u64, clock: Arc<dyn Clock>) -> Self {
        Self { directory, keep_days, clock, current: None }
    }

    /// Opens today's file, and deletes old files. Returns `None` if today's file is open already and nobody has removed or replaced
    /// it.
    pub fn open_today(&mut self) -> io::Result<Option<Opened>> {
        let today = self.today();
        let path = self.directory.join(format!("events.{today}.jsonl"));
        let is_open = |current: &Current| {
            current.path == path && fs::metadata(&path).is_ok_and(|file| (file.dev(), file.ino()) == current.id)
        };
        if self.current.as_ref().is_some_and(is_open) {
            return Ok(None);
        }
        // Only the service may read the files, because they can contain user names.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let is_mid_line = ends_mid_line(&mut file)?;
        let metadata = file.metadata()?;
        self.current = Some(Current { path, id: (metadata.dev(), metadata.ino()) });
        if let Err(error) = self.delete_old(today) {
            warn!(event = "old_events_not_deleted", %error, "cannot delete old event files");
        }
        Ok(Some(Opened { file, is_mid_line }))
    }

    fn today(&self) -> NaiveDate {
        DateTime::from_timestamp_millis(self.clock.now().epoch_ms()).unwrap_or_default().date_naive()
    }

    fn delete_old(&self, today: NaiveDate) -> io::Result<()> {
        let Some(oldest) = today.checked_sub_days(Days::new(self.keep_days)) else { return Ok(()) };
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().and_then(date).is_some_and(|date| date < oldest) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The date in the name of an event file. `None` for all other names.
fn date(name: &str) -> Option<NaiveDate> {
    let text = name.strip_prefix("events.")?.strip_suffix(".jsonl")?;
    // The parser also accepts dates without leading zeros.
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| date.to_string() == text)
}

fn ends_mid_line(file: &mut File) -> io::Result<bool> {
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::clock::ManualClock;

    /// 2026-11-27, one second before midnight.
    const LATE_MS: i64 = 1_795_823_999_000;
    const DAY_MS: i64 = 86_400_000;

    struct Folder {
        folder: TempDir,
        clock: Arc<ManualClock>,
        files: DailyFiles,
    }

    impl Folder {
        fn new(keep_days: u64) -> Self {
            let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
            clock.advance_ms(LATE_MS);
            let files = DailyFiles::new(folder.path().join("events"), keep_days, clock.clone());
            Self { folder, clock, files }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("events")
        }

        fn write(&mut self, text: &str) {
            self.files.open_today().unwrap().unwrap().file.write_all(text.as_bytes()).unwrap();
        }

        fn names(&self) -> Vec<String> {
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            let mut names: Vec<String> = fs::read_dir(self.path()).unwrap().map(name).collect();
            names.sort();
            names
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn each_day_has_its_own_file() {
        let mut folder = Folder::new(7);
        folder.write("one\n");
        assert!(folder.files.open_today().unwrap().is_none());
        folder.clock.advance_ms(1000);
        folder.write("two\n");
        assert_eq!(folder.names(), ["events.2026-11-27.jsonl", "events.2026-11-28.jsonl"]);
        assert_eq!(fs::read_to_string(folder.path().join("events.2026-11-28.jsonl")).unwrap(), "two\n");
    }

    #[test]
    fn only_event_files_with_an_old_date_are_deleted() {
        let mut folder = Folder::new(2);
        folder.write("today\n");
        let kept = ["events-audit.jsonl", "events.2026-1-1.jsonl", "events.2026-11-25.jsonl", "eventsjsonl"];
        for name in kept.iter().chain(&["events.2026-11-24.jsonl", "events.2019-02-28.jsonl"]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder.files.current = None;
        folder.files.open_today().unwrap().unwrap();
        let mut expected = kept.to_vec();
        expected.insert(3, "events.2026-11-27.jsonl");
        assert_eq!(folder.names(), expected);
        folder.clock.advance_ms(3 * DAY_MS);
        folder.files.open_today().unwrap().unwrap();
        assert!(!folder.names().iter().any(|name| name == "events.2026-11-27.jsonl"));
    }

    #[test]
    fn a_removed_or_replaced_file_is_opened_again() {
        let mut folder = Folder::new(7);
        folder.write("one\n");
        fs::remove_dir_all(folder.path()).unwrap();
        folder.write("two\n");
        let path = folder.path().join(&folder.names()[0]);
        fs::write(folder.path().join("copy"), "three\n").unwrap();
        fs::rename(folder.path().join("copy"), &path).unwrap();
        folder.write("four\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "three\nfour\n");
    }

    #[test]
    fn only_the_owner_may_read_the_files() {
        let mut folder = Folder::new(7);
        folder.write("one\n");
        let file = folder.path().join(&folder.names()[0]);
        assert_eq!((mode(&folder.path()), mode(&file)), (0o700, 0o600));
    }
}
