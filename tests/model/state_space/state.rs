//! The state of the model and the actions that change it.

use super::call::CallState;
use super::invariants::Violation;
use crate::protocol::{CounterItem, Id, IdSet, ItemKey, Items, LeaseItem, STREAMS, Tick, Writes, bit};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The true time.
    pub now: Tick,
    /// The items with the changes of all successful transactions, visible or not.
    pub items: Items,
    pub pending: PendingItems,
    pub calls: Vec<CallState>,
    /// Requests whose callers have timed out. These requests can still arrive.
    pub late_requests: Vec<Request>,
    /// By stream, the latest expiry that the stream's player has received. 0 means none.
    pub acknowledged: [Tick; STREAMS],
    /// Streams whose players have sent a stop request. The model does not start these streams again.
    pub stopped: IdSet,
    /// How often the stored limit was set.
    pub limits_set: u8,
    pub violation: Option<Violation>,
}

/// The old versions of items that a successful transaction has changed. The new versions are not visible yet, and the items
/// are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PendingItems {
    pub counter: Option<CounterItem>,
    pub leases: [Option<Option<LeaseItem>>; STREAMS],
}

/// A write request of a call, before it is sent or while it is in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The index of the call that sends the request.
    pub call: usize,
    /// The stream of a start.
    pub id: Id,
    pub now: Tick,
    pub step: Step,
    pub writes: Writes,
    /// The writes of the next step of an erasure. For mutants that split a transaction, the writes of the second part.
    pub second: Option<Writes>,
}

/// The step of a call to which a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    OptimisticStart,
    Commit,
    End,
    // The steps of an erasure after `End`.
    DeleteEnded,
    Bury,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Tick,
    /// A call begins, or its client repeats it.
    Begin(usize),
    ReadCounter(usize),
    ReadLeases(usize),
    ReadLease(usize, Id),
    /// The request arrives, and the caller receives the response.
    Send(usize),
    /// The request arrives, but the response is lost.
    SendAndLoseResponse(usize),
    /// The caller times out before the request arrives.
    TimeOut(usize),
    /// A late request arrives.
    ArriveLate(usize),
    /// An item of a successful transaction becomes visible and writable.
    MakeVisible(ItemKey),
    Heartbeat {
        id: Id,
        now: Tick,
    },
    Stop(Id),
    DeleteByTtl(Id),
    /// TTL deletes the counter of an erased user.
    DeleteTombstone,
    SetLimit,
}

/// The result of a transaction.
pub enum Outcome {
    Applied,
    Conflict,
    /// The condition of the write at this index does not hold.
    ConditionFailed(usize),
}

impl State {
    pub fn acknowledge(&mut self, id: Id, until: Tick) {
        if self.stopped & bit(id) == 0 {
            self.acknowledged[id as usize] = self.acknowledged[id as usize].max(until);
        }
    }

    /// The items that readers currently see.
    pub fn visible(&self) -> Items {
        Items {
            counter: self.pending.counter.unwrap_or(self.items.counter),
            leases: std::array::from_fn(|id| self.pending.leases[id].unwrap_or(self.items.leases[id])),
        }
    }

    /// Records a violation, unless one is already recorded.
    pub fn violate(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Merges states that differ only in details that no later step can observe. `oldest` is the earliest time that a
    /// request can still contain.
    pub fn normalize(&mut self, oldest: Tick) {
        self.acknowledged.iter_mut().filter(|until| **until <= oldest).for_each(|until| *until = 0);
        self.late_requests.sort_by_cached_key(|request| (request.call, request.now, request.step));
    }
}

impl PendingItems {
    pub fn locks(&self, key: ItemKey) -> bool {
        match key {
            ItemKey::Counter => self.counter.is_some(),
            ItemKey::Lease(id) => self.leases[id as usize].is_some(),
        }
    }

    /// Locks the item and keeps its old version for readers.
    pub fn lock(&mut self, key: ItemKey, before: &Items) {
        match key {
            ItemKey::Counter => self.counter = Some(before.counter),
            ItemKey::Lease(id) => self.leases[id as usize] = Some(before.leases[id as usize]),
        }
    }

    /// Unlocks the item and shows its new version to readers.
    pub fn make_visible(&mut self, key: ItemKey) {
        match key {
            ItemKey::Counter => self.counter = None,
            ItemKey::Lease(id) => self.leases[id as usize] = None,
        }
    }

    pub fn any(&self) -> bool {
        self.counter.is_some() || self.leases.iter().any(Option::is_some)
    }
}
