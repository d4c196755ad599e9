//! Looks up whether the lease of a grant is live and plays the grant's content, at most once per second, stream and content. Each
//! worker has its own results, because it has its own connections to the store.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::Grant;
use crate::clock::Clock;
use crate::domain::lease::Lease;
use crate::domain::names::{DisplayText, StreamId, UserName};
use crate::limiter::Limiter;
use crate::store::{Result, StreamState};

/// Maximum number of remembered results. The entries take at most 8 MB.
const MAX_RESULTS: usize = 20_000;

pub(crate) struct LiveLeases {
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    /// A result is used only in the second in which it was read, which is part of its key. So is the content: a grant for new content
    /// must not get the result of the previous one.
    results: Cache<(UserName, StreamId, Option<String>, u64), bool>,
}

impl LiveLeases {
    pub(crate) fn new(limiter: Arc<Limiter>, clock: Arc<dyn Clock>) -> Self {
        Self { limiter, clock, results: Cache::new(MAX_RESULTS) }
    }

    /// Whether the stream is live and plays the content of the grant. Without this, one stream could get grants for several titles
    /// by changing its content back and forth. Concurrent requests for the same stream and content share one read.
    ///
    /// # Errors
    /// The store failed. Failures are not remembered.
    pub(crate) async fn is_live(&self, user: UserName, grant: &Grant) -> Result<bool> {
        let key = (user, grant.stream_id, grant.content.clone(), self.clock.monotonic().as_secs());
        let read = async {
            let state = self.limiter.stream(&key.0, grant.stream_id).await?.value;
            let plays =
                |lease: &Lease| lease.content_id.as_ref().map(DisplayText::as_str) == grant.content.as_deref();
            Ok(matches!(state, StreamState::Live(lease) if plays(&lease)))
        };
        self.results.get_or_insert_async(&key, read).await
    }
}
