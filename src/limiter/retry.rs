//! Retries contention and throttled transactions.

use super::random::Random;
use crate::clock::Clock;
use crate::domain::lease::Timestamp;
use crate::store::{Refusal, Result, StartHint, StoreError};
use crate::telemetry::metrics::Metrics;

/// Attempts per operation, for contention and throttled transactions together.
const MAX_ATTEMPTS: u32 = 5;
/// The wait after the n-th attempt is random, at most this value × 2ⁿ.
const CONTENTION_BACKOFF_MS: u64 = 20;
/// The same for throttled transactions. It is longer, so that the table can recover.
const THROTTLING_BACKOFF_MS: u64 = 50;

/// A value and the time at which it was read or decided.
#[derive(Clone, Debug)]
pub struct Timestamped<T> {
    pub now: Timestamp,
    pub value: T,
}

/// Runs `attempt` until it succeeds, fails with an error that is not retried, or reaches [`MAX_ATTEMPTS`]. Each attempt
/// gets a new `now`.
///
/// Retries only contention and throttled transactions, because the SDK does not retry these. The SDK has already retried
/// all other transient errors, so another retry would multiply the attempts. After throttling, the hint stays optimistic,
/// so that the retry of a start adds no reads.
pub(super) async fn retry<T, F>(
    clock: &dyn Clock,
    random: &Random,
    metrics: &Metrics,
    attempt: impl Fn(StartHint, Timestamp) -> F,
) -> Result<Timestamped<T>>
where
    F: Future<Output = Result<T>>,
{
    let mut hint = StartHint::Optimistic;
    let mut tries = 1;
    loop {
        let now = clock.now();
        let error = match attempt(hint, now).await {
            Ok(value) => return Ok(Timestamped { now, value }),
            Err(error) => error,
        };
        let backoff_ms = match error {
            _ if tries == MAX_ATTEMPTS => return Err(error),
            StoreError::NotApplied { refusal: Refusal::Contention, .. } => {
                metrics.contention.inc();
                hint = StartHint::ReadFirst;
                CONTENTION_BACKOFF_MS
            }
            StoreError::NotApplied { refusal: Refusal::ThrottledTransaction, .. } => THROTTLING_BACKOFF_MS,
            _ => return Err(error),
        };
        tokio::time::sleep(random.jitter(backoff_ms << tries)).await;
        tries += 1;
    }
}
