//! Writes lines to standard output or to one file per day.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::daily_files::{DailyFiles, Opened};
use super::settings::SinkSettings;
use crate::clock::Clock;

/// The wait before the next attempt if standard output is a non-blocking pipe that is full.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(20);

pub(super) struct Sink {
    output: Box<dyn Write + Send>,
    /// `None` for standard output.
    files: Option<DailyFiles>,
    /// Whether the output ends within a line, because a write failed or the process was killed.
    is_mid_line: bool,
}

/// A write that failed.
#[derive(Debug)]
pub(super) struct WriteError {
    /// The number of complete lines that were written before the error.
    pub written_lines: u64,
    pub error: io::Error,
}

impl Sink {
    pub fn open(settings: &SinkSettings, clock: Arc<dyn Clock>) -> io::Result<Self> {
        match settings {
            // Without the buffer of `Stdout`, each batch is one write.
            SinkSettings::Stdout => Ok(Self::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
            SinkSettings::File { directory, keep_days } => {
                let files = DailyFiles::new(directory.clone(), *keep_days, clock);
                let mut sink = Self { output: Box::new(io::sink()), files: Some(files), is_mid_line: false };
                sink.open_today()?;
                Ok(sink)
            }
        }
    }

    fn new(output: impl Write + Send + 'static) -> Self {
        Self { output: Box::new(output), files: None, is_mid_line: false }
    }

    /// Writes a line break and complete lines. The line break, which must be the first byte, is omitted unless the output ends
    /// within a line. After an error, the rest of the lines is lost.
    pub fn write(&mut self, batch: &[u8]) -> Result<(), WriteError> {
        self.open_today().map_err(|error| WriteError { written_lines: 0, error })?;
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

    fn open_today(&mut self) -> io::Result<()> {
        if let Some(files) = &mut self.files
            && let Some(Opened { file, is_mid_line }) = files.open_today()?
        {
            (self.output, self.is_mid_line) = (Box::new(file), is_mid_line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::ManualClock;

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

    #[test]
    fn a_full_disk_breaks_at_most_one_line() {
        let disk = Disk::default();
        let mut sink = Sink::new(disk.clone());
        assert_eq!(disk.write(&mut sink, 100, "\none\n"), None);
        assert_eq!(disk.write(&mut sink, 6, "\ntwo\nthree\nfour\n"), Some(1));
        assert_eq!(disk.write(&mut sink, 0, "\nfive\n"), Some(0));
        assert_eq!(disk.write(&mut sink, 100, "\nsix\nseven\n"), None);
        assert_eq!(disk.write(&mut sink, 100, "\neight\n"), None);
        assert_eq!(*disk.content.lock().unwrap(), "one\ntwo\nth\nsix\nseven\neight\n");
    }

    #[test]
    fn a_restart_continues_the_file_of_the_day() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("new/folder");
        let settings = SinkSettings::File { directory: directory.clone(), keep_days: 1 };
        let open = || Sink::open(&settings, Arc::new(ManualClock::default())).unwrap();
        for line in ["\none\n", "\ntwo\n", "\nbroken", "\nthree\n"] {
            assert!(open().write(line.as_bytes()).is_ok());
        }
        let text = fs::read_to_string(directory.join("events.1970-01-01.jsonl")).unwrap();
        assert_eq!(text, "one\ntwo\nbroken\nthree\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("events");
        let settings = SinkSettings::File { directory: directory.clone(), keep_days: 1 };
        let mut sink = Sink::open(&settings, Arc::new(ManualClock::default())).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        fs::write(&directory, "a file in place of the folder").unwrap();
        assert_eq!(sink.write(b"\none\n").unwrap_err().written_lines, 0);
        fs::remove_file(&directory).unwrap();
        assert!(sink.write(b"\ntwo\n").is_ok());
        assert_eq!(fs::read_to_string(directory.join("events.1970-01-01.jsonl")).unwrap(), "two\n");
    }
}
