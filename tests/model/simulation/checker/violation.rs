//! The violations that the checks report.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: ViolationKind,
    pub details: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    OverLimit,
    OverRule,
    NotCounted,
    TakenEarly,
    UnexplainedMembership,
    UnexplainedLease,
    EndedLeaseChanged,
    ExpiredRenewed,
    ExpiryMovedBack,
    UnneededEviction,
    NotEnded,
    NotErased,
    CounterLost,
    NotPermanent,
    NotReplaced,
    PartialStart,
    DuplicateStream,
    InvalidItem,
    UnfoundedDenial,
    UnfoundedEnd,
    UnfoundedSuccess,
    UnfoundedList,
    WrongReport,
    Stuck,
    WrongTime,
    /// A bug in the simulation, not in the service.
    InvalidRequest,
}

impl ViolationKind {
    pub fn with(self, details: impl Into<String>) -> Violation {
        Violation { kind: self, details: details.into() }
    }

    fn description(self) -> &'static str {
        match self {
            Self::OverLimit => "a write left more renewable leases than the limit",
            Self::OverRule => "a write left more renewable leases than a rule allows",
            Self::NotCounted => "a lease that was not ended is missing from the counter",
            Self::TakenEarly => "a lease was deleted, ended or overwritten before its expiry without a reason",
            Self::UnexplainedMembership => "the members or the stored limit changed without a reason",
            Self::UnexplainedLease => "a lease appeared without a start",
            Self::EndedLeaseChanged => "an ended lease was renewed, overwritten or changed",
            Self::ExpiredRenewed => "an expired lease was renewed",
            Self::ExpiryMovedBack => "an expiry moved back, or the TTL of a lease is before its expiry",
            Self::UnneededEviction => "more streams were evicted than needed, or not the first in eviction order",
            Self::NotEnded => "a request left a stream that it should have ended",
            Self::NotErased => "an erasure was reported as complete, but left data of the user",
            Self::CounterLost => "a counter was deleted, but not by the TTL of a tombstone",
            Self::NotPermanent => "a counter with members or a limit has a TTL",
            Self::NotReplaced => "a start left a live stream that it replaces",
            Self::PartialStart => "a lease was ended by a start that was not admitted in the same step",
            Self::DuplicateStream => "one start, or one idempotency key, created two streams",
            Self::InvalidItem => "an item is stored that the service never writes",
            Self::UnfoundedDenial => "a start was denied, but the user was never at the limit during the call",
            Self::UnfoundedEnd => "a stream was reported as ended, but was live during the whole call",
            Self::UnfoundedSuccess => "a success was reported that was true at no moment of the call",
            Self::UnfoundedList => "a list or limit was returned that was true at no moment of the call",
            Self::WrongReport => {
                "a start reported a limit in observe mode that it does not exceed, or did not report one"
            }
            Self::Stuck => {
                "after all faults and leases ended, a user could not start exactly as many streams as allowed"
            }
            Self::WrongTime => "a request used a time that the instance's clock did not show during the call",
            Self::InvalidRequest => "the store rejected a request as invalid",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.kind, self.kind.description(), self.details)
    }
}
