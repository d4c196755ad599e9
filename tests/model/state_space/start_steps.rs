//! Decides what a start call writes, and handles its responses.

use std::sync::Arc;

use stream_manager::domain::admission::{Decision, StartOutcome, StartRequest, decide};
use stream_manager::domain::rules::LimitMode;

use super::call::Phase;
use super::event::Event;
use super::invariants;
use super::model::ProtocolModel;
use super::state::{Outcome, Request, State, Step};
use super::worlds::Start;
use crate::mutants::Mutant;
use crate::protocol::{self, Id, Items, Tick};

impl ProtocolModel {
    pub fn first_phase(&self, start: &Start, index: usize, id: Id, now: Tick) -> Phase {
        let request = self.start_request(start, id);
        let needs_read = if self.is(Mutant::BlockedStartIsOptimistic) {
            start.device.is_some() || start.replaces.is_some()
        } else if self.is(Mutant::RuleIgnoredByOptimisticStart) {
            StartRequest { rules: Arc::default(), ..request.clone() }.needs_read()
        } else {
            request.needs_read()
        };
        if needs_read {
            Phase::Reading { now, read: self.nothing_read() }
        } else {
            let writes = self.mutate(protocol::optimistic_start(id, &request, now));
            self.send_phase(index, id, now, Step::OptimisticStart, writes)
        }
    }

    /// Runs the production `decide()` on the items that the query returned.
    pub fn decide_start(&self, state: &mut State, index: usize, now: Tick, items: &Items) {
        let Some(start) = self.world.calls[index].start() else { return };
        let id = state.calls[index].id;
        let mut request = self.start_request(start, id);
        let device_id = request.device_id.clone();
        if self.is(Mutant::StartReplacesNothing) {
            (request.device_id, request.replaces) = (None, Vec::new());
        }
        let (items, labels) = (&self.mutate_labels(items, &mut request), start.labels.to_labels());
        let decision =
            items.with_snapshot(self.world.duration, |snapshot| decide(snapshot, &request, protocol::timestamp(now)));
        let mut commit = match decision {
            Decision::Admit(commit) => commit,
            Decision::NoWrite(outcome) => return self.finish_start(state, index, &outcome),
        };
        (commit.lease.device_id, commit.lease.labels) = (device_id, labels);
        if !commit.over_limit.is_empty() {
            self.count(Event::OverLimit);
        }
        if self.rule_denies(start, &commit, items) {
            return self.deny(state, index);
        }
        self.mutate_commit(&mut commit, items, now);
        if self.is(Mutant::DeadLeasesKeepSlots) && commit.limit.limit.exceeded_by(commit.change.members.len()) > 0 {
            return self.deny(state, index);
        }
        let mut writes = self.mutate(protocol::commit(&commit));
        let mut second = None;
        if self.is(Mutant::EvictionInTwoTransactions) && !commit.change.ended.is_empty() {
            second = Some(self.split_off_admission(&mut writes, id).into());
        }
        let request = Request { call: index, id, now, step: Step::Commit, writes: writes.into(), second };
        state.calls[index].phase = Phase::Sending(request);
    }

    pub fn receive_start_response(&self, state: &mut State, index: usize, request: Request, outcome: Outcome) {
        let optimistic = request.step == Step::OptimisticStart;
        match outcome {
            Outcome::Applied => match request.second {
                Some(writes) => {
                    state.calls[index].phase = Phase::Sending(Request { writes, second: None, ..request });
                }
                None => {
                    state.acknowledge(request.id, request.now + self.world.duration);
                    state.calls[index].finish();
                }
            },
            Outcome::Conflict if self.is(Mutant::ConflictIsDenial) => self.deny(state, index),
            Outcome::ConditionFailed(1) if optimistic && state.items.is_ended(request.id) => {
                self.count(Event::EndedReturned);
                state.calls[index].finish();
            }
            Outcome::Conflict | Outcome::ConditionFailed(_) if optimistic => {
                state.calls[index].phase = Phase::Reading { now: request.now, read: self.nothing_read() };
            }
            Outcome::Conflict | Outcome::ConditionFailed(_) => self.retry_after_contention(state, index),
        }
    }

    fn finish_start(&self, state: &mut State, index: usize, outcome: &StartOutcome) {
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
            StartOutcome::Denied(denial) => {
                let limit_mode = self.world.calls[index].start().map(|start| start.modes.limit);
                if denial.rule.is_none() && limit_mode == Some(LimitMode::Observe) {
                    self.count(Event::HardLimitReached);
                }
                return self.deny(state, index);
            }
            StartOutcome::Started(_) | StartOutcome::KeyReused => {}
        }
        state.calls[index].finish();
    }

    pub fn deny(&self, state: &mut State, index: usize) {
        self.count(if state.calls[index].was_blocked { Event::BlockedDenied } else { Event::Denied });
        invariants::check_denial(self, state, index);
        state.calls[index].finish();
    }

    fn start_request(&self, start: &Start, id: Id) -> StartRequest {
        let replaces: Vec<Id> = start.replaces.into_iter().collect();
        let token_limit = start.token_limit.map(protocol::limit);
        let request =
            protocol::request(id, start.device, &replaces, start.at_limit, self.world.limit, self.world.duration);
        let rules = self.world.rules.iter().map(|rule| rule.to_rule(start.modes.rules)).collect();
        let (limit_mode, hard_limit) = (start.modes.limit, protocol::limit(self.world.hard_limit));
        let labels = start.labels.to_labels();
        let mut request = StartRequest { token_limit, labels, rules, limit_mode, hard_limit, ..request };
        if let Some(mutant) = self.mutant {
            mutant.change_modes(&mut request);
        }
        request
    }
}
