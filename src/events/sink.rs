//! Writes lines to standard output or to one file per day.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tracing_appender::rolling::{RollingFileAppender, Rotation};

use super::settings::SinkSettings;

/// Files have the names `events.2026-01-31.jsonl`.
const PREFIX: &str = "events";
const SUFFIX: &str = "jsonl";

/// The wait before the next attempt if standard output is a non-blocking pipe that is full.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(20);

pub(super) struct Sink {
    output: Box<dyn Write + Send>,
    /// Whether the output ends within a line, because a write failed or the process was killed.
    is_mid_line: bool,
}

/// A write that failed.
pub(super) struct WriteError {
    /// The number of complete lines that were written before the error.
    pub written_lines: u64,
    pub error: io::Error,
}

impl Sink {
    pub fn open(settings: &SinkSettings) -> Result<Self, String> {
        match settings {
            SinkSettings::Stdout => {
                // Without the buffer of `Stdout`, each batch is one write.
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(|error| format!("standard output: {error}"))?;
                Ok(Self::new(File::from(stdout), false))
            }
            SinkSettings::File { directory, keep_days } => {
                // If the folder is missing, the appender would print a message that is not a log line.
                fs::create_dir_all(directory).map_err(|error| error.to_string())?;
                let files = RollingFileAppender::builder()
                    .rotation(Rotation::DAILY)
                    .filename_prefix(PREFIX)
                    .filename_suffix(SUFFIX)
                    // At a restart, the appender keeps one file less, because it does not expect today's file to exist.
                    .max_log_files(keep_days.saturating_add(1));
                let files = files.build(directory).map_err(|error| with_causes(&error))?;
                let is_mid_line = newest_file_ends_mid_line(directory);
                Ok(Self::new(files, is_mid_line.map_err(|error| error.to_string())?))
            }
        }
    }

    fn new(output: impl Write + Send + 'static, is_mid_line: bool) -> Self {
        Self { output: Box::new(output), is_mid_line }
    }

    /// Writes a line break and complete lines. The line break, which must be the first byte, is omitted unless the output ends
    /// within a line. After an error, the rest of the lines is lost.
    pub fn write(&mut self, batch: &[u8]) -> Result<(), WriteError> {
        let batch = if self.is_mid_line { batch } else { &batch[1..] };
        let mut written = 0;
        let error = loop {
            if written == batch.len() {
                self.is_mid_line = false;
                return Ok(());
            }
            match self.output.write(&batch[written..]) {
                Ok(0) => break ErrorKind::WriteZero.into(),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                #[expect(clippy::disallowed_methods, reason = "the thread of the writer runs no async tasks")]
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PIPE_WAIT),
                Err(error) => break error,
            }
        };
        let breaks = batch[..written].iter().filter(|byte| **byte == b'\n').count() as u64;
        let written_lines = breaks.saturating_sub(u64::from(self.is_mid_line));
        if let Some(last) = batch[..written].last() {
            self.is_mid_line = *last != b'\n';
        }
        Err(WriteError { written_lines, error })
    }
}

fn newest_file_ends_mid_line(directory: &Path) -> io::Result<bool> {
    let names = fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // The order of the names is the order of their dates.
    let newest = names.filter(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)).max();
    let Some(newest) = newest else { return Ok(false) };
    let mut file = File::open(directory.join(newest))?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != *b"\n")
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk with room for some bytes.
    #[derive(Clone, Default)]
    struct Disk {
        content: Arc<Mutex<String>>,
        room: Arc<Mutex<usize>>,
    }

    impl Disk {
        /// The number of complete lines that were written before an error. `None` if there was no error.
        fn write(&self, sink: &mut Sink, room: usize, batch: &str) -> Option<u64> {
            *self.room.lock().unwrap() = room;
            let written = sink.write(batch.as_bytes());
            written.map_or_else(|failed| Some(failed.written_lines), |()| None)
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let written = bytes.len().min(*room);
            *room -= written;
            self.content.lock().unwrap().push_str(std::str::from_utf8(&bytes[..written]).unwrap());
            if written == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(written) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_disk_breaks_at_most_one_line() {
        let disk = Disk::default();
        let mut sink = Sink::new(disk.clone(), false);
        assert_eq!(disk.write(&mut sink, 100, "\none\n"), None);
        assert_eq!(disk.write(&mut sink, 6, "\ntwo\nthree\nfour\n"), Some(1));
        assert_eq!(disk.write(&mut sink, 0, "\nfive\n"), Some(0));
        assert_eq!(disk.write(&mut sink, 100, "\nsix\nseven\n"), None);
        assert_eq!(disk.write(&mut sink, 100, "\neight\n"), None);
        assert_eq!(*disk.content.lock().unwrap(), "one\ntwo\nth\nsix\nseven\neight\n");
    }

    #[test]
    fn old_files_are_deleted_and_other_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut last = std::time::SystemTime::UNIX_EPOCH;
        for name in ["notes.txt", "events.2026-01-01.jsonl", "events.2026-01-02.jsonl", "events.2026-01-03.jsonl"] {
            let path = folder.path().join(name);
            // The appender orders files by the times at which they were created.
            while !fs::metadata(&path).is_ok_and(|file| file.created().unwrap() > last) {
                _ = fs::remove_file(&path);
                fs::write(&path, "x\n").unwrap();
            }
            last = fs::metadata(&path).unwrap().created().unwrap();
        }
        let settings = SinkSettings::File { directory: folder.path().to_owned(), keep_days: 2 };
        Sink::open(&settings).unwrap();
        let names = names(folder.path());
        assert_eq!(names[..2], ["events.2026-01-02.jsonl", "events.2026-01-03.jsonl"]);
        assert_eq!((names.len(), names[3].as_str()), (4, "notes.txt"));
    }

    #[test]
    fn a_restart_continues_the_file_of_the_day() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SinkSettings::File { directory: folder.path().join("new/folder"), keep_days: 1 };
        for line in ["\none\n", "\ntwo\n", "\nbroken", "\nthree\n"] {
            assert!(Sink::open(&settings).unwrap().write(line.as_bytes()).is_ok());
        }
        let names = names(&folder.path().join("new/folder"));
        let text = fs::read_to_string(folder.path().join("new/folder").join(&names[0])).unwrap();
        assert_eq!((text.as_str(), names.len()), ("one\ntwo\nbroken\nthree\n", 1));
    }
}
