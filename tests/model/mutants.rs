//! Wrong versions of the protocol, by name. Each is a switch of the model or of the simulation; the product has none.
//! The simulation makes them in `mutations.rs` (requests) and `wrong.rs` (a store around the right one).

/// What is done wrong. Most of them are mistakes that a reader would find plausible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A deciding start writes as members the leases that its query showed, not the members without the dead.
    RecountFromQuery,
    /// A dead member goes off the counter, and its lease is not deleted in the same transaction.
    UncountWithoutDelete,
    /// A dead member's lease is deleted whether it is still dead or not.
    DeleteDeadUnconditionally,
    /// A heartbeat renews a lease that was ended.
    HeartbeatIgnoresEviction,
    /// A heartbeat renews a lease that has expired.
    HeartbeatRevivesExpired,
    /// A heartbeat may move the expiry back.
    HeartbeatNotMonotone,
    /// A deciding start writes whatever the counter's revision is by then.
    StartIgnoresRevision,
    /// A plain start leaves the revision as it is.
    PlainStartKeepsRevision,
    /// A new lease overwrites whatever is stored under its id.
    PutWithoutCondition,
    /// An ended lease is marked whether it is still there or not.
    MarkWithoutLease,
    /// Every attempt of a keyed start draws an id of its own.
    KeyedRetryMakesSecondLease,
    /// A conflict is answered as a denial.
    ConflictIsDenial,
    /// An answer that was lost is answered as a denial.
    LostAnswerIsDenial,
    /// An error of unknown outcome counts as "not applied": the start begins anew under another id.
    UnknownIsNotApplied,
    /// What makes room is ended in one transaction, and the room taken in a second one.
    EvictionFreesFirst,
    /// Members whose leases are missing or expired keep their slots.
    DeadHoldTheirSlots,
    /// A start leaves alone the stream of its device, and those that it is to replace.
    DeviceIgnored,
    /// A deciding start does not mind that the user's own limit has changed since its read.
    StartIgnoresOwnLimit,
    /// A plain start goes by the default limit, whatever the user's own one is.
    PlainStartIgnoresOwnLimit,
    /// A heartbeat for a lease that is not stored makes one.
    HeartbeatCreates,
    /// A heartbeat that meets a conflict is told that its stream is gone.
    ConflictIsEnding,
    /// A list shows every live lease, whether it is a member or not.
    ListWithoutCounter,
}

impl Mutant {
    /// The model judges starts and items; answers to heartbeats and lists it does not give.
    pub fn is_of_the_model(self) -> bool {
        !matches!(self, Self::ConflictIsEnding | Self::ListWithoutCounter)
    }

    pub const ALL: [Self; 22] = [
        Self::RecountFromQuery,
        Self::UncountWithoutDelete,
        Self::DeleteDeadUnconditionally,
        Self::HeartbeatIgnoresEviction,
        Self::HeartbeatRevivesExpired,
        Self::HeartbeatNotMonotone,
        Self::StartIgnoresRevision,
        Self::PlainStartKeepsRevision,
        Self::PutWithoutCondition,
        Self::MarkWithoutLease,
        Self::KeyedRetryMakesSecondLease,
        Self::ConflictIsDenial,
        Self::LostAnswerIsDenial,
        Self::UnknownIsNotApplied,
        Self::EvictionFreesFirst,
        Self::DeadHoldTheirSlots,
        Self::DeviceIgnored,
        Self::StartIgnoresOwnLimit,
        Self::PlainStartIgnoresOwnLimit,
        Self::HeartbeatCreates,
        Self::ConflictIsEnding,
        Self::ListWithoutCounter,
    ];
}
