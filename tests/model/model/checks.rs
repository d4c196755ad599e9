//! What must never happen, looked for after every step.

use stream_manager::domain::admission::{AtLimit, Decision, Snapshot, StartOutcome as Answer, decide};

use super::{Event, Protocol, Request, State};
use crate::protocol::{self, IDS, Id, Items, LeaseItem, Tick, Write, bit, ids};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// A start was admitted beyond the limit.
    OverLimit,
    /// A lease that can be renewed is not in the counter.
    NotCounted,
    /// An acknowledged lease was taken before its expiry on the taker's clock.
    TakenEarly,
    /// A lease that somebody ended came back.
    EndedRevived,
    /// A heartbeat brought back what had run out.
    ExpiredRenewed,
    /// A heartbeat shortened a lease.
    ExpiryMovedBack,
    /// An item without an expiry, which nothing ever deletes.
    Immortal,
    /// Somebody's stream was ended for a start that was not admitted with it.
    HalfDone,
    /// A device, or a stream and what it replaced, hold two slots.
    NotReplaced,
    /// One start made two streams.
    TwoStreams,
    /// Denied, and the slots were never all taken meanwhile.
    DeniedWithoutCause,
    /// Denied, and the start had been admitted before.
    DeniedThoughAdmitted,
}

/// Holds what a transaction did against the promises.
pub fn after_writes(
    model: &Protocol,
    state: &mut State,
    before: &Items,
    writes: &[Write],
    now: Tick,
    by: Option<&Request>,
) {
    let limit = state.items.counter.stream_limit.unwrap_or(model.bounds.limit);
    let mut wrongs = Vec::new();
    let admits = writes.iter().any(|write| matches!(write, Write::PutLease { .. }));
    for write in writes {
        let stored = |id: Id| before.leases[id as usize];
        match *write {
            Write::AddMember { .. } => model.note(Event::PlainStart),
            Write::PutLease { id, .. } => {
                if stored(id).is_some_and(|lease| lease.ended.is_some()) {
                    wrongs.push(Wrong::EndedRevived);
                }
                wrongs.extend(taken(state, before, id, now));
                let renewable = (0..IDS).filter(|id| state.items.can_be_renewed(*id as Id)).count();
                if renewable > usize::from(limit) || state.items.counter.streams.count_ones() > u32::from(limit) {
                    wrongs.push(Wrong::OverLimit);
                }
                if by.is_some_and(|request| not_replaced(model, state, request)) {
                    wrongs.push(Wrong::NotReplaced);
                }
                if let Some(starter) = by.map(|request| &mut state.starters[request.starter]) {
                    starter.made |= bit(id);
                    if starter.made.count_ones() > 1 {
                        wrongs.push(Wrong::TwoStreams);
                    }
                }
            }
            Write::DeleteDead { id, .. } => {
                model.note(if stored(id).is_some() { Event::Reaped } else { Event::ReapedUnseen });
                wrongs.extend(taken(state, before, id, now));
            }
            Write::DeleteLease { id } => wrongs.extend(taken(state, before, id, now)),
            Write::MarkEnded { id, end, .. } => {
                model.note(Event::Ended);
                if by.is_some_and(|request| !may_end(model, request, id, stored(id))) {
                    wrongs.extend(taken(state, before, id, now));
                }
                state.acked[id as usize] = 0;
                if stored(id).is_none() {
                    wrongs.push(Wrong::Immortal);
                }
                if end.by.is_some() && !admits {
                    wrongs.push(Wrong::HalfDone);
                }
            }
            Write::Renew { id, new, .. } => {
                let stored = stored(id);
                if stored.is_none() {
                    wrongs.push(Wrong::Immortal);
                }
                if stored.is_some_and(|lease| lease.ended.is_some()) {
                    wrongs.push(Wrong::EndedRevived);
                }
                if stored.is_some_and(|lease| lease.expires_at <= now) {
                    wrongs.push(Wrong::ExpiredRenewed);
                }
                if stored.is_some_and(|lease| lease.expires_at > new) {
                    wrongs.push(Wrong::ExpiryMovedBack);
                }
            }
            Write::SetMembers { .. } => model.note(Event::DecidedStart),
            Write::RemoveMember { .. } | Write::Forget { .. } | Write::SetLimit { .. } => {}
        }
    }
    if (0..IDS as Id).any(|id| state.items.can_be_renewed(id) && state.items.counter.streams & bit(id) == 0) {
        wrongs.push(Wrong::NotCounted);
    }
    // The gravest first, whatever the order of the writes.
    if let Some(wrong) = wrongs.into_iter().min() {
        state.is_wrong(wrong);
    }
}

/// What was taken by right need not last until then: a late request may admit it anew for a shorter time.
fn taken(state: &mut State, before: &Items, id: Id, now: Tick) -> Option<Wrong> {
    let acked = std::mem::take(&mut state.acked[id as usize]);
    (before.leases[id as usize].is_some() && acked > now).then_some(Wrong::TakenEarly)
}

/// Whether somebody asked for this end: the oldest may go for a start that says so, else its device's and what it names.
fn may_end(model: &Protocol, request: &Request, id: Id, stored: Option<LeaseItem>) -> bool {
    let start = &model.bounds.starters[request.starter];
    let of_its_device = start.device.is_some() && stored.is_some_and(|lease| lease.device == start.device);
    start.at_limit == AtLimit::EvictOldest || of_its_device || start.replaces == Some(id)
}

/// Whether a stream that was to go for this start still holds a slot beside it.
fn not_replaced(model: &Protocol, state: &State, request: &Request) -> bool {
    let start = &model.bounds.starters[request.starter];
    (0..IDS as Id).filter(|id| *id != request.id && state.items.can_be_renewed(*id)).any(|id| {
        let device = state.items.leases[id as usize].and_then(|lease| lease.device);
        start.replaces == Some(id) || (start.device.is_some() && device == start.device)
    })
}

/// Whether a denial has a cause. Who may evict the oldest is never denied.
pub fn denied(model: &Protocol, state: &mut State, index: usize) {
    let starter = &state.starters[index];
    let may_evict = model.bounds.starters[index].at_limit == AtLimit::EvictOldest;
    let own = state.items.leases[starter.id as usize].is_some_and(|own| own.ended.is_none());
    if starter.was_admitted && own {
        state.is_wrong(Wrong::DeniedThoughAdmitted);
    } else if may_evict || !starter.was_full {
        state.is_wrong(Wrong::DeniedWithoutCause);
    }
}

/// Remembers, for every start under way, whether all slots are taken now: as decided, or as readers see it.
pub fn look_for_causes(model: &Protocol, state: &mut State) {
    for index in 0..state.starters.len() {
        let starter = &state.starters[index];
        let (Some(now), false) = (starter.now(), starter.was_full) else { continue };
        let start = &model.bounds.starters[index];
        let limit = starter.limit.min(state.items.counter.stream_limit.unwrap_or(model.bounds.limit));
        let full = |items: &Items| {
            let live = |id: &Id| {
                let lease = items.leases[*id as usize];
                let goes = |lease: LeaseItem| start.device.is_some() && lease.device == start.device;
                let stays = |lease: LeaseItem| lease.ended.is_none() && lease.expires_at > now && !goes(lease);
                *id != starter.id && start.replaces != Some(*id) && lease.is_some_and(stays)
            };
            ids(items.counter.streams).filter(live).count() >= usize::from(limit)
        };
        let was_full = full(&state.items) || full(&state.visible());
        // Once there is a cause, the limit adds nothing.
        let limit = if was_full { u8::MAX } else { limit };
        (state.starters[index].was_full, state.starters[index].limit) = (was_full, limit);
    }
}

/// An id that cannot be started once everything is quiet and has expired.
pub fn is_stuck(model: &Protocol, state: &State) -> Option<Id> {
    let now = state.now + 3 * model.bounds.duration;
    let limit = model.bounds.limit;
    let starts = |id: &Id| {
        let request = protocol::request(*id, None, &[], AtLimit::Reject, limit, model.bounds.duration);
        let decide = |snapshot: &Snapshot<'_>| decide(snapshot, &request, protocol::instant(now));
        match state.items.with_snapshot(model.bounds.duration, decide) {
            Decision::Admit(commit) => protocol::commit(&commit).iter().all(|write| write.holds(&state.items)),
            Decision::NoWrite(answer) => matches!(answer, Answer::Ended(_)),
        }
    };
    let nobodys = IDS as Id - 1;
    model.bounds.ids().chain([nobodys]).find(|id| !starts(id))
}

impl Items {
    /// A lease that a heartbeat in time could keep.
    pub fn can_be_renewed(&self, id: Id) -> bool {
        self.leases[id as usize].is_some_and(|lease| lease.ended.is_none())
    }
}
