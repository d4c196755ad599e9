//! Checks the invariants after every step.

use stream_manager::domain::admission::{AtLimit, Decision, Snapshot, StartOutcome, decide};
use stream_manager::domain::rules::LimitMode;

use super::call::Phase;
use super::event::Event;
use super::model::ProtocolModel;
use super::state::{Request, State};
use super::worlds::{Call, End, Selection, Start};
use crate::protocol::{
    self, CounterItem, Id, IdSet, Items, LeaseItem, ModelRule, STREAMS, StreamLabels, Tick, Write, bit, ids,
};

/// A violated invariant. The variants are ordered by severity, the most serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    /// A start was admitted beyond the limit.
    OverLimit,
    /// A start was admitted beyond the limit of a rule.
    OverRule,
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
    /// A request ended more streams than it should, or left a stream that it should end.
    WrongStreamsEnded,
    /// A complete erasure left a lease or a member that was stored when it ended the user's streams.
    NotErased,
    /// An erasure removed a limit that was set after the erasure had ended.
    LimitLost,
    /// One device holds two slots, or a stream and its replacement both hold a slot.
    NotReplaced,
    /// One start created two streams.
    DuplicateStream,
    /// A start was denied although a slot was free during the whole attempt, and the user was never blocked.
    UnfoundedDenial,
    /// A start was denied although an earlier attempt was admitted and its lease is live.
    DeniedAfterAdmission,
}

/// Checks an applied transaction against the invariants. `request` is `None` if no start or end call sent the
/// transaction.
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
            Write::AddMember { .. } => {
                model.count(Event::OptimisticStart);
                count_start(model, state, &before.counter);
            }
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
            Write::Prune { id } if !before.is_ended(id) => violations.extend(take(state, before, id, now)),
            Write::DeleteLease { id } => {
                // An erasure may delete live leases only once: when it ends the user's streams.
                if request.is_some_and(|request| !state.calls[request.call].has_ended) {
                    state.acknowledged[id as usize] = 0;
                }
                violations.extend(take(state, before, id, now));
            }
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
            Write::SetMembers { .. } if admits => {
                model.count(Event::ReadThenStart);
                count_start(model, state, &before.counter);
            }
            Write::SetMembers { members, .. } => {
                if let Some(end) = request.and_then(|request| model.world.calls[request.call].end()) {
                    violations.extend(check_end(model, state, end, members, writes));
                }
            }
            Write::BuryCounter { .. } => {
                let is_newer = request.is_some_and(|request| state.calls[request.call].limit_is_newer);
                violations
                    .extend((is_newer && before.counter.stream_limit.is_some()).then_some(Violation::LimitLost));
            }
            Write::RemoveMember { .. }
            | Write::Prune { .. }
            | Write::SetLimit { .. }
            | Write::DeleteCounter { .. } => {}
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
    let start = request.and_then(|request| model.world.calls[request.call].start());
    let limit = effective_limit(model, start, &state.items.counter);
    if is_over(&state.items, limit) {
        violations.push(Violation::OverLimit);
    }
    let has_rules = |start: &&Start| start.modes.rules == LimitMode::Enforce;
    if start.filter(has_rules).is_some_and(|start| is_over_rule(model, start.labels, &state.items)) {
        violations.push(Violation::OverRule);
    }
    if let (Some(request), Some(start)) = (request, start) {
        if leaves_replaced_stream(state, start, request.id) {
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

/// Checks that a request ended exactly the streams that it should. `members` are the members after the request.
fn check_end(model: &ProtocolModel, state: &State, end: &End, members: IdSet, writes: &[Write]) -> Option<Violation> {
    let ended = writes.iter().filter(|write| matches!(write, Write::MarkEnded { .. })).count();
    let wrong = match end.selection {
        Selection::All | Selection::Erase => members != 0,
        Selection::One(id) => members & bit(id) != 0 || ended > 1,
        Selection::ExcessOver(limit) => {
            if is_over(&state.items, limit) {
                return Some(Violation::OverLimit);
            }
            ended > 0 && members.count_ones() < u32::from(limit)
        }
    };
    model.count(match end.selection {
        Selection::All => Event::EndAll,
        Selection::One(_) => Event::EndOne,
        Selection::ExcessOver(_) => Event::EndExcess,
        Selection::Erase => Event::ErasureEnded,
    });
    wrong.then_some(Violation::WrongStreamsEnded)
}

/// The limit that `start` must not exceed: the hard limit in observe mode. If `start` is `None`, no token limit applies.
fn effective_limit(model: &ProtocolModel, start: Option<&Start>, counter: &CounterItem) -> u8 {
    if start.is_some_and(|start| start.modes.limit == LimitMode::Observe) {
        return model.world.hard_limit;
    }
    match (counter.stream_limit, start.and_then(|start| start.token_limit)) {
        (Some(0), _) => 0,
        (_, Some(limit)) => limit,
        (Some(limit), None) => limit,
        (None, None) => model.world.limit,
    }
}

fn is_over(items: &Items, limit: u8) -> bool {
    let renewable = (0..STREAMS).filter(|id| items.can_be_renewed(*id as Id)).count();
    renewable > usize::from(limit) || items.counter.members.count_ones() > u32::from(limit)
}

/// Whether a rule that applies to a start with the labels `own` counts more renewable leases than it allows.
fn is_over_rule(model: &ProtocolModel, own: StreamLabels, items: &Items) -> bool {
    model.world.rules.iter().any(|rule| {
        let renewable = (0..STREAMS as Id).filter(|id| items.can_be_renewed(*id));
        let labels = renewable.filter_map(|id| items.leases[id as usize]).map(|lease| lease.labels);
        labels.filter(|other| rule.counts(own, *other)).count() > usize::from(rule.max)
    })
}

fn count_start(model: &ProtocolModel, state: &State, before: &CounterItem) {
    if before.has_ttl {
        model.count(Event::TombstoneRevived);
    }
    if state.calls.iter().any(|call| call.has_ended && call.phase != Phase::Done) {
        model.count(Event::StartedDuringErasure);
    }
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

/// Whether the request may end this stream. A start may end it if the start evicts at the limit or under a rule that it enforces, uses the
/// same device, or contains the stream in `replaces`. Other requests may end the streams that they select.
fn may_end(model: &ProtocolModel, request: &Request, id: Id, stored: Option<LeaseItem>) -> bool {
    match &model.world.calls[request.call] {
        Call::Start(start) => {
            let same_device = start.device.is_some() && stored.is_some_and(|lease| lease.device == start.device);
            let by_rule = |lease: LeaseItem| {
                let mut rules = model.world.rules.iter();
                start.modes.rules == LimitMode::Enforce && rules.any(|rule| rule.counts(start.labels, lease.labels))
            };
            let may_evict = start.modes.limit == LimitMode::Enforce || stored.is_some_and(by_rule);
            (start.at_limit == AtLimit::EvictOldest && may_evict) || same_device || start.replaces == Some(id)
        }
        Call::End(End { selection: Selection::One(selected), .. }) => *selected == id,
        Call::End(_) => true,
    }
}

/// Whether a stream that this start must replace can still be renewed.
fn leaves_replaced_stream(state: &State, start: &Start, own: Id) -> bool {
    (0..STREAMS as Id).filter(|id| *id != own && state.items.can_be_renewed(*id)).any(|id| {
        let device = state.items.leases[id as usize].and_then(|lease| lease.device);
        start.replaces == Some(id) || (start.device.is_some() && device == start.device)
    })
}

/// A denial is correct only if all slots, or all slots of a rule, were taken at some moment of the attempt. A start that may
/// evict must not be denied, except by the hard limit in observe mode. A start of a blocked user is denied in any case.
pub fn check_denial(model: &ProtocolModel, state: &mut State, index: usize) {
    let call = &state.calls[index];
    let may_evict = model.world.calls[index].start().is_some_and(|start| start.makes_room());
    if call.was_admitted && state.items.can_be_renewed(call.id) {
        state.violate(Violation::DeniedAfterAdmission);
    } else if !call.was_blocked && (may_evict || !call.was_full) {
        state.violate(Violation::UnfoundedDenial);
    }
}

/// Records for every start in progress whether all slots, or all slots of a rule, are taken now, in the stored items or in the items that
/// readers see.
pub fn record_full_slots(model: &ProtocolModel, state: &mut State) {
    for (index, start) in
        model.world.calls.iter().enumerate().filter_map(|(index, call)| Some((index, call.start()?)))
    {
        let call = &state.calls[index];
        let (Some(now), false) = (call.now(), call.was_full && call.was_blocked) else { continue };
        let limit = [state.items, state.visible()].map(|items| effective_limit(model, Some(start), &items.counter));
        let limit = call.lowest_limit.min(limit[0]).min(limit[1]);
        let is_full = |items: &Items| {
            let takes_slot = |id: &Id| {
                let replaced = |lease: LeaseItem| start.device.is_some() && lease.device == start.device;
                let live = |lease: LeaseItem| lease.termination.is_none() && lease.expires_at > now;
                *id != call.id
                    && start.replaces != Some(*id)
                    && items.leases[*id as usize].is_some_and(|lease| live(lease) && !replaced(lease))
            };
            let taken: Vec<Id> = ids(items.counter.members).filter(takes_slot).collect();
            let labels = |id: &Id| items.leases[*id as usize].map(|lease| lease.labels).unwrap_or_default();
            let is_full = |rule: &ModelRule| {
                let counted = taken.iter().filter(|id| rule.counts(start.labels, labels(id))).count();
                rule.counts(start.labels, start.labels) && counted >= usize::from(rule.max)
            };
            // Under a rule, a start that evicts makes room.
            let rules_deny = start.modes.rules == LimitMode::Enforce && start.at_limit == AtLimit::Reject;
            taken.len() >= usize::from(limit) || (rules_deny && model.world.rules.iter().any(is_full))
        };
        let was_full = call.was_full || is_full(&state.items) || is_full(&state.visible());
        let call = &mut state.calls[index];
        (call.was_full, call.was_blocked) = (was_full, call.was_blocked || limit == 0);
        // After all slots were taken once, the limit no longer matters. A constant value merges these states.
        call.lowest_limit = if was_full { u8::MAX } else { limit };
    }
}

/// The streams whose data a correct erasure deletes: those that are stored without a slot, and `members`.
pub fn data_to_erase(items: &Items, members: IdSet) -> IdSet {
    let without_slot = |id: &Id| items.leases[*id as usize].is_some() && items.counter.members & bit(*id) == 0;
    (0..STREAMS as Id).filter(without_slot).fold(members, |all, id| all | bit(id))
}

/// Records for every erasure in progress which data has been deleted.
pub fn record_erased_data(state: &mut State) {
    let Items { counter, leases } = state.items;
    let is_stored = |id: &Id| leases[*id as usize].is_some() || counter.members & bit(*id) != 0;
    let stored = (0..STREAMS as Id).filter(is_stored).fold(0, |all, id| all | bit(id));
    state.calls.iter_mut().for_each(|call| call.not_erased &= stored);
}

/// Updates `limit_is_newer` of every finished call: true if a limit is set, false if it is removed. Does nothing if the
/// stored limit stays the same.
pub fn record_newer_limit(state: &mut State, limit: Option<u8>) {
    if limit == state.items.counter.stream_limit {
        return;
    }
    for call in state.calls.iter_mut().filter(|call| call.phase == Phase::Done) {
        call.limit_is_newer = limit.is_some();
    }
}

pub fn check_erasure(state: &mut State, index: usize) {
    record_erased_data(state);
    if state.calls[index].not_erased != 0 {
        state.violate(Violation::NotErased);
    }
}

/// Finds an id that could not be started even after all items have become visible and all leases have expired.
pub fn find_stuck_id(model: &ProtocolModel, state: &State) -> Option<Id> {
    let now = state.now + 3 * model.world.duration;
    if effective_limit(model, None, &state.items.counter) == 0 {
        return None;
    }
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
    pub fn is_ended(&self, id: Id) -> bool {
        self.leases[id as usize].is_some_and(|lease| lease.termination.is_some())
    }

    /// Whether a heartbeat from an instance with a slow enough clock can renew the lease.
    pub fn can_be_renewed(&self, id: Id) -> bool {
        self.leases[id as usize].is_some_and(|lease| lease.termination.is_none())
    }

    pub fn any_member_has_a_lease(&self) -> bool {
        ids(self.counter.members).any(|id| self.can_be_renewed(id))
    }
}
