//! The thread that converts records to events and writes them in batches.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

use thiserror::Error;
use uuid::Uuid;

use super::conversion::Converter;
use super::personal_data::PersonalData;
use super::queue::{EventReceiver, Queued};
use super::settings::{EventSettings, SinkSettings};
use super::sink::{Sink, WriteError};

/// The time between two batches. The thread sleeps instead of waiting for the next record, because waking it for each record would
/// cost each request a system call.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);
/// A batch is written when it has this size. It can exceed the size by the events of one record.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// A running writer.
pub struct EventWriter {
    stop: Arc<AtomicBool>,
    thread: Thread,
    ended: Receiver<()>,
}

#[derive(Debug, Error)]
pub enum EventWriterError {
    #[error("events.directory = {directory:?}: {error}")]
    Directory { directory: String, error: io::Error },
    #[error("events.sink = \"stdout\": {0}")]
    Stdout(io::Error),
    #[error("cannot start the thread that writes events: {0}")]
    Thread(#[from] io::Error),
}

impl EventWriter {
    /// `instance` identifies this process in the events.
    ///
    /// # Errors
    /// The sink cannot be opened.
    pub fn start(settings: &EventSettings, instance: Uuid, records: EventReceiver) -> Result<Self, EventWriterError> {
        let sink = Sink::open(&settings.sink, Arc::clone(&records.clock)).map_err(|error| match &settings.sink {
            SinkSettings::Stdout => EventWriterError::Stdout(error),
            SinkSettings::File { directory, .. } => {
                EventWriterError::Directory { directory: directory.display().to_string(), error }
            }
        })?;
        let converter = Converter::new(instance, PersonalData::new(&settings.identities));
        let stop = Arc::new(AtomicBool::new(false));
        // The thread drops the sender when it ends, also after a panic.
        let (ending, ended) = sync_channel::<()>(0);
        let worker = Worker { records, converter, sink, batch: Vec::new(), lines: 0 };
        let run = {
            let stop = Arc::clone(&stop);
            move || worker.run(&stop, ending)
        };
        let thread = thread::Builder::new().name("events".to_owned()).spawn(run)?.thread().clone();
        Ok(Self { stop, thread, ended })
    }

    /// Writes the records that are in the queue. Blocks for at most `timeout`, and returns whether all were written or counted as
    /// dropped in this time.
    pub fn shutdown(self, timeout: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
        self.ended.recv_timeout(timeout) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }
}

struct Worker {
    records: EventReceiver,
    converter: Converter,
    sink: Sink,
    /// A line break, as [`Sink::write`] needs it, and the lines of the next write.
    batch: Vec<u8>,
    /// The number of lines in `batch`.
    lines: u64,
}

impl Worker {
    fn run(mut self, stop: &AtomicBool, _ending: SyncSender<()>) {
        loop {
            let is_stopping = stop.load(Ordering::Acquire);
            if self.write_queued() == Queue::Closed || is_stopping {
                return;
            }
            thread::park_timeout(BATCH_INTERVAL);
        }
    }

    /// Writes all records that are in the queue.
    fn write_queued(&mut self) -> Queue {
        loop {
            self.batch.clear();
            self.batch.push(b'\n');
            self.lines = 0;
            let queue = loop {
                match self.records.queue.try_recv() {
                    Ok(queued) => {
                        let Queued { record, dropped_before } = *queued;
                        // Readers see a gap in the sequence numbers.
                        self.converter.skip(dropped_before);
                        self.lines += self.converter.append(record, &mut self.batch);
                    }
                    Err(TryRecvError::Empty) => break Queue::Empty,
                    Err(TryRecvError::Disconnected) => break Queue::Closed,
                }
                if self.batch.len() >= MAX_BATCH_BYTES {
                    break Queue::HasMore;
                }
            };
            self.write_batch();
            if queue != Queue::HasMore {
                return queue;
            }
        }
    }

    fn write_batch(&mut self) {
        if self.lines == 0 {
            return;
        }
        let written = match self.sink.write(&self.batch) {
            Ok(()) => self.lines,
            Err(WriteError { written_lines, error }) => {
                self.records.losses.add_write_failed(self.lines.saturating_sub(written_lines), &error);
                written_lines
            }
        };
        self.records.metrics.events.written.inc_by(written);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    HasMore,
    Empty,
    /// All senders are gone.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::domain::names::{StreamId, UserName};
    use crate::events::queue::{CAPACITY, queue};
    use crate::events::record::{Operation, Record};
    use crate::events::settings::Identities;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn dropped_events_leave_a_gap_where_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::default());
        let (sender, receiver) = queue(Arc::new(Metrics::new()), clock.clone());
        let send = || {
            let operation = Operation::Stop(StreamId::random([1; 16]));
            sender.send(Record { now: clock.now(), user: UserName::parse("ann").unwrap(), operation });
        };
        (0..CAPACITY + 3).for_each(|_| send());
        let sink = SinkSettings::File { directory: folder.path().to_owned(), keep_days: 1 };
        let settings = EventSettings { sink, identities: Identities::Omitted };
        let writer = EventWriter::start(&settings, Uuid::nil(), receiver).unwrap();
        let path = folder.path().join("events.1970-01-01.jsonl");
        let sequences = || -> Vec<usize> {
            let text = std::fs::read_to_string(&path).unwrap();
            let sequence = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].clone();
            text.lines().map(|line| sequence(line).as_str().unwrap().parse().unwrap()).collect()
        };
        // The queue has room when the first batch is written.
        while std::fs::metadata(&path).unwrap().len() == 0 {
            thread::yield_now();
        }
        send();
        assert!(writer.shutdown(Duration::from_secs(60)));
        let mut expected: Vec<usize> = (1..=CAPACITY).collect();
        expected.push(CAPACITY + 4);
        assert_eq!(sequences(), expected);
    }
}
