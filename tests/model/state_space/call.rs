//! The progress of one call: its phase, the items that it has read, and the steps of its queries.

use super::state::{Action, Request};
use super::worlds::ReadOrder;
use crate::protocol::{CounterItem, Id, IdSet, LeaseItem, STREAMS, Tick};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallState {
    pub phase: Phase,
    pub attempts_left: u8,
    /// The stream of a start. Calls that end streams do not use it.
    pub id: Id,
    /// The streams that a start has created.
    pub created: IdSet,
    /// Whether all slots were taken at some moment of this attempt of a start.
    pub was_full: bool,
    /// Whether the user was blocked at some moment of this attempt of a start.
    pub was_blocked: bool,
    /// The lowest limit that was in force during this attempt of a start. The attempt may have read this limit.
    pub lowest_limit: u8,
    /// Whether the start's own lease was live and visible when the attempt began.
    pub was_admitted: bool,
    /// Whether an erasure has ended the user's streams. If contention repeats a later step, this stays true.
    pub has_ended: bool,
    /// Only for `ErasureReadsOnce`: the ended leases that an erasure has read before it ended the user's streams.
    pub read_first: IdSet,
    /// The streams that were stored when an erasure ended the user's streams, and that have not been deleted since.
    pub not_erased: IdSet,
    /// Whether the stored limit was set after the call had ended.
    pub limit_is_newer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    Reading { now: Tick, read: PartialRead },
    Sending(Request),
    Done,
}

/// The part of the items that a query reads in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPart {
    Counter,
    Leases,
    Lease(Id),
}

/// The items that a query has read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartialRead {
    pub counter: Option<CounterItem>,
    pub leases: [Option<Option<LeaseItem>>; STREAMS],
}

impl CallState {
    pub fn new(id: Id, attempts: u8) -> Self {
        Self {
            phase: Phase::Idle,
            attempts_left: attempts,
            id,
            created: 0,
            was_full: false,
            was_blocked: false,
            lowest_limit: u8::MAX,
            was_admitted: false,
            has_ended: false,
            read_first: 0,
            not_erased: 0,
            limit_is_newer: false,
        }
    }

    /// The time that the current attempt has read from its instance's clock.
    pub fn now(&self) -> Option<Tick> {
        match &self.phase {
            Phase::Reading { now, .. } => Some(*now),
            Phase::Sending(request) => Some(request.now),
            Phase::Idle | Phase::Done => None,
        }
    }

    pub fn finish(&mut self) {
        *self = Self { phase: Phase::Done, created: self.created, ..Self::new(self.id, 0) };
    }

    /// The client retries, which uses one attempt. If another attempt is left, the call becomes idle. Otherwise, it ends.
    pub fn retry(&mut self) {
        let attempts_left = self.attempts_left.saturating_sub(1);
        if attempts_left == 0 {
            self.finish();
        } else {
            *self = Self { created: self.created, ..Self::new(self.id, attempts_left) };
        }
    }

    /// The service retries after contention. An erasure that has already ended the streams continues with its second step.
    pub fn retry_step(&mut self) {
        let Self { has_ended, read_first, not_erased, .. } = *self;
        self.retry();
        if self.phase == Phase::Idle {
            (self.has_ended, self.read_first, self.not_erased) = (has_ended, read_first, not_erased);
        }
    }
}

/// Adds the possible next steps of a query.
pub fn next_reads(order: ReadOrder, index: usize, read: &PartialRead, actions: &mut Vec<Action>) {
    let leases_missing = read.leases.iter().any(Option::is_none);
    match order {
        ReadOrder::LeasesFirst if leases_missing => actions.push(Action::ReadLeases(index)),
        ReadOrder::CounterFirst if read.counter.is_some() => actions.push(Action::ReadLeases(index)),
        ReadOrder::AnyOrder => {
            let missing = (0..STREAMS as Id).filter(|id| read.leases[*id as usize].is_none());
            actions.extend(missing.map(|id| Action::ReadLease(index, id)));
            if read.counter.is_none() {
                actions.push(Action::ReadCounter(index));
            }
        }
        _ => actions.push(Action::ReadCounter(index)),
    }
}
