//! Mutants: wrong versions of the protocol that the searches must detect. The product contains none of them.
//!
//! The model applies a mutant in `state_space/mutations.rs`. The simulation applies it to a request
//! (`simulation/faulty_requests.rs`) or to a store operation (`simulation/faulty_store.rs`).

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A read-then-start stores the leases that its query returned as the members.
    RecountFromQuery,
    /// A start removes a dead member but does not delete its lease in the same transaction.
    RemoveMemberWithoutDelete,
    /// A start deletes the lease of a dead member without checking that it is still dead.
    DeleteDeadUnconditionally,
    /// A heartbeat renews an ended lease.
    HeartbeatIgnoresEviction,
    /// A heartbeat renews an expired lease.
    HeartbeatRenewsExpired,
    /// A heartbeat can move the expiry back.
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
    /// A start that meets a transaction conflict returns a denial.
    ConflictIsDenial,
    /// A start whose response is lost returns a denial.
    LostResponseIsDenial,
    /// A start with an unknown outcome counts as not applied and is retried with a new stream id.
    UnknownOutcomeIsNotApplied,
    /// An eviction frees the slot in one transaction and takes it in another.
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
    /// A heartbeat that meets a conflict returns "not found".
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

    /// The model checks starts and items. It does not check the responses to heartbeats and lists.
    pub fn is_in_model(self) -> bool {
        !matches!(self, Self::ConflictIsStreamEnded | Self::ListIgnoresMembers)
    }
}
