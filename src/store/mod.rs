//! The storage contract: the trait [`LeaseStore`]. `tests/integration/contract` runs the same tests against every
//! store.
//!
//! Each method is one atomic step at the instant `now`. It was applied ([`Ok`]), it was not applied
//! ([`StoreError::NotApplied`]), or the outcome is unknown ([`StoreError::Unknown`]). Every method may be repeated; a
//! repetition never takes or frees a second slot. A caller that drops a returned future leaves the step applied or
//! not applied, never half applied. Denials are returned as [`Ok`]; an error means that the store failed.

pub mod dynamodb;
pub mod embedded;
pub mod memory;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::admission::{StartOutcome, StartRequest};
use crate::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};

#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Starts a stream, or returns why it may not start. [`crate::domain::admission::decide`] has the rules.
    ///
    /// `hint` says whether to write without reading first.
    ///
    /// # Effect
    /// The whole admission, including the leases that it ends or deletes, or nothing.
    /// # Idempotency
    /// A repetition with the same stream id returns the existing lease and takes no second slot.
    /// # Cancel safety
    /// A dropped call leaves a complete lease or none; a repetition shows which. A lease that no player received
    /// expires.
    /// # Errors
    /// [`Refusal::Contention`] if another request changed the streams of this user at the same time. Retry with a new
    /// `now`.
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        hint: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome>;

    /// Renews a live lease until `now` plus the lease duration. The expiry never moves back.
    ///
    /// # Effect
    /// One write to one lease. A missing, expired or ended lease does not change.
    /// # Idempotency
    /// Repetitions and delayed duplicates never shorten a lease. They return the stored lease.
    /// # Cancel safety
    /// The lease is renewed or unchanged.
    /// # Errors
    /// [`Refusal::Contention`] if a start or a stop changed the same lease at the same time.
    async fn heartbeat(
        &self,
        user: &UserName,
        stream_id: StreamId,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Heartbeat>;

    /// Frees the slot of a stream. The player's own stop deletes the lease. An eviction keeps it as ended until
    /// `terms.retention_s` has passed, so that the player can learn the reason.
    ///
    /// # Effect
    /// The stream holds no slot, and no other live stream changes. An eviction also deletes ended leases beyond
    /// [`crate::domain::admission::MAX_ENDED_LEASES`]. This may happen in a second step, which a store failure can
    /// skip.
    /// # Idempotency
    /// Nothing changes if the stream holds no slot. An ended lease keeps its termination.
    /// # Cancel safety
    /// The slot is free, or it is held with its lease.
    /// # Errors
    /// [`Refusal::Contention`] if another request changed the streams of this user at the same time.
    async fn stop(
        &self,
        user: &UserName,
        stream_id: StreamId,
        by: StoppedBy,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Stop>;

    /// Reads one stream: live, inactive but still stored, or not found.
    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState>;

    /// Reads the stored limit and the live streams of a user, oldest first. Never returns more streams than were
    /// admitted.
    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams>;

    /// Reads the stored limit of a user.
    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>>;

    /// Sets the stored limit of a user, or removes it if `limit` is `None`. It applies to later starts and ends no
    /// stream.
    ///
    /// # Idempotency
    /// A repetition changes nothing. The last writer wins.
    /// # Cancel safety
    /// The stored limit is the old one or the new one.
    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()>;
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// How a start begins. It affects the cost, not the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartHint {
    /// Write without reading first: cheaper if the user is below the limit.
    Optimistic,
    /// Read first: cheaper after contention, or if the user is probably at the limit.
    ReadFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// The player of the stream.
    Player,
    /// Another device of the user, or support.
    Evictor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Freed,
    /// The stream held no slot.
    AlreadyGone,
}

/// The result of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub state: StreamState,
    /// The expiry before the renewal. `None` if the heartbeat did not renew the lease.
    pub previous_expiry: Option<Timestamp>,
}

/// The state of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    Live(Lease),
    /// Expired or ended, but still stored.
    Inactive(Lease),
    NotFound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserStreams {
    pub stored_limit: Option<StreamLimit>,
    /// The live streams, oldest first.
    pub live: Vec<Lease>,
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// This attempt changed nothing. An earlier attempt of the same call, before an SDK retry, may have been applied.
    #[error("not applied ({refusal:?}): {detail}")]
    NotApplied { refusal: Refusal, detail: String },
    /// The step may have been applied, or may still be applied. A repetition returns the outcome.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// A stored item does not have the format that this service writes.
    #[error("stored item {key} is not valid: {problem}")]
    Corrupt { key: String, problem: String },
}

/// Why the store did not apply a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another request changed the same items at the same time.
    Contention,
    /// The store throttled the request. The SDK has already retried it.
    Throttled,
    /// The store cancelled the transaction because of throttling. The SDK does not retry cancelled transactions.
    ThrottledTransaction,
    /// The store rejects the request: the table is missing, access is denied, or the request is invalid.
    Rejected,
}

impl Heartbeat {
    /// A heartbeat that renewed nothing: the lease is not live, or it already expires at least as late.
    pub fn without_renewal(state: StreamState) -> Self {
        Self { state, previous_expiry: None }
    }
}

impl StreamState {
    pub(crate) fn of(stored: Option<Lease>, now: Timestamp) -> Self {
        match stored {
            None => Self::NotFound,
            Some(lease) if lease.is_live_at(now) => Self::Live(lease),
            Some(lease) => Self::Inactive(lease),
        }
    }
}

impl StoreError {
    pub(crate) fn contention(detail: impl Into<String>) -> Self {
        Self::NotApplied { refusal: Refusal::Contention, detail: detail.into() }
    }
}
