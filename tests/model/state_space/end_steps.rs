//! The decision of a call that ends streams, its responses, and the further steps of an erasure.

use stream_manager::domain::admission::end::{self, EndCommit, EndRequest, decide_end};

use super::call::Phase;
use super::event::Event;
use super::invariants;
use super::model::ProtocolModel;
use super::state::{Outcome, Request, State, Step};
use super::worlds::{End, Selection};
use crate::mutants::Mutant;
use crate::protocol::{self, Id, IdSet, Items, Tick, Write, bit, ids};

impl End {
    pub fn is_erasure(&self) -> bool {
        self.selection == Selection::Erase
    }
}

impl ProtocolModel {
    /// Runs the production `decide_end()` on the items that the query returned.
    pub fn decide_end(&self, state: &mut State, index: usize, end: &End, now: Tick, items: &Items) {
        if let Some(ended) = state.calls[index].ended {
            return self.delete_ended(state, index, now, items, ended);
        }
        match self.end_commit(end, items, now) {
            Some(commit) => {
                let writes = self.mutate(protocol::end(&commit));
                // The mutant decides already now which leases it deletes.
                let ended = ended_by(&writes) | ended_leases(items);
                let second = self.is(Mutant::ErasureReadsOnce).then(|| protocol::prune(ids(ended)).collect());
                let request = Request { call: index, id: 0, now, step: Step::End, writes: writes.into(), second };
                state.calls[index].phase = Phase::Sending(request);
            }
            None if end.is_erasure() && self.is(Mutant::ErasureReadsOnce) => {
                self.delete(state, index, now, ended_leases(items));
            }
            None if end.is_erasure() => self.read_again(state, index, now, 0),
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
            Selection::All | Selection::Erase => commit(end::Selection::All),
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
                match request.second {
                    Some(writes) => {
                        let request = Request { step: Step::DeleteEnded, writes, second: None, ..request };
                        state.calls[index].phase = Phase::Sending(request);
                    }
                    None => self.read_again(state, index, now, ended_by(&request.writes)),
                }
            }
            (Step::DeleteEnded, Outcome::Applied) => self.bury(state, index, now),
            (Step::Bury, Outcome::ConditionFailed(_)) => {
                let writes = vec![Write::SetLimit { limit: None }];
                state.calls[index].phase = self.send_phase(index, 0, now, Step::RemoveLimit, writes);
            }
            (Step::Bury, Outcome::Applied) | (Step::RemoveLimit, _) => {
                self.count(Event::Erased);
                invariants::check_erasure(state, index);
                state.calls[index].finish();
            }
            (_, Outcome::Applied) => state.calls[index].finish(),
            (_, Outcome::ConditionFailed(_)) => self.retry_after_contention(state, index),
        }
    }

    /// After the streams have ended, an erasure reads again.
    fn read_again(&self, state: &mut State, index: usize, now: Tick, ended: IdSet) {
        state.calls[index].ended = Some(ended);
        state.calls[index].phase = Phase::Reading { now, read: self.nothing_read() };
    }

    /// Deletes the streams that the erasure has ended, and all others without a slot.
    fn delete_ended(&self, state: &mut State, index: usize, now: Tick, items: &Items, ended: IdSet) {
        let stored = self.world.ids().filter(|id| items.leases[*id as usize].is_some());
        let without_slot = stored.filter(|id| items.counter.members & bit(*id) == 0);
        self.delete(state, index, now, without_slot.fold(ended, |all, id| all | bit(id)));
    }

    fn delete(&self, state: &mut State, index: usize, now: Tick, deleted: IdSet) {
        if deleted == 0 {
            return self.bury(state, index, now);
        }
        let writes = protocol::prune(ids(deleted)).collect();
        state.calls[index].phase = self.send_phase(index, 0, now, Step::DeleteEnded, writes);
    }

    fn bury(&self, state: &mut State, index: usize, now: Tick) {
        let write = match protocol::bury() {
            _ if self.is(Mutant::ErasureDeletesCounter) => Write::DeleteCounter { conditional: true },
            Write::BuryCounter { .. } if self.is(Mutant::TombstoneKeepsRevision) => {
                Write::BuryCounter { adds_to_revision: 0 }
            }
            write => write,
        };
        state.calls[index].phase = self.send_phase(index, 0, now, Step::Bury, vec![write]);
    }
}

/// The streams that a transaction ends.
fn ended_by(writes: &[Write]) -> IdSet {
    writes.iter().fold(0, |ended, write| match write {
        Write::MarkEnded { id, .. } => ended | bit(*id),
        _ => ended,
    })
}

fn ended_leases(items: &Items) -> IdSet {
    let leases = items.leases.iter().enumerate();
    leases
        .filter(|(_, lease)| lease.is_some_and(|lease| lease.termination.is_some()))
        .fold(0, |all, (id, _)| all | bit(id as Id))
}
