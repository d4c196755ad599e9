//! The outcome of one operation. The writer converts a record to one or more events, so that requests neither serialize nor hash
//! anything.

use crate::domain::admission::{Denial, EndedStream, OverLimit, StartRequest, Started};
use crate::domain::lease::{Lease, StreamLimit, Timestamp, UserLimit};
use crate::domain::names::{StreamId, UserName};

#[derive(Clone, Debug)]
pub struct Record {
    /// When the outcome was decided.
    pub now: Timestamp,
    pub user: UserName,
    pub operation: Operation,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most records are starts, so a box would only add an allocation")]
pub enum Operation {
    Start(StartRequest, StartResult),
    /// The player's own stop freed a slot.
    Stop(StreamId),
    /// A request ended these streams.
    Evict(Vec<Lease>),
    /// A request stored or removed the limit, and ended these streams.
    SetLimit {
        limit: Option<StreamLimit>,
        previous: Option<StreamLimit>,
        ended: Vec<Lease>,
    },
    /// An erasure ended these streams.
    Erase(Vec<StreamId>),
}

#[derive(Clone, Debug)]
pub enum StartResult {
    Admitted(Admission),
    Denied {
        /// What the start exceeds. Without a rule, it is the user's own limit or the maximum of all limits.
        exceeded: OverLimit,
        limit: UserLimit,
        live_before: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Admission {
    /// Whether an earlier start with the same key was admitted.
    pub is_replay: bool,
    pub limit: UserLimit,
    pub live_before: Option<usize>,
    pub started_at: Timestamp,
    pub expires_at: Timestamp,
    pub ended: Vec<EndedStream>,
    pub expired: Vec<Lease>,
    pub over_limit: Vec<OverLimit>,
}

impl Record {
    /// The number of events of this record.
    pub(super) fn events(&self) -> u64 {
        let events = match &self.operation {
            Operation::Start(_, StartResult::Admitted(admission)) => {
                1 + admission.ended.len() + admission.expired.len()
            }
            Operation::Start(_, StartResult::Denied { .. }) | Operation::Stop(_) | Operation::Erase(_) => 1,
            Operation::Evict(ended) => ended.len(),
            Operation::SetLimit { ended, .. } => 1 + ended.len(),
        };
        events as u64
    }
}

impl StartResult {
    pub fn admitted(started: &Started, is_replay: bool) -> Self {
        // Usually, the first start with the key has recorded the streams that it ended. If its response from the store was lost, these
        // streams have no event, and the start is not recorded as over a limit.
        let ended = if is_replay { Vec::new() } else { started.ended.clone() };
        Self::Admitted(Admission {
            is_replay,
            limit: started.limit,
            live_before: started.live_before,
            started_at: started.lease.started_at,
            expires_at: started.lease.expires_at,
            ended,
            expired: started.expired.clone(),
            over_limit: started.over_limit.clone(),
        })
    }

    pub fn denied(denial: &Denial) -> Self {
        let exceeded = OverLimit { rule: denial.rule.clone(), limit: denial.limit, count: denial.count };
        Self::Denied { exceeded, limit: denial.user_limit, live_before: denial.live_before }
    }
}
