//! What the players of one thread share, and how they wait for the time at which something is due. Knows no rule.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connections::Connections;
use crate::measurements::Measurements;
use crate::options::Options;

/// A timer of tokio fires up to two milliseconds late; that is the tool's, and not counted as waiting.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What the players of one thread have in common.
pub struct World {
    pub options: Arc<Options>,
    pub connections: Connections,
    pub measurements: RefCell<Measurements>,
    pub live: Arc<Live>,
    pub end: CancellationToken,
    pub until: Instant,
    /// Begins the names of users, so that runs do not meet.
    pub run: String,
}

/// What the progress bar shows.
#[derive(Default)]
pub struct Live {
    pub answers: AtomicU64,
    pub failures: AtomicU64,
    pub denials: AtomicU64,
    pub playing: AtomicI64,
}

impl World {
    pub fn user_name(run: &str, user: usize) -> String {
        format!("{run}-{user}")
    }

    /// Until a request is due, and since when it is; nothing once the run is over.
    pub async fn wait(&self, due: Instant) -> Option<Instant> {
        let now = Instant::now();
        if now >= self.until || self.end.is_cancelled() {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        tokio::select! {
            biased;
            () = self.end.cancelled() => return None,
            () = tokio::time::sleep_until(due.min(self.until)) => {}
        }
        if due >= self.until {
            return None;
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        self.measurements.borrow_mut().woke_late(late);
        Some(if late <= TIMER_GRAIN { now } else { due })
    }
}
