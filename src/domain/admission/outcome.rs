//! The outcomes of a start.

use crate::domain::lease::{EndReason, Lease, StreamLimit, Timestamp, UserLimit};
use crate::domain::names::StreamId;
use crate::domain::rules::RuleName;

/// The outcome of a start. A denial is an outcome, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    Started(Started),
    /// The start was admitted earlier, and its lease is live.
    Existing(Started),
    /// The start was admitted earlier, and the stream has since been evicted or replaced.
    Ended(Lease),
    /// The idempotency key was used before with a different request.
    KeyReused,
    Denied(Denial),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub lease: Lease,
    /// The user's own limit.
    pub limit: UserLimit,
    /// The number of live streams before the start. `None` if the start did not read them, and for an existing stream.
    pub live_before: Option<usize>,
    /// The streams that the start replaced or evicted, oldest first.
    pub ended: Vec<EndedStream>,
    /// How many dead members the start removed.
    pub reaped: usize,
    /// The leases of the removed members that were still stored.
    pub expired: Vec<Lease>,
    /// The rules and the limit in observe mode that the start exceeds, in the order of the settings, the limit last. Empty for an
    /// existing stream.
    pub over_limit: Vec<OverLimit>,
}

/// A stream that a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedStream {
    pub lease: Lease,
    pub reason: EndReason,
}

/// A limit in observe mode that a start exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// `None` for the user's own limit.
    pub rule: Option<RuleName>,
    pub limit: StreamLimit,
    /// The number of live streams that count towards the limit, excluding the new stream and those that it replaces or evicts.
    pub count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that denies the start. `None` if the user's own limit, or the hard limit in observe mode, denies it.
    pub rule: Option<RuleName>,
    pub limit: StreamLimit,
    /// How many live streams the limit counts, without those that the start would replace.
    pub count: usize,
    /// The live streams that count, oldest first. The user's own limit counts all streams. A rule does not count those that the
    /// start would replace.
    pub streams: Vec<Lease>,
    /// The time from which a repeated start would be admitted if no stream is renewed. `None` if the user is blocked or a rule
    /// forbids the stream.
    pub slot_frees_at: Option<Timestamp>,
    /// The user's own limit.
    pub user_limit: UserLimit,
    /// The number of live streams of the user.
    pub live_before: usize,
}

impl Started {
    /// The ids of the streams that the start replaced or evicted, oldest first.
    pub fn ended_ids(&self) -> Vec<StreamId> {
        self.ended.iter().map(|ended| ended.lease.stream_id).collect()
    }

    /// How many of the ended streams were evicted. The others were replaced.
    pub fn evicted(&self) -> usize {
        self.ended.iter().filter(|ended| ended.reason == EndReason::Evicted).count()
    }
}
