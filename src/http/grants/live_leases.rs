//! Looks up whether the lease of a grant is live, at most once per second and stream. Each worker has its own results, because it
//! has its own connections to the store.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::clock::Clock;
use crate::domain::names::{StreamId, UserName};
use crate::limiter::Limiter;
use crate::store::{Result, StreamState};

/// Maximum number of remembered results. The entries take at most 8 MB.
const MAX_RESULTS: usize = 20_000;

pub(crate) struct LiveLeases {
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    /// A result is used only in the second in which it was read, which is part of its key.
    results: Cache<(UserName, StreamId, u64), bool>,
}

impl LiveLeases {
    pub(crate) fn new(limiter: Arc<Limiter>, clock: Arc<dyn Clock>) -> Self {
        Self { limiter, clock, results: Cache::new(MAX_RESULTS) }
    }

    /// Concurrent requests for the same stream share one read.
    ///
    /// # Errors
    /// The store failed. Failures are not remembered.
    pub(crate) async fn is_live(&self, user: UserName, stream_id: StreamId) -> Result<bool> {
        let key = (user, stream_id, self.clock.monotonic().as_secs());
        let read = async {
            let state = self.limiter.stream(&key.0, stream_id).await?.value;
            Ok(matches!(state, StreamState::Live(_)))
        };
        self.results.get_or_insert_async(&key, read).await
    }
}
