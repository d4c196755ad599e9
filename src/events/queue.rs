//! The bounded queue from the limiter to the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::losses::Losses;
use super::record::Record;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// The maximum number of records in the queue. With an average of half a kilobyte, they take 8 MB.
pub const CAPACITY: usize = 16_384;

/// Puts records into the queue. All workers share the queue.
#[derive(Clone)]
pub struct EventSender {
    queue: SyncSender<Box<Queued>>,
    /// The number of events that were dropped after the last record in the queue.
    dropped: Arc<AtomicU64>,
    losses: Arc<Losses>,
}

/// The end of the queue from which the writer takes the records.
pub struct EventReceiver {
    pub(super) queue: Receiver<Box<Queued>>,
    pub(super) losses: Arc<Losses>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

pub(super) struct Queued {
    pub record: Record,
    /// The number of events between the previous record and this one that did not fit into the queue.
    pub dropped_before: u64,
}

pub fn queue(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> (EventSender, EventReceiver) {
    let (sender, receiver) = sync_channel(CAPACITY);
    let losses = Arc::new(Losses::new(Arc::clone(&metrics), Arc::clone(&clock)));
    let sender = EventSender { queue: sender, dropped: Arc::default(), losses: Arc::clone(&losses) };
    (sender, EventReceiver { queue: receiver, losses, metrics, clock })
}

impl EventSender {
    /// Drops the record if the queue is full. Never waits, and makes no system call unless a drop is logged.
    pub fn send(&self, record: Record) {
        let events = record.events();
        let dropped_before = self.dropped.swap(0, Ordering::Relaxed);
        match self.queue.try_send(Box::new(Queued { record, dropped_before })) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(dropped_before + events, Ordering::Relaxed);
                self.losses.add_queue_full(events);
            }
            Err(TrySendError::Disconnected(_)) => {
                self.losses.add_write_failed(events, &std::io::ErrorKind::BrokenPipe.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::domain::lease::Timestamp;
    use crate::domain::names::{StreamId, UserName};
    use crate::events::record::Operation;

    #[test]
    fn a_full_queue_drops_and_counts_records() {
        let metrics = Arc::new(Metrics::new());
        let (sender, receiver) = queue(Arc::clone(&metrics), Arc::new(SystemClock));
        let record = || Record {
            now: Timestamp::from_epoch_ms(0),
            user: UserName::parse("ann").unwrap(),
            operation: Operation::Erase(vec![StreamId::random([1; 16])]),
        };
        (0..CAPACITY + 3).for_each(|_| sender.send(record()));
        assert_eq!(metrics.events.dropped.queue_full.get(), 3);
        let gaps = |receiver: &EventReceiver| -> Vec<u64> {
            receiver.queue.try_iter().map(|queued| queued.dropped_before).collect()
        };
        assert_eq!(gaps(&receiver), [0; CAPACITY], "the events were dropped after these records");
        (0..2).for_each(|_| sender.send(record()));
        assert_eq!(gaps(&receiver), [3, 0]);
        drop(receiver);
        sender.send(record());
        assert_eq!(metrics.events.dropped.write_failed.get(), 1, "the writer has ended");
    }
}
