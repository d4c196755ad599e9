//! The steps that all calls have in common: begin an attempt, read, send, time out, and retry. `start_steps` and
//! `end_steps` decide what a call writes, and handle its responses.

use super::call::{PartialRead, Phase, ReadPart};
use super::event::Event;
use super::invariants;
use super::model::ProtocolModel;
use super::state::{Outcome, Request, State, Step};
use super::worlds::Call;
use crate::mutants::Mutant;
use crate::protocol::{CounterItem, Id, Items, STREAMS, Tick, Write};

impl ProtocolModel {
    pub fn begin(&self, state: &mut State, index: usize) {
        let now = self.clock(state, index);
        let phase = match self.world.calls[index] {
            Call::Start(start) => self.first_phase(&start, index, state.calls[index].id, now),
            Call::End(_) => Phase::Reading { now, read: self.nothing_read() },
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
        if part == ReadPart::Counter {
            self.record_data_to_erase(state, index, &counter);
        }
        if let Some(counter) = read.counter.filter(|_| read.leases.iter().all(Option::is_some)) {
            let items = Items { counter, leases: read.leases.map(Option::flatten) };
            if items != state.items {
                self.count(Event::StaleRead);
            }
            match self.world.calls[index] {
                Call::Start(_) => self.decide_start(state, index, now, &items),
                Call::End(end) => self.decide_end(state, index, &end, now, &items),
            }
        }
    }

    /// The request arrives. The caller receives the response, or the response is lost.
    pub fn send(&self, state: &mut State, index: usize, response_arrives: bool) {
        let Phase::Sending(request) = state.calls[index].phase.clone() else { return };
        let outcome = self.transact(state, &request.writes, request.now, Some(&request));
        if response_arrives {
            match self.world.calls[index] {
                Call::Start(_) => self.receive_start_response(state, index, request, outcome),
                Call::End(end) => self.receive_end_response(state, index, &end, request, outcome),
            }
        } else {
            if let Outcome::Applied = outcome {
                self.count(Event::ResponseLost);
            }
            self.lose_response(state, index);
        }
    }

    pub fn time_out(&self, state: &mut State, index: usize) {
        if let Phase::Sending(request) = &state.calls[index].phase {
            state.late_requests.push(request.clone());
            self.lose_response(state, index);
        }
    }

    /// The caller does not know the outcome of its request. Its client can repeat the call.
    fn lose_response(&self, state: &mut State, index: usize) {
        if self.world.calls[index].start().is_some() {
            if self.is(Mutant::LostResponseIsDenial) {
                return self.deny(state, index);
            }
            if self.is(Mutant::KeyedRetryCreatesSecondLease) || self.is(Mutant::UnknownOutcomeIsNotApplied) {
                state.calls[index].id = STREAMS as Id - 1;
            }
        }
        state.calls[index].retry();
    }

    /// After contention, the service begins another attempt, which reads first. Without an attempt left, the call ends.
    pub fn retry_after_contention(&self, state: &mut State, index: usize) {
        let now = self.clock(state, index);
        state.calls[index].retry_step();
        if state.calls[index].phase == Phase::Idle {
            self.begin_attempt(state, index, Phase::Reading { now, read: self.nothing_read() });
        }
    }

    pub fn begin_attempt(&self, state: &mut State, index: usize, phase: Phase) {
        let all_visible = !state.pending.any();
        let call = &mut state.calls[index];
        call.phase = phase;
        (call.was_full, call.was_blocked, call.lowest_limit) = (false, false, u8::MAX);
        if self.world.calls[index].start().is_some() {
            let own = state.items.leases[call.id as usize];
            let now = call.now().unwrap_or_default();
            call.was_admitted =
                all_visible && own.is_some_and(|own| own.termination.is_none() && own.expires_at > now);
        }
    }

    pub fn send_phase(&self, index: usize, id: Id, now: Tick, step: Step, writes: Vec<Write>) -> Phase {
        Phase::Sending(Request { call: index, id, now, step, writes: writes.into(), second: None })
    }

    fn clock(&self, state: &State, index: usize) -> Tick {
        state.now.saturating_add_signed(self.world.calls[index].skew())
    }

    /// The state of a query before its first read. The leases of ids that the world does not use are already
    /// marked as read, so that there are fewer steps to explore.
    pub fn nothing_read(&self) -> PartialRead {
        let mut read = PartialRead { counter: None, leases: [Some(None); STREAMS] };
        self.world.ids().for_each(|id| read.leases[id as usize] = None);
        read
    }

    fn record_data_to_erase(&self, state: &mut State, index: usize, counter: &CounterItem) {
        if self.world.calls[index].end().is_some_and(|end| end.is_erasure()) && !state.calls[index].has_ended {
            state.calls[index].not_erased = invariants::data_to_erase(&state.items, counter.members);
        }
    }
}
