//! The storage contract: the trait [`LeaseStore`]. `tests/integration/contract` runs the same tests against every
//! store.
//!
//! Each method except [`LeaseStore::purge`] performs one atomic step. The step is applied ([`Ok`]), not applied
//! ([`StoreError::NotApplied`]), or its outcome is unknown ([`StoreError::Unknown`]). Every method is safe to repeat: a
//! repetition never takes or frees a second slot. If a caller drops a returned future, the step is applied completely
//! or not at all. A denied start is returned as [`Ok`]; an error means that the store failed.

pub mod dynamodb;
pub mod embedded;
pub mod memory;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::admission::end::EndRequest;
use crate::domain::admission::{StartOutcome, StartRequest};
use crate::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{ContentId, StreamId, UserName};

#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Starts a stream, or returns why it cannot start. The rules are in [`crate::domain::admission::decide`].
    ///
    /// `hint` selects whether the store writes without reading first.
    ///
    /// # Effect
    /// Applies the whole admission, including the leases that it ends or deletes, or changes nothing.
    /// # Idempotency
    /// A repetition with the same stream id returns the existing lease and takes no second slot.
    /// # Cancel safety
    /// After a dropped call, the lease is stored completely or not at all; a repetition returns the outcome. A lease
    /// that no player received expires.
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

    /// Extends a live lease to `now` plus the lease duration, and stores the content if the request has one. The expiry
    /// never moves back.
    ///
    /// # Effect
    /// Writes one lease. Does not create a missing lease, and does not change an expired or ended lease. If the lease
    /// already expires at the new expiry or later, writes nothing, and the content stays as it is.
    /// # Idempotency
    /// Repetitions and delayed duplicates never shorten a lease. They return the stored lease.
    /// # Cancel safety
    /// The lease is renewed or unchanged.
    /// # Errors
    /// [`Refusal::Contention`] if a start or a stop changed the same lease at the same time.
    async fn heartbeat(&self, user: &UserName, request: &HeartbeatRequest, now: Timestamp) -> Result<Heartbeat>;

    /// The player's own stop: frees the slot of a stream and deletes its lease.
    ///
    /// # Effect
    /// The stream holds no slot, and no other live stream changes.
    /// # Idempotency
    /// Nothing changes if the stream holds no slot. An ended lease keeps its termination.
    /// # Cancel safety
    /// Either the slot is freed, or the slot and its lease are unchanged.
    /// # Errors
    /// [`Refusal::Contention`] if another request changed the streams of this user at the same time.
    async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop>;

    /// Ends streams of a user, and returns those that were live. The rules are in
    /// [`crate::domain::admission::end::decide_end`].
    ///
    /// # Effect
    /// Either changes nothing, or ends all selected streams and stores the limit of the request, if any, in one step. An ended
    /// lease stays stored until `terms.retention_s` has passed, so that its player can learn the reason. Also deletes the
    /// ended leases that exceed [`crate::domain::admission::MAX_ENDED_LEASES`]. An erasure instead deletes the leases of all
    /// streams at once, so that their heartbeats return [`StreamState::NotFound`].
    /// # Idempotency
    /// A repetition ends no stream twice, and returns only the streams that it ends itself.
    /// # Cancel safety
    /// All changes are applied, or none.
    /// # Errors
    /// [`Refusal::Contention`] if another request changed the streams of this user at the same time. Retry with a new
    /// `now`.
    async fn end(&self, user: &UserName, request: &EndRequest, now: Timestamp) -> Result<Ended>;

    /// The second step of an erasure: deletes everything that is stored about a user, except streams that hold a slot. The
    /// first step is [`LeaseStore::end`] with [`crate::domain::admission::end::Selection::Erase`].
    ///
    /// # Effect
    /// Deletes the ended leases and the stored limit, in several steps. Ends no stream, so streams that start after the
    /// first step stay live. If no stream holds a slot, only the user name and the revision may remain. They expire
    /// after [`TOMBSTONE_S`].
    /// # Idempotency
    /// A repetition completes an incomplete purge. For an unknown user, nothing is stored.
    /// # Cancel safety
    /// Each step is applied completely or not at all. Repeat the call to complete the purge.
    /// # Errors
    /// [`Refusal::Contention`] if another request changed the data of this user at the same time. Retry with a new `now`.
    async fn purge(&self, user: &UserName, now: Timestamp) -> Result<()>;

    /// Reads one stream: live, inactive but still stored, or not found.
    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState>;

    /// Reads the stored limit and the live streams of a user, oldest first. Returns only streams that hold a slot, even
    /// if a start runs concurrently.
    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams>;

    /// Reads the stored limit of a user.
    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>>;

    /// Sets the stored limit of a user, or removes it if `limit` is `None`. The change applies only to later starts and
    /// ends no live stream. Returns the previous stored limit.
    ///
    /// # Idempotency
    /// A repetition changes nothing. The last writer wins.
    /// # Cancel safety
    /// Either the old or the new limit is stored.
    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<Option<StreamLimit>>;
}

/// A store that only this process uses. It can therefore count the live streams of all users. A DynamoDB table can be shared
/// and large, so a count would be expensive.
#[async_trait]
pub trait CountLiveStreams: Send + Sync {
    /// Counts the streams that are live at `now`. Reads in small steps, between which the store executes other requests. A
    /// stream that starts or ends during the count may or may not be included.
    async fn count_live_streams(&self, now: Timestamp) -> Result<u64>;
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// Whether a start reads before it writes. The hint affects the cost, not the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartHint {
    /// Write without reading first: cheaper if the user is below the limit.
    Optimistic,
    /// Read first: cheaper after contention, or if the user is probably at the limit.
    ReadFirst,
}

/// A renewal of one lease.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    pub stream_id: StreamId,
    /// The content that the stream plays now. `None` leaves the stored content.
    pub content_id: Option<ContentId>,
    pub terms: LeaseTerms,
}

/// How long a store keeps the revision of an erased user, in seconds. It is much longer than any request can take. Because
/// of the revision, a delayed write that was decided before the erasure always fails.
pub const TOMBSTONE_S: u32 = 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Freed,
    /// The stream held no slot.
    AlreadyGone,
}

/// The result of ending streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The leases of the ended streams that were live, oldest first, as they were before.
    pub leases: Vec<Lease>,
    /// The stored limit before the step.
    pub previous_limit: Option<StreamLimit>,
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
    /// The last attempt changed nothing. If the SDK retried the call, an earlier attempt may have been applied.
    #[error("not applied ({refusal:?}): {detail}")]
    NotApplied { refusal: Refusal, detail: String },
    /// The step may have been applied, or may be applied later. A repetition returns the outcome.
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

impl Ended {
    /// The ids of the ended streams, oldest first.
    pub fn ids(&self) -> Vec<StreamId> {
        self.leases.iter().map(|lease| lease.stream_id).collect()
    }
}

impl Heartbeat {
    /// The result of a heartbeat that renewed nothing: the lease is not live, or it already expires at the new expiry
    /// or later.
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
