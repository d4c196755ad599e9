//! What can go wrong, by name: each rule that the oracle holds the service to.

use std::fmt;

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    OverLimit,
    Uncounted,
    TakenEarly,
    MembershipUnexplained,
    AppearedFromNowhere,
    CameBack,
    RenewedAfterExpiry,
    ExpiryMovedBack,
    EvictedWithoutNeed,
    NotReplaced,
    HalfDone,
    SecondStream,
    NotAnItem,
    DenialUnfounded,
    EndingUnfounded,
    SuccessUnfounded,
    ListUnfounded,
    Stuck,
    ClockIgnored,
    /// The store was asked for something that it cannot do: a mistake of the simulation itself.
    Misasked,
}

impl Rule {
    pub fn broken(self, what: impl Into<String>) -> Violation {
        Violation { rule: self, what: what.into() }
    }

    fn says(self) -> &'static str {
        match self {
            Self::OverLimit => "a step left more leases that can be renewed than the limit in force",
            Self::Uncounted => "a lease that nobody ended is not in the counter's set",
            Self::TakenEarly => "a lease was taken, or ended, without a reason and before its expiry",
            Self::MembershipUnexplained => "the counter's set or the user's limit changed without a reason",
            Self::AppearedFromNowhere => "a lease appeared that no start put there",
            Self::CameBack => "a lease that was ended was renewed, overwritten or changed",
            Self::RenewedAfterExpiry => "a lease that had expired was renewed",
            Self::ExpiryMovedBack => "a lease's expiry moved back, or its TTL lies before its expiry",
            Self::EvictedWithoutNeed => "a start evicted more than it needed, or not the oldest",
            Self::NotReplaced => "a start left a live stream beside it that it was to replace",
            Self::HalfDone => "a lease was ended by a start that was not admitted in the same step",
            Self::SecondStream => "one start, or one key, made two streams",
            Self::NotAnItem => "something is stored that this service does not write",
            Self::DenialUnfounded => "a start was denied, and at no instant of the call was the user at the limit",
            Self::EndingUnfounded => "a stream was said to be over, and at no instant of the call was it",
            Self::SuccessUnfounded => "a success was answered, and at no instant of the call was it so",
            Self::ListUnfounded => "a list showed what was stored at no instant of the call",
            Self::Stuck => "with all expired and no fault left, a user could not start exactly as many as the limit",
            Self::ClockIgnored => "an instant was claimed that the instance's clock did not show during the call",
            Self::Misasked => "the store was asked for something that it cannot do",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.rule, self.rule.says(), self.what)
    }
}
