//! Events that the exploration counts. If an event never occurs, the model did not check that case.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    OptimisticStart,
    ReadThenStart,
    DeadLeaseDeleted,
    DeadMemberRemoved,
    StreamEnded,
    Denied,
    Existing,
    EndedReturned,
    Conflict,
    GuardFailed,
    DeadConditionFailed,
    StaleRead,
    ResponseLost,
    LateRequestApplied,
    Renewed,
    Stopped,
    TtlDeleted,
    LimitSet,
}

impl Event {
    pub const ALL: [Self; Self::COUNT] = [
        Self::OptimisticStart,
        Self::ReadThenStart,
        Self::DeadLeaseDeleted,
        Self::DeadMemberRemoved,
        Self::StreamEnded,
        Self::Denied,
        Self::Existing,
        Self::EndedReturned,
        Self::Conflict,
        Self::GuardFailed,
        Self::DeadConditionFailed,
        Self::StaleRead,
        Self::ResponseLost,
        Self::LateRequestApplied,
        Self::Renewed,
        Self::Stopped,
        Self::TtlDeleted,
        Self::LimitSet,
    ];
    pub const COUNT: usize = 18;
}
