//! Mutants: wrong versions of the protocol, which exist only in these tests. The model, the simulation or both must
//! detect each one.
//!
//! The model applies a mutant in `state_space/mutations.rs`. The simulation applies it to a request
//! (`simulation/faulty_requests.rs`) or to a store operation (`simulation/faulty_store.rs`).

use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::rules::{LimitMode, Rule};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A read-then-start stores the live leases that its query returned as the new members.
    RecountFromQuery,
    /// A start removes a dead member, whose lease has expired, but does not delete the lease in the same transaction.
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
    /// A start to which a rule applies does not read first.
    RuleIgnoredByOptimisticStart,
    /// A rule counts members whose lease has expired.
    RuleCountsDeadLeases,
    /// A rule that counts per label counts all streams that have this label, whatever its value is.
    RuleComparesOnlyNames,
    /// A rule counts the streams that the start should replace.
    RuleCountsReplacedStreams,
    /// A start does not end the streams that it should replace.
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
    /// A request that ends streams does not check that the revision is unchanged.
    EndIgnoresRevision,
    /// A request that sets a limit ends only the streams that exceed the old limit.
    ExcessOverOldLimit,
    /// A request that sets a limit counts dead leases among the streams that exceed the limit.
    ExcessCountsDeadLeases,
    /// A start of a blocked user does not read first. For a user without members, the condition of an optimistic start
    /// holds even if the limit is 0.
    BlockedStartIsOptimistic,
    /// An optimistic start with a limit in its token does not check whether the user is blocked.
    TokenLimitOverridesBlock,
    /// An erasure deletes the counter, and leaves no tombstone.
    ErasureDeletesCounter,
    /// A start does not remove the TTL of a tombstone.
    StartKeepsTombstoneTtl,
    /// TTL deletes a tombstone while requests are in flight that were decided before the erasure.
    TombstoneExpiresEarly,
    /// A tombstone keeps the revision of the counter, and does not increase it.
    TombstoneKeepsRevision,
    /// An erasure deletes only the ended leases that its first query returned.
    ErasureReadsOnce,
    /// An erasure keeps members whose leases were deleted by TTL.
    ErasureKeepsDeadMembers,
    /// After an erasure has ended the user's streams, it also ends the streams that have started since then.
    ErasureEndsAgain,
    /// The last step of an erasure does not check that the revision is unchanged.
    BurialIgnoresRevision,
    /// The last step of an erasure does not check that the stored limit is unchanged.
    BurialIgnoresLimit,
    /// A limit or a rule in observe mode denies a start.
    ObservedLimitDenies,
    /// A limit or a rule in observe mode evicts streams.
    ObservedLimitEvicts,
    /// Each rule has the mode of the user's limit.
    RulesTakeModeOfLimit,
    /// A user in observe mode has no hard limit.
    HardLimitIgnored,
    /// The hard limit evicts streams.
    HardLimitEvicts,
    /// The response does not contain the limits that a start in observe mode exceeds.
    OverLimitNotReported,
}

impl Mutant {
    pub const ALL: [Self; 46] = [
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
        Self::RuleIgnoredByOptimisticStart,
        Self::RuleCountsDeadLeases,
        Self::RuleComparesOnlyNames,
        Self::RuleCountsReplacedStreams,
        Self::StartReplacesNothing,
        Self::StartIgnoresStoredLimit,
        Self::OptimisticStartIgnoresStoredLimit,
        Self::HeartbeatCreatesLease,
        Self::ConflictIsStreamEnded,
        Self::ListIgnoresMembers,
        Self::EndIgnoresRevision,
        Self::ExcessOverOldLimit,
        Self::ExcessCountsDeadLeases,
        Self::BlockedStartIsOptimistic,
        Self::TokenLimitOverridesBlock,
        Self::ErasureDeletesCounter,
        Self::StartKeepsTombstoneTtl,
        Self::TombstoneExpiresEarly,
        Self::TombstoneKeepsRevision,
        Self::ErasureReadsOnce,
        Self::ErasureKeepsDeadMembers,
        Self::ErasureEndsAgain,
        Self::BurialIgnoresRevision,
        Self::BurialIgnoresLimit,
        Self::ObservedLimitDenies,
        Self::ObservedLimitEvicts,
        Self::RulesTakeModeOfLimit,
        Self::HardLimitIgnored,
        Self::HardLimitEvicts,
        Self::OverLimitNotReported,
    ];

    /// Whether the model must detect this mutant. The model does not check the responses to heartbeats and lists, or the limits
    /// that a start reports.
    pub fn is_in_model(self) -> bool {
        !matches!(self, Self::ConflictIsStreamEnded | Self::ListIgnoresMembers | Self::OverLimitNotReported)
    }

    /// Changes the modes of a start. Returns whether the request has changed.
    pub fn change_modes(self, request: &mut StartRequest) -> bool {
        let evicts = request.at_limit == AtLimit::EvictOldest;
        let observes = request.limit_mode == LimitMode::Observe;
        let (limit_mode, mode) = match self {
            Self::ObservedLimitDenies if !evicts => (LimitMode::Enforce, LimitMode::Enforce),
            Self::ObservedLimitEvicts if evicts => (LimitMode::Enforce, LimitMode::Enforce),
            Self::RulesTakeModeOfLimit => (request.limit_mode, request.limit_mode),
            Self::HardLimitIgnored if observes => {
                request.hard_limit = StreamLimit::HIGHEST;
                return true;
            }
            Self::HardLimitEvicts if evicts && observes => {
                (request.limit_mode, request.token_limit) = (LimitMode::Enforce, Some(request.hard_limit));
                return true;
            }
            _ => return false,
        };
        let is_changed = request.limit_mode != limit_mode || request.rules.iter().any(|rule| rule.mode != mode);
        request.limit_mode = limit_mode;
        request.rules = request.rules.iter().map(|rule| Rule { mode, ..rule.clone() }).collect();
        is_changed
    }

    /// Whether the simulation must detect this mutant. The first two excluded mutants cause a violation only if a counter
    /// reaches exactly the revision that a delayed write has read, which is too rare. The last three are visible only in the
    /// model, which records the limits and streams that are newer than the steps of an erasure.
    pub fn is_in_simulation(self) -> bool {
        let is_excluded = matches!(
            self,
            Self::TombstoneExpiresEarly
                | Self::TombstoneKeepsRevision
                | Self::ErasureEndsAgain
                | Self::BurialIgnoresRevision
                | Self::BurialIgnoresLimit
        );
        !is_excluded
    }
}
