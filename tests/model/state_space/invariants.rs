//! Checks the invariants after every step.

use stream_manager::domain::admission::{AtLimit, Decision, Snapshot, StartOutcome, decide};

use super::event::Event;
use super::model::ProtocolModel;
use super::state::{Request, State};
use crate::protocol::{self, Id, Items, LeaseItem, STREAMS, Tick, Write, bit, ids};

/// A violated invariant. The variants are ordered by severity, the most serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    /// A start was admitted beyond the limit.
    OverLimit,
    /// A lease that can be renewed is not among the members.
    NotCounted,
    /// An acknowledged lease was deleted, ended or overwritten before its expiry on the writer's clock.
    TakenEarly,
    /// An ended lease was renewed or overwritten.
    EndedRevived,
    /// A heartbeat renewed an expired lease.
    ExpiredRenewed,
    /// A heartbeat moved an expiry to an earlier time.
    ExpiryMovedBack,
    /// An item has no expiry, so nothing ever deletes it.
    NoExpiry,
    /// A stream was ended by a start that was not admitted in the same transaction.
    PartialStart,
    /// One device holds two slots, or a stream and its replacement both hold a slot.
    NotReplaced,
    /// One start created two streams.
    DuplicateStream,
    /// A start was denied although a slot was free during the whole attempt.
    UnfoundedDenial,
    /// A start was denied although an earlier attempt was admitted and its lease is live.
    DeniedAfterAdmission,
}

/// Checks an applied transaction against the invariants. `request` is the start that sent the transaction, if any.
pub fn check_writes(
    model: &ProtocolModel,
    state: &mut State,
    before: &Items,
    writes: &[Write],
    now: Tick,
    request: Option<&Request>,
) {
    let mut violations = Vec::new();
    let admits = writes.iter().any(|write| matches!(write, Write::PutLease { .. }));
    for write in writes {
        let stored = |id: Id| before.leases[id as usize];
        match *write {
            Write::AddMember { .. } => model.count(Event::OptimisticStart),
            Write::PutLease { id, .. } => {
                if stored(id).is_some_and(|lease| lease.termination.is_some()) {
                    violations.push(Violation::EndedRevived);
                }
                violations.extend(take(state, before, id, now));
                violations.extend(check_admission(model, state, id, request));
            }
            Write::DeleteDead { id, .. } => {
                model.count(if stored(id).is_some() { Event::DeadLeaseDeleted } else { Event::DeadMemberRemoved });
                violations.extend(take(state, before, id, now));
            }
            Write::DeleteLease { id } => violations.extend(take(state, before, id, now)),
            Write::MarkEnded { id, termination, .. } => {
                model.count(Event::StreamEnded);
                if request.is_some_and(|request| !may_end(model, request, id, stored(id))) {
                    violations.extend(take(state, before, id, now));
                }
                state.acknowledged[id as usize] = 0;
                if stored(id).is_none() {
                    violations.push(Violation::NoExpiry);
                }
                if termination.by.is_some() && !admits {
                    violations.push(Violation::PartialStart);
                }
            }
            Write::Renew { new, id, .. } => violations.extend(check_renewal(stored(id), now, new)),
            Write::SetMembers { .. } => model.count(Event::ReadThenStart),
            Write::RemoveMember { .. } | Write::Prune { .. } | Write::SetLimit { .. } => {}
        }
    }
    if (0..STREAMS as Id).any(|id| state.items.can_be_renewed(id) && state.items.counter.members & bit(id) == 0) {
        violations.push(Violation::NotCounted);
    }
    // Records only the most serious violation, so that the result does not depend on the order of the writes.
    if let Some(violation) = violations.into_iter().min() {
        state.violate(violation);
    }
}

fn check_admission(model: &ProtocolModel, state: &mut State, id: Id, request: Option<&Request>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let limit = state.items.counter.stream_limit.unwrap_or(model.world.limit);
    let renewable = (0..STREAMS).filter(|id| state.items.can_be_renewed(*id as Id)).count();
    if renewable > usize::from(limit) || state.items.counter.members.count_ones() > u32::from(limit) {
        violations.push(Violation::OverLimit);
    }
    if let Some(request) = request {
        if leaves_replaced_stream(model, state, request) {
            violations.push(Violation::NotReplaced);
        }
        let call = &mut state.calls[request.call];
        call.created |= bit(id);
        if call.created.count_ones() > 1 {
            violations.push(Violation::DuplicateStream);
        }
    }
    violations
}

fn check_renewal(stored: Option<LeaseItem>, now: Tick, new: Tick) -> Vec<Violation> {
    let Some(lease) = stored else { return vec![Violation::NoExpiry] };
    [
        (lease.termination.is_some(), Violation::EndedRevived),
        (lease.expires_at <= now, Violation::ExpiredRenewed),
        (lease.expires_at > new, Violation::ExpiryMovedBack),
    ]
    .into_iter()
    .filter_map(|(violated, violation)| violated.then_some(violation))
    .collect()
}

/// Checks that a deleted, ended or overwritten lease had expired. Clears its acknowledged expiry, because a late
/// request may admit the same id again with an earlier expiry.
fn take(state: &mut State, before: &Items, id: Id, now: Tick) -> Option<Violation> {
    let acknowledged = std::mem::take(&mut state.acknowledged[id as usize]);
    (before.leases[id as usize].is_some() && acknowledged > now).then_some(Violation::TakenEarly)
}

/// Whether the start may end this stream: it evicts at the limit, uses the same device, or names the stream in
/// `replaces`.
fn may_end(model: &ProtocolModel, request: &Request, id: Id, stored: Option<LeaseItem>) -> bool {
    let start = &model.world.starts[request.call];
    let same_device = start.device.is_some() && stored.is_some_and(|lease| lease.device == start.device);
    start.at_limit == AtLimit::EvictOldest || same_device || start.replaces == Some(id)
}

/// Whether a stream that this start must replace can still be renewed.
fn leaves_replaced_stream(model: &ProtocolModel, state: &State, request: &Request) -> bool {
    let start = &model.world.starts[request.call];
    (0..STREAMS as Id).filter(|id| *id != request.id && state.items.can_be_renewed(*id)).any(|id| {
        let device = state.items.leases[id as usize].and_then(|lease| lease.device);
        start.replaces == Some(id) || (start.device.is_some() && device == start.device)
    })
}

/// A denial is correct only if all slots were taken at some moment of the attempt. A start that may evict must not be
/// denied.
pub fn check_denial(model: &ProtocolModel, state: &mut State, index: usize) {
    let call = &state.calls[index];
    let may_evict = model.world.starts[index].at_limit == AtLimit::EvictOldest;
    if call.was_admitted && state.items.can_be_renewed(call.id) {
        state.violate(Violation::DeniedAfterAdmission);
    } else if may_evict || !call.was_full {
        state.violate(Violation::UnfoundedDenial);
    }
}

/// Records for every call in progress whether all slots are taken now, in the stored items or in the items that readers
/// see.
pub fn record_full_slots(model: &ProtocolModel, state: &mut State) {
    for index in 0..state.calls.len() {
        let call = &state.calls[index];
        let (Some(now), false) = (call.now(), call.was_full) else { continue };
        let start = &model.world.starts[index];
        let limit = call.lowest_limit.min(state.items.counter.stream_limit.unwrap_or(model.world.limit));
        let is_full = |items: &Items| {
            let takes_slot = |id: &Id| {
                let replaced = |lease: LeaseItem| start.device.is_some() && lease.device == start.device;
                let live = |lease: LeaseItem| lease.termination.is_none() && lease.expires_at > now;
                *id != call.id
                    && start.replaces != Some(*id)
                    && items.leases[*id as usize].is_some_and(|lease| live(lease) && !replaced(lease))
            };
            ids(items.counter.members).filter(takes_slot).count() >= usize::from(limit)
        };
        let was_full = is_full(&state.items) || is_full(&state.visible());
        // After all slots were taken once, the limit no longer matters. A constant value merges these states.
        let lowest_limit = if was_full { u8::MAX } else { limit };
        (state.calls[index].was_full, state.calls[index].lowest_limit) = (was_full, lowest_limit);
    }
}

/// Finds an id that could not be started even after all items have become visible and expired.
pub fn find_stuck_id(model: &ProtocolModel, state: &State) -> Option<Id> {
    let now = state.now + 3 * model.world.duration;
    let can_start = |id: &Id| {
        let request = protocol::request(*id, None, &[], AtLimit::Reject, model.world.limit, model.world.duration);
        let decide = |snapshot: &Snapshot<'_>| decide(snapshot, &request, protocol::timestamp(now));
        match state.items.with_snapshot(model.world.duration, decide) {
            Decision::Admit(commit) => {
                protocol::commit(&commit).iter().all(|write| write.condition_holds(&state.items))
            }
            Decision::NoWrite(outcome) => matches!(outcome, StartOutcome::Ended(_)),
        }
    };
    let unused_id = STREAMS as Id - 1;
    model.world.ids().chain([unused_id]).find(|id| !can_start(id))
}

impl Items {
    /// Whether a heartbeat from an instance with a slow enough clock can renew the lease.
    pub fn can_be_renewed(&self, id: Id) -> bool {
        self.leases[id as usize].is_some_and(|lease| lease.termination.is_none())
    }
}
