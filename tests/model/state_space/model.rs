//! The stateright model: the possible actions in each state, and the effect of each action.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property};
use stream_manager::domain::admission::AtLimit;

use super::call::{CallState, Phase, ReadPart, next_reads};
use super::event::Event;
use super::invariants;
use super::state::{Action, Outcome, PendingItems, Request, State, Step};
use super::worlds::{BEGIN, Call, World};
use crate::mutants::Mutant;
use crate::protocol::{self, Id, ItemKey, Items, Revision, STREAMS, Tick, Write, bit};

pub struct ProtocolModel {
    pub world: World,
    pub mutant: Option<Mutant>,
    /// Number of occurrences of each event, over all states.
    pub events: Arc<[AtomicU64; Event::COUNT]>,
}

impl ProtocolModel {
    pub fn count(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Applies the writes if no item is locked and every condition holds. Then checks the invariants.
    pub fn transact(&self, state: &mut State, writes: &[Write], now: Tick, request: Option<&Request>) -> Outcome {
        if writes.iter().any(|write| state.pending.locks(write.key())) {
            self.count(Event::Conflict);
            return Outcome::Conflict;
        }
        if let Some(failed) = writes.iter().position(|write| !write.condition_holds(&state.items)) {
            match writes[failed] {
                Write::SetMembers { .. } => {
                    let starts = writes.iter().any(|write| matches!(write, Write::PutLease { .. }));
                    self.count(if starts { Event::GuardFailed } else { Event::EndGuardFailed });
                }
                Write::DeleteDead { .. } => self.count(Event::DeadConditionFailed),
                _ => {}
            }
            return Outcome::ConditionFailed(failed);
        }
        let before = state.items;
        writes.iter().for_each(|write| write.apply(&mut state.items));
        if writes.len() > 1 {
            writes.iter().for_each(|write| state.pending.lock(write.key(), &before));
        }
        invariants::check_writes(self, state, &before, writes, now, request);
        Outcome::Applied
    }

    /// Sends a heartbeat. Its response always arrives: without a response, there would be no guarantee to check.
    fn heartbeat(&self, state: &mut State, id: Id, now: Tick) {
        let write = self.mutate_heartbeat(protocol::heartbeat(id, None, now, self.world.duration));
        let expires_at = now + self.world.duration;
        match self.transact(state, &[write], now, None) {
            Outcome::Applied => {
                self.count(Event::Renewed);
                state.acknowledge(id, expires_at);
            }
            Outcome::ConditionFailed(_) => {
                let stored = state.items.leases[id as usize].filter(|stored| stored.termination.is_none());
                if let Some(stored) = stored.filter(|stored| stored.expires_at >= expires_at) {
                    state.acknowledge(id, stored.expires_at);
                }
            }
            Outcome::Conflict => {}
        }
    }

    fn add_item_actions(&self, state: &State, id: Id, actions: &mut Vec<Action>) {
        if state.pending.locks(ItemKey::Lease(id)) {
            return actions.push(Action::MakeVisible(ItemKey::Lease(id)));
        }
        let stored = state.items.leases[id as usize];
        if stored.is_some_and(|lease| lease.expires_at <= state.now || lease.termination.is_some()) {
            actions.push(Action::DeleteByTtl(id));
        }
        // A heartbeat or stop changes nothing for an id that is neither stored nor a member.
        if stored.is_none() && state.items.counter.members & bit(id) == 0 {
            return;
        }
        if self.world.heartbeats {
            let clocks = state.now - 2..=state.now + 1;
            actions.extend(clocks.map(|now| Action::Heartbeat { id, now }));
        }
        if self.world.stops {
            actions.push(Action::Stop(id));
        }
    }

    /// Whether TTL can delete the counter now. It cannot while an older request is in flight, because
    /// [`stream_manager::store::TOMBSTONE_S`] is longer than any request can take.
    fn tombstone_can_expire(&self, state: &State) -> bool {
        let counter = &state.items.counter;
        let is_older = |revision: Option<Revision>| revision.is_some_and(|read| Some(read) < counter.revision);
        let guard_is_older = |request: &Request| {
            request.writes.iter().chain(request.second.iter().flat_map(|writes| writes.iter())).any(|write| {
                match write {
                    Write::SetMembers { revision, .. } | Write::BuryCounter { revision, .. } => is_older(*revision),
                    _ => false,
                }
            })
        };
        let in_flight = |call: &CallState| match &call.phase {
            Phase::Reading { read, .. } => read.counter.is_some_and(|counter| is_older(counter.revision)),
            Phase::Sending(request) => guard_is_older(request),
            Phase::Idle | Phase::Done => false,
        };
        counter.has_ttl
            && !state.pending.locks(ItemKey::Counter)
            && (self.is(Mutant::TombstoneExpiresEarly)
                || !(state.calls.iter().any(in_flight) || state.late_requests.iter().any(guard_is_older)))
    }
}

impl Model for ProtocolModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let call_state = |call: &Call| match call {
            Call::Start(start) => CallState::new(start.id, self.world.attempts),
            Call::End(end) => CallState::new(0, end.attempts),
        };
        let mut items = Items::default();
        let mut acknowledged = [0; STREAMS];
        if let Some(id) = self.world.first_stream {
            let request = protocol::request(id, None, &[], AtLimit::Reject, self.world.limit, self.world.duration);
            protocol::optimistic_start(id, &request, BEGIN).iter().for_each(|write| write.apply(&mut items));
            acknowledged[id as usize] = BEGIN + self.world.duration;
        }
        vec![State {
            now: BEGIN,
            items,
            pending: PendingItems::default(),
            calls: self.world.calls.iter().map(call_state).collect(),
            late_requests: Vec::new(),
            acknowledged,
            stopped: 0,
            limits_set: 0,
            violation: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        if state.now < self.world.until {
            actions.push(Action::Tick);
        }
        for (index, call) in state.calls.iter().enumerate() {
            match &call.phase {
                Phase::Idle if self.world.calls[index].end().is_some() || state.stopped & bit(call.id) == 0 => {
                    actions.push(Action::Begin(index));
                }
                Phase::Reading { read, .. } => next_reads(self.world.reads, index, read, actions),
                Phase::Sending(_) => {
                    actions.extend([Action::Send(index), Action::SendAndLoseResponse(index)]);
                    if state.late_requests.len() < self.world.max_late_requests {
                        actions.push(Action::TimeOut(index));
                    }
                }
                Phase::Idle | Phase::Done => {}
            }
        }
        actions.extend((0..state.late_requests.len()).map(Action::ArriveLate));
        if state.pending.locks(ItemKey::Counter) {
            actions.push(Action::MakeVisible(ItemKey::Counter));
        }
        if self.tombstone_can_expire(state) {
            actions.push(Action::DeleteTombstone);
        }
        self.world.ids().for_each(|id| self.add_item_actions(state, id, actions));
        if self.world.set_limit.is_some()
            && state.limits_set < self.world.max_limits_set
            && !state.pending.locks(ItemKey::Counter)
        {
            actions.push(Action::SetLimit);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Tick => state.now += 1,
            Action::Begin(index) => self.begin(&mut state, index),
            Action::ReadCounter(index) => self.read(&mut state, index, ReadPart::Counter),
            Action::ReadLeases(index) => self.read(&mut state, index, ReadPart::Leases),
            Action::ReadLease(index, id) => self.read(&mut state, index, ReadPart::Lease(id)),
            Action::Send(index) => self.send(&mut state, index, true),
            Action::SendAndLoseResponse(index) => self.send(&mut state, index, false),
            Action::TimeOut(index) => self.time_out(&mut state, index),
            Action::ArriveLate(index) => {
                let request = state.late_requests.remove(index);
                if let Outcome::Applied = self.transact(&mut state, &request.writes, request.now, Some(&request)) {
                    self.count(Event::LateRequestApplied);
                    if request.step == Step::End {
                        self.count(Event::LateEndApplied);
                    }
                }
            }
            Action::MakeVisible(key) => state.pending.make_visible(key),
            Action::Heartbeat { id, now } => self.heartbeat(&mut state, id, now),
            Action::Stop(id) => {
                state.stopped |= bit(id);
                state.acknowledged[id as usize] = 0;
                if let Outcome::Applied = self.transact(&mut state, &protocol::stop(id), now, None) {
                    self.count(Event::Stopped);
                }
            }
            Action::DeleteByTtl(id) => {
                self.transact(&mut state, &[Write::DeleteLease { id }], now, None);
                self.count(Event::TtlDeleted);
            }
            Action::DeleteTombstone => {
                self.transact(&mut state, &[Write::DeleteCounter { conditional: false }], now, None);
                self.count(Event::TombstoneDeleted);
            }
            Action::SetLimit => {
                state.limits_set += 1;
                let limit = self.world.set_limit.flatten();
                invariants::record_newer_limit(&mut state, limit);
                self.transact(&mut state, &[Write::SetLimit { limit }], now, None);
                self.count(Event::LimitSet);
            }
        }
        let oldest = state.now.saturating_sub(self.world.max_lag());
        state.normalize(oldest);
        invariants::record_full_slots(self, &mut state);
        invariants::record_erased_data(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no invariant is violated", |_, state: &State| state.violation.is_none()),
            Property::always("every stream can start", |model: &Self, state: &State| {
                state.violation.is_some() || invariants::find_stuck_id(model, state).is_none()
            }),
        ]
    }
}
