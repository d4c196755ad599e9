//! The bounded queue from the limiter to the writer.

use std::sync::Arc;
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
    queue: SyncSender<Box<Record>>,
    losses: Arc<Losses>,
}

/// The end of the queue from which the writer takes the records.
pub struct EventReceiver {
    pub(super) queue: Receiver<Box<Record>>,
    pub(super) losses: Arc<Losses>,
    pub(super) metrics: Arc<Metrics>,
}

pub fn queue(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> (EventSender, EventReceiver) {
    let (sender, receiver) = sync_channel(CAPACITY);
    let losses = Arc::new(Losses::new(Arc::clone(&metrics), clock));
    (EventSender { queue: sender, losses: Arc::clone(&losses) }, EventReceiver { queue: receiver, losses, metrics })
}

impl EventSender {
    /// Drops the record if the queue is full. Never waits, and makes no system call unless a drop is logged.
    pub fn send(&self, record: Record) {
        let events = record.events();
        match self.queue.try_send(Box::new(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.losses.add_queue_full(events),
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
        let stop = || Record {
            now: Timestamp::from_epoch_ms(0),
            user: UserName::parse("ann").unwrap(),
            operation: Operation::Erase(vec![StreamId::random([1; 16])]),
        };
        (0..CAPACITY + 3).for_each(|_| sender.send(stop()));
        assert_eq!((receiver.losses.queue_full(), metrics.events.dropped.queue_full.get()), (3, 3));
        assert_eq!(receiver.queue.try_iter().count(), CAPACITY);
        drop(receiver);
        sender.send(stop());
        assert_eq!(metrics.events.dropped.write_failed.get(), 1, "the writer has ended");
    }
}
