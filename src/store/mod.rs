//! Where leases live: the one storage trait, as a contract that `tests/integration/contract.rs` executes against every store.
//!
//! Each method is one atomic step at the instant `now`: it happened ([`Ok`]), it did not
//! ([`StoreError::NotApplied`]), or nobody can tell ([`StoreError::Unknown`]). Every method may be repeated; a
//! repetition never takes or frees a second slot. Dropping a returned future leaves the step done or not done, never
//! half done. Refusals are answers; an error means that storage failed.

pub mod dynamodb;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod memory;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::admission::{StartOutcome, StartRequest};
use crate::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};

#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Grants a slot, or says why not, by the rules of [`crate::domain::admission::decide`].
    ///
    /// `hint`: whether to write without reading first.
    ///
    /// # Effect
    /// One admission with all that it ends and reaps, or nothing.
    /// # Idempotency
    /// Repeating with the same stream id answers the lease of the first time and takes no second slot.
    /// # Cancel safety
    /// A dropped call leaves a whole lease or none; a repetition tells which. A lease that nobody heard of runs out.
    /// # Errors
    /// [`Refusal::Contention`] when others changed this user's streams meanwhile: worth another try with a new `now`.
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        hint: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome>;

    /// Moves the expiry of a live lease forward to `now` plus the lease's duration, never back.
    ///
    /// # Effect
    /// One write to one lease. A lease that is missing, expired or ended stays as it is.
    /// # Idempotency
    /// Repetitions and late duplicates never shorten a lease: they answer what is stored.
    /// # Cancel safety
    /// The lease is renewed or not.
    /// # Errors
    /// [`Refusal::Contention`] when it met a start or a stop of the same lease.
    async fn heartbeat(
        &self,
        user: &UserName,
        stream_id: StreamId,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Heartbeat>;

    /// Frees the slot of a stream. Its own stop forgets the lease; an eviction keeps it, marked, until
    /// `terms.retention_s` has passed, so that its player can learn what happened.
    ///
    /// # Effect
    /// The stream holds no slot; no other live stream is touched. An eviction also forgets what was ended before, by the
    /// rule of [`crate::domain::admission::pruned_by_eviction`]; that may come after it, or if storage fails, not at all.
    /// # Idempotency
    /// A stream that holds no slot is left as it is, and an ended one keeps its mark.
    /// # Cancel safety
    /// The slot is free or held, never counted without its lease.
    /// # Errors
    /// [`Refusal::Contention`] when others changed this user's streams meanwhile.
    async fn stop(
        &self,
        user: &UserName,
        stream_id: StreamId,
        by: StoppedBy,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Stop>;

    /// One stream, as it is stored: missing, live, or over and not yet deleted. Reads only.
    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState>;

    /// The live streams of a user, oldest first, never more than were admitted, and the user's own limit. Reads only.
    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams>;

    /// The user's own limit. Reads only.
    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>>;

    /// Sets the user's own limit, or with `None` removes it. Ends nobody; the next start is decided by it.
    ///
    /// # Idempotency
    /// Repeating it changes nothing; the last writer wins.
    /// # Cancel safety
    /// The limit is the old or the new one.
    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()>;
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// How a start begins. The result is the same; only the cost differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartHint {
    /// Write without reading first: cheaper when the user is below the limit.
    Optimistic,
    /// Read first: cheaper when the user is probably at the limit, or after a conflict.
    ReadFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// The stream's own player.
    Player,
    /// Another device of the user, or support.
    Evictor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Freed,
    /// It held no slot.
    AlreadyGone,
}

/// What a heartbeat found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub state: StreamState,
    /// When the lease would have run out, if this heartbeat renewed it: how late it came.
    pub previous_expiry: Option<Timestamp>,
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    Live(Lease),
    /// Expired or ended, and still stored.
    Inactive(Lease),
    NotFound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserStreams {
    pub own_limit: Option<StreamLimit>,
    pub live: Vec<Lease>,
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// This attempt changed nothing.
    #[error("not applied ({refusal:?}): {detail}")]
    NotApplied { refusal: Refusal, detail: String },
    /// It may have happened and may still happen; only a repetition can tell.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// What is stored is not what this service writes.
    #[error("stored item {key} is not valid: {problem}")]
    Corrupt { key: String, problem: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Others changed the same items: worth another try.
    Contention,
    /// The store asks for fewer requests.
    Throttled,
    /// The store understood the request and will not do it (no such table, no permission).
    Rejected,
}

impl Heartbeat {
    /// One that renewed nothing: the lease is gone, or runs as long already.
    pub fn without_renewal(state: StreamState) -> Self {
        Self { state, previous_expiry: None }
    }
}

impl StreamState {
    pub fn of(stored: Option<Lease>, now: Timestamp) -> Self {
        match stored {
            None => Self::NotFound,
            Some(lease) if lease.is_live_at(now) => Self::Live(lease),
            Some(lease) => Self::Inactive(lease),
        }
    }
}

impl StoreError {
    pub fn contention(detail: impl Into<String>) -> Self {
        Self::NotApplied { refusal: Refusal::Contention, detail: detail.into() }
    }
}
