//! The steps of a start call: begin an attempt, read, decide, send, and handle the response or its loss.

use stream_manager::domain::admission::{Decision, StartOutcome, StartRequest, decide};

use super::event::Event;
use super::invariants;
use super::model::ProtocolModel;
use super::start_call::{PartialRead, Phase, ReadPart};
use super::state::{Outcome, Request, State};
use crate::mutants::Mutant;
use crate::protocol::{self, Id, Items, STREAMS, Tick};

impl ProtocolModel {
    pub fn begin(&self, state: &mut State, index: usize) {
        let now = self.clock(state, index);
        let id = state.calls[index].id;
        let request = self.start_request(index, id);
        let phase = if request.needs_read() {
            Phase::Reading { now, read: self.nothing_read() }
        } else {
            let writes = self.mutate(protocol::optimistic_start(id, &request, now)).into();
            Phase::Sending(Request { call: index, id, now, optimistic: true, writes, second: None })
        };
        self.begin_attempt(state, index, phase);
    }

    pub fn read(&self, state: &mut State, index: usize, part: ReadPart) {
        let Items { counter, leases } = state.visible();
        let Phase::Reading { now, read } = &mut state.calls[index].phase else { return };
        match part {
            ReadPart::Lease(id) => read.leases[id as usize] = Some(leases[id as usize]),
            ReadPart::Leases => read.leases = leases.map(Some),
            ReadPart::Counter => read.counter = Some(counter),
        }
        let (now, read) = (*now, *read);
        if let Some(counter) = read.counter.filter(|_| read.leases.iter().all(Option::is_some)) {
            let items = Items { counter, leases: read.leases.map(Option::flatten) };
            if items != state.items {
                self.count(Event::StaleRead);
            }
            self.decide(state, index, now, &items);
        }
    }

    /// Runs the production `decide()` on the items that the query returned.
    fn decide(&self, state: &mut State, index: usize, now: Tick, items: &Items) {
        let id = state.calls[index].id;
        let mut request = self.start_request(index, id);
        let device_id = request.device_id.clone();
        if self.is(Mutant::StartReplacesNothing) {
            (request.device_id, request.replaces) = (None, Vec::new());
        }
        let decision =
            items.with_snapshot(self.world.duration, |snapshot| decide(snapshot, &request, protocol::timestamp(now)));
        let mut commit = match decision {
            Decision::Admit(commit) => commit,
            Decision::NoWrite(outcome) => return self.finish(state, index, &outcome),
        };
        commit.lease.device_id = device_id;
        self.mutate_commit(&mut commit, items, now);
        if self.is(Mutant::DeadLeasesKeepSlots) && commit.limit.exceeded_by(commit.members.len()) > 0 {
            return self.deny(state, index);
        }
        let mut writes = self.mutate(protocol::commit(&commit));
        let mut second = None;
        if self.is(Mutant::EvictionInTwoTransactions) && !commit.ended.is_empty() {
            second = Some(self.split_off_admission(&mut writes, id).into());
        }
        let request = Request { call: index, id, now, optimistic: false, writes: writes.into(), second };
        state.calls[index].phase = Phase::Sending(request);
    }

    fn finish(&self, state: &mut State, index: usize, outcome: &StartOutcome) {
        match outcome {
            StartOutcome::Existing(existing) => {
                self.count(Event::Existing);
                let id = state.calls[index].id;
                // Another call may have ended the stream after the read. In that case, the player has no live lease.
                if state.items.can_be_renewed(id) {
                    state.acknowledge(id, protocol::tick(existing.lease.expires_at));
                }
            }
            StartOutcome::Ended(_) => self.count(Event::EndedReturned),
            StartOutcome::Denied(_) => return self.deny(state, index),
            StartOutcome::Started(_) | StartOutcome::KeyReused => {}
        }
        state.calls[index].finish();
    }

    fn deny(&self, state: &mut State, index: usize) {
        self.count(Event::Denied);
        invariants::check_denial(self, state, index);
        state.calls[index].finish();
    }

    pub fn send(&self, state: &mut State, index: usize, response_arrives: bool) {
        let Phase::Sending(request) = state.calls[index].phase.clone() else { return };
        match self.transact(state, &request.writes, request.now, Some(&request)) {
            Outcome::Applied if !response_arrives => {
                self.count(Event::ResponseLost);
                self.lose_response(state, index);
            }
            Outcome::Applied => match request.second {
                Some(writes) => {
                    state.calls[index].phase = Phase::Sending(Request { writes, second: None, ..request });
                }
                None => {
                    state.acknowledge(request.id, request.now + self.world.duration);
                    state.calls[index].finish();
                }
            },
            // The caller cannot distinguish this case from a success whose response was lost. It repeats the request in
            // both cases.
            _ if !response_arrives => self.lose_response(state, index),
            Outcome::Conflict if self.is(Mutant::ConflictIsDenial) => self.deny(state, index),
            Outcome::ConditionFailed(1) if request.optimistic && state.is_ended(request.id) => {
                self.count(Event::EndedReturned);
                state.calls[index].finish();
            }
            Outcome::Conflict | Outcome::ConditionFailed(_) if request.optimistic => {
                state.calls[index].phase = Phase::Reading { now: request.now, read: self.nothing_read() };
            }
            Outcome::Conflict | Outcome::ConditionFailed(_) => {
                let now = self.clock(state, index);
                state.calls[index].retry();
                if state.calls[index].phase == Phase::Idle {
                    self.begin_attempt(state, index, Phase::Reading { now, read: self.nothing_read() });
                }
            }
        }
    }

    pub fn time_out(&self, state: &mut State, index: usize) {
        if let Phase::Sending(request) = &state.calls[index].phase {
            state.late_requests.push(request.clone());
            self.lose_response(state, index);
        }
    }

    /// The caller does not know the outcome of its request. The player can repeat the call.
    fn lose_response(&self, state: &mut State, index: usize) {
        if self.is(Mutant::LostResponseIsDenial) {
            return self.deny(state, index);
        }
        if self.is(Mutant::KeyedRetryCreatesSecondLease) || self.is(Mutant::UnknownOutcomeIsNotApplied) {
            state.calls[index].id = STREAMS as Id - 1;
        }
        state.calls[index].retry();
    }

    fn begin_attempt(&self, state: &mut State, index: usize, phase: Phase) {
        let all_visible = !state.pending.any();
        let call = &mut state.calls[index];
        call.phase = phase;
        (call.was_full, call.lowest_limit) = (false, u8::MAX);
        let own = state.items.leases[call.id as usize];
        let now = call.now().unwrap_or_default();
        call.was_admitted = all_visible && own.is_some_and(|own| own.termination.is_none() && own.expires_at > now);
    }

    fn clock(&self, state: &State, index: usize) -> Tick {
        state.now.saturating_add_signed(self.world.starts[index].skew)
    }

    fn start_request(&self, index: usize, id: Id) -> StartRequest {
        let start = &self.world.starts[index];
        let replaces: Vec<Id> = start.replaces.into_iter().collect();
        protocol::request(id, start.device, &replaces, start.at_limit, self.world.limit, self.world.duration)
    }

    /// The state of a query before its first read. Leases that no start call creates are marked as read from the
    /// beginning, so that there are fewer steps to explore.
    fn nothing_read(&self) -> PartialRead {
        let mut read = PartialRead { counter: None, leases: [Some(None); STREAMS] };
        self.world.ids().for_each(|id| read.leases[id as usize] = None);
        read
    }
}
