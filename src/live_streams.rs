//! Keeps the gauge of live streams up to date. Used only if this process holds all streams.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::debug;

use crate::clock::Clock;
use crate::store::CountLiveStreams;
use crate::telemetry::live_streams_gauge::LiveStreamsGauge;

/// The pause after a count, as a multiple of its duration. Counting therefore takes at most 1/20 of the time, however many streams
/// are live and however often Prometheus scrapes.
const PAUSE_FACTOR: u32 = 19;

/// How long a scrape waits for a count. A longer count continues after the scrape, which returns the previous count.
const MAX_WAIT: Duration = Duration::from_secs(1);

pub struct LiveStreams {
    store: Arc<dyn CountLiveStreams>,
    clock: Arc<dyn Clock>,
    gauge: Arc<LiveStreamsGauge>,
    /// The earliest time of the next count, on the monotonic clock.
    next_count: Arc<Mutex<Duration>>,
}

impl LiveStreams {
    pub fn new(store: Arc<dyn CountLiveStreams>, clock: Arc<dyn Clock>, gauge: Arc<LiveStreamsGauge>) -> Arc<Self> {
        Arc::new(Self { store, clock, gauge, next_count: Arc::default() })
    }

    /// Counts the live streams, unless the last count was too recent.
    pub async fn refresh(self: &Arc<Self>) {
        let count = async {
            // Waits for the lock here and not in the task. Otherwise, each scrape during a long count would leave a waiting task.
            let next_count = Arc::clone(&self.next_count).lock_owned().await;
            tokio::spawn(Arc::clone(self).count(next_count)).await
        };
        _ = tokio::time::timeout(MAX_WAIT, count).await;
    }

    async fn count(self: Arc<Self>, mut next_count: OwnedMutexGuard<Duration>) {
        let began = self.clock.monotonic();
        if began < *next_count {
            return;
        }
        match self.store.count_live_streams(self.clock.now()).await {
            Ok(live) => self.gauge.set(Some(live)),
            Err(error) => {
                debug!(%error, "cannot count the live streams");
                self.gauge.set(None);
            }
        }
        let ended = self.clock.monotonic();
        *next_count = ended + PAUSE_FACTOR * ended.saturating_sub(began);
    }
}
