//! Mutants: wrong versions of the protocol, which exist only in these tests. The searches must detect each one.
//!
//! The model applies a mutant in `state_space/mutations.rs`. The simulation applies it to a request
//! (`simulation/faulty_requests.rs`) or to a store operation (`simulation/faulty_store.rs`).

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A read-then-start replaces the members with the live leases that its query returned.
    RecountFromQuery,
    /// A start removes a dead member, but does not delete its lease in the same transaction.
    RemoveMemberWithoutDelete,
    /// A start deletes the lease of a dead member without checking that the lease is still dead.
    DeleteDeadUnconditionally,
    /// A heartbeat renews an ended lease.
    HeartbeatIgnoresEviction,
    /// A heartbeat renews an expired lease.
    HeartbeatRenewsExpired,
    /// A heartbeat can move the expiry to an earlier time.
    HeartbeatMovesExpiryBack,
    /// A read-then-start does not check that the revision is unchanged.
    StartIgnoresRevision,
    /// An optimistic start does not increment the revision.
    OptimisticStartKeepsRevision,
    /// A new lease overwrites a stored lease with the same id.
    PutWithoutCondition,
    /// A start or eviction marks a lease as ended without checking that the lease is stored.
    MarkMissingLease,
    /// Every attempt of a start with an idempotency key uses a new stream id.
    KeyedRetryCreatesSecondLease,
    /// A start returns a denial after a transaction conflict.
    ConflictIsDenial,
    /// A start returns a denial after a lost response.
    LostResponseIsDenial,
    /// A start treats an unknown outcome as not applied, and retries with a new stream id.
    UnknownOutcomeIsNotApplied,
    /// A start that evicts frees the slot in one transaction and takes it in a second one.
    EvictionInTwoTransactions,
    /// Members whose lease is missing or expired keep their slots.
    DeadLeasesKeepSlots,
    /// A start does not end the streams that it replaces.
    StartReplacesNothing,
    /// A read-then-start does not check that the stored limit is unchanged.
    StartIgnoresStoredLimit,
    /// An optimistic start uses the default limit although the user has a stored limit.
    OptimisticStartIgnoresStoredLimit,
    /// A heartbeat creates a lease that is not stored.
    HeartbeatCreatesLease,
    /// A heartbeat returns "not found" after a conflict.
    ConflictIsStreamEnded,
    /// A list contains live leases that are not members.
    ListIgnoresMembers,
}

impl Mutant {
    pub const ALL: [Self; 22] = [
        Self::RecountFromQuery,
        Self::RemoveMemberWithoutDelete,
        Self::DeleteDeadUnconditionally,
        Self::HeartbeatIgnoresEviction,
        Self::HeartbeatRenewsExpired,
        Self::HeartbeatMovesExpiryBack,
        Self::StartIgnoresRevision,
        Self::OptimisticStartKeepsRevision,
        Self::PutWithoutCondition,
        Self::MarkMissingLease,
        Self::KeyedRetryCreatesSecondLease,
        Self::ConflictIsDenial,
        Self::LostResponseIsDenial,
        Self::UnknownOutcomeIsNotApplied,
        Self::EvictionInTwoTransactions,
        Self::DeadLeasesKeepSlots,
        Self::StartReplacesNothing,
        Self::StartIgnoresStoredLimit,
        Self::OptimisticStartIgnoresStoredLimit,
        Self::HeartbeatCreatesLease,
        Self::ConflictIsStreamEnded,
        Self::ListIgnoresMembers,
    ];

    /// Whether the model must detect this mutant. The model does not check the responses to heartbeats and lists.
    pub fn is_in_model(self) -> bool {
        !matches!(self, Self::ConflictIsStreamEnded | Self::ListIgnoresMembers)
    }
}
