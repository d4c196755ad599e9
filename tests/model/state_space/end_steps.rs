//! Decides what a call that ends streams writes, handles its responses, and runs the later steps of an erasure.

use stream_manager::domain::admission::end::{self, EndCommit, EndRequest, decide_end};

use super::call::Phase;
use super::event::Event;
use super::invariants;
use super::model::ProtocolModel;
use super::state::{Outcome, Request, State, Step};
use super::worlds::{End, Selection};
use crate::mutants::Mutant;
use crate::protocol::{self, Id, IdSet, Items, Tick, bit, ids};

impl End {
    pub fn is_erasure(&self) -> bool {
        self.selection == Selection::Erase
    }
}

impl ProtocolModel {
    /// Runs the production `decide_end()` on the items that the query returned.
    pub fn decide_end(&self, state: &mut State, index: usize, end: &End, now: Tick, items: &Items) {
        if state.calls[index].has_ended && !self.is(Mutant::ErasureEndsAgain) {
            return self.purge(state, index, now, items);
        }
        state.calls[index].read_first = if self.is(Mutant::ErasureReadsOnce) { ended_leases(items) } else { 0 };
        match self.end_commit(end, items, now) {
            Some(commit) => {
                let writes = self.mutate(protocol::end(&commit));
                state.calls[index].phase = self.send_phase(index, 0, now, Step::End, writes);
            }
            None if state.calls[index].has_ended => self.purge(state, index, now, items),
            None if end.is_erasure() => self.read_again(state, index, now),
            None => {
                self.count(Event::NothingToEnd);
                state.calls[index].finish();
            }
        }
    }

    fn end_commit(&self, end: &End, items: &Items, now: Tick) -> Option<EndCommit> {
        let duration = self.world.duration;
        let commit = |selection| {
            let request = EndRequest { selection, message: None, terms: protocol::terms(duration) };
            items.with_snapshot(duration, |snapshot| decide_end(snapshot, &request, protocol::timestamp(now)))
        };
        match end.selection {
            Selection::One(id) => commit(end::Selection::Listed(vec![protocol::stream_id(id)])),
            Selection::ExcessOver(limit) => {
                let used = self.mutate_excess_limit(limit, items, now);
                let commit = commit(end::Selection::ExcessOver(protocol::limit(used)))?;
                Some(EndCommit { new_limit: Some(protocol::limit(limit)), ..commit })
            }
            Selection::Erase if self.is(Mutant::ErasureKeepsDeadMembers) && !items.any_member_has_a_lease() => None,
            Selection::All => commit(end::Selection::All),
            Selection::Erase => commit(end::Selection::Erase),
        }
    }

    pub fn receive_end_response(
        &self,
        state: &mut State,
        index: usize,
        end: &End,
        request: Request,
        outcome: Outcome,
    ) {
        let now = request.now;
        match (request.step, outcome) {
            (_, Outcome::Conflict) => self.retry_after_contention(state, index),
            (Step::End, Outcome::Applied) if end.is_erasure() => {
                state.calls[index].not_erased = invariants::data_to_erase(&state.items, 0);
                self.read_again(state, index, now);
            }
            (Step::DeleteEnded, Outcome::Applied) => self.bury(state, index, request),
            (Step::Bury, Outcome::Applied) => self.finish_erasure(state, index),
            (_, Outcome::Applied) => state.calls[index].finish(),
            (_, Outcome::ConditionFailed(_)) => self.retry_after_contention(state, index),
        }
    }

    /// Begins the second step of an erasure, which reads again after the streams have ended.
    fn read_again(&self, state: &mut State, index: usize, now: Tick) {
        state.calls[index].has_ended = true;
        state.calls[index].phase = Phase::Reading { now, read: self.nothing_read() };
    }

    /// The second step of an erasure: deletes all leases without a slot. `bury` then sends the last step.
    fn purge(&self, state: &mut State, index: usize, now: Tick, items: &Items) {
        let stored = self.world.ids().filter(|id| items.leases[*id as usize].is_some());
        let without_slot = stored.filter(|id| items.counter.members & bit(*id) == 0);
        let deleted = match self.is(Mutant::ErasureReadsOnce) {
            true => state.calls[index].read_first,
            false => without_slot.fold(0, |all, id| all | bit(id)),
        };
        let bury = protocol::bury(&items.counter).map(|write| self.mutate_bury(write)).into_iter().collect();
        let writes = protocol::prune(ids(deleted)).collect();
        let request = Request { call: index, id: 0, now, step: Step::DeleteEnded, writes, second: Some(bury) };
        if deleted == 0 {
            return self.bury(state, index, request);
        }
        state.calls[index].phase = Phase::Sending(request);
    }

    fn bury(&self, state: &mut State, index: usize, request: Request) {
        match request.second {
            Some(writes) if !writes.is_empty() => {
                let request = Request { step: Step::Bury, writes, second: None, ..request };
                state.calls[index].phase = Phase::Sending(request);
            }
            _ => self.finish_erasure(state, index),
        }
    }

    fn finish_erasure(&self, state: &mut State, index: usize) {
        self.count(Event::Erased);
        invariants::check_erasure(state, index);
        state.calls[index].finish();
        // Keep this flag, so that the checks detect if a delayed first step of this erasure ends newer streams.
        state.calls[index].has_ended = true;
    }
}

fn ended_leases(items: &Items) -> IdSet {
    let leases = items.leases.iter().enumerate();
    leases
        .filter(|(_, lease)| lease.is_some_and(|lease| lease.termination.is_some()))
        .fold(0, |all, (id, _)| all | bit(id as Id))
}
