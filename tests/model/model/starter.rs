//! A start, step by step: what it has read, what it is about to write, and what it does when that fails.

use stream_manager::domain::admission::{Decision, StartOutcome as Answer, StartRequest, decide};

use super::bounds::Reads;
use super::checks::{self, Wrong};
use super::{Action, Event, Outcome, Protocol, Request, State};
use crate::mutants::Mutant;
use crate::protocol::{self, CounterItem, IDS, Id, Ids, Items, LeaseItem, Tick, Write, bit};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Starter {
    pub id: Id,
    pub phase: Phase,
    pub attempts: u8,
    /// The ids that were admitted for it.
    pub made: Ids,
    /// Whether all slots were taken at some moment of this attempt.
    pub was_full: bool,
    /// The lowest limit in force during this attempt, which is the one that it may have read.
    pub limit: u8,
    /// Whether its own lease was there and settled when the attempt began.
    pub was_admitted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    Reading { now: Tick, seen: Seen },
    Ready(Request),
    Done,
}

/// What a query reads in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Counter,
    Leases,
    Lease(Id),
}

/// What a query has read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    pub counter: Option<CounterItem>,
    pub leases: [Option<Option<LeaseItem>>; IDS],
}

impl Starter {
    pub fn new(id: Id, attempts: u8) -> Self {
        Self { id, phase: Phase::Idle, attempts, made: 0, was_full: false, limit: u8::MAX, was_admitted: false }
    }

    /// The clock of its present attempt.
    pub fn now(&self) -> Option<Tick> {
        match &self.phase {
            Phase::Reading { now, .. } => Some(*now),
            Phase::Ready(request) => Some(request.now),
            Phase::Idle | Phase::Done => None,
        }
    }

    fn done(&mut self) {
        *self = Self { phase: Phase::Done, made: self.made, ..Self::new(self.id, 0) };
    }

    /// Goes on from `phase` while there are attempts left.
    fn again(&mut self, phase: Phase) {
        self.attempts = self.attempts.saturating_sub(1);
        if self.attempts == 0 {
            self.done();
        } else {
            (self.phase, self.was_full, self.limit, self.was_admitted) = (phase, false, u8::MAX, false);
        }
    }
}

/// The next steps of a query.
pub fn reads(order: Reads, index: usize, seen: &Seen, actions: &mut Vec<Action>) {
    let leases_left = seen.leases.iter().any(Option::is_none);
    match order {
        Reads::LeasesFirst if leases_left => actions.push(Action::ReadLeases(index)),
        Reads::CounterFirst if seen.counter.is_some() => actions.push(Action::ReadLeases(index)),
        Reads::Apart => {
            let left = (0..IDS as Id).filter(|id| seen.leases[*id as usize].is_none());
            actions.extend(left.map(|id| Action::ReadLease(index, id)));
            if seen.counter.is_none() {
                actions.push(Action::ReadCounter(index));
            }
        }
        _ => actions.push(Action::ReadCounter(index)),
    }
}

impl Protocol {
    pub fn begin(&self, state: &mut State, index: usize) {
        let start = &self.bounds.starters[index];
        let now = state.now.saturating_add_signed(start.skew);
        let id = state.starters[index].id;
        let request = self.request(index, id);
        let phase = if request.needs_read() {
            Phase::Reading { now, seen: self.nothing_read() }
        } else {
            let writes = self.wrongly(protocol::optimistic_start(id, &request, now));
            Phase::Ready(Request { starter: index, id, now, plain: true, writes: writes.into(), then: None })
        };
        self.attempt(state, index, phase);
    }

    pub fn read(&self, state: &mut State, index: usize, part: Part) {
        let Items { counter, leases } = state.visible();
        let Phase::Reading { now, seen } = &mut state.starters[index].phase else { return };
        match part {
            Part::Lease(id) => seen.leases[id as usize] = Some(leases[id as usize]),
            Part::Leases => seen.leases = leases.map(Some),
            Part::Counter => seen.counter = Some(counter),
        }
        let (now, seen) = (*now, *seen);
        if let Some(counter) = seen.counter.filter(|_| seen.leases.iter().all(Option::is_some)) {
            let items = Items { counter, leases: seen.leases.map(Option::flatten) };
            if items != state.items {
                self.note(Event::StaleRead);
            }
            self.decide(state, index, now, &items);
        }
    }

    /// The product's own decision on what was read.
    fn decide(&self, state: &mut State, index: usize, now: Tick, items: &Items) {
        let id = state.starters[index].id;
        let mut request = self.request(index, id);
        let device_id = request.device_id.clone();
        if self.is(Mutant::DeviceIgnored) {
            (request.device_id, request.replaces) = (None, Vec::new());
        }
        let decision =
            items.with_snapshot(self.bounds.duration, |snapshot| decide(snapshot, &request, protocol::instant(now)));
        let mut commit = match decision {
            Decision::Admit(commit) => commit,
            Decision::NoWrite(answer) => return self.answer(state, index, &answer),
        };
        commit.lease.device_id = device_id;
        if self.is(Mutant::DeadHoldTheirSlots) {
            commit.members.extend(std::mem::take(&mut commit.dead));
            if commit.limit.exceeded_by(commit.members.len()) > 0 {
                return self.deny(state, index);
            }
        }
        if self.is(Mutant::RecountFromQuery) {
            let shown = |id: &Id| items.leases[*id as usize].is_some();
            commit.members = (0..IDS as Id)
                .filter(|id| {
                    items.leases[*id as usize].is_some_and(|lease| lease.ended.is_none() && lease.expires_at > now)
                })
                .map(protocol::stream_id)
                .chain([commit.lease.stream_id])
                .filter(|id| commit.ended.iter().all(|ended| ended.stream_id != *id))
                .collect();
            commit.dead.retain(|id| shown(&protocol::id_of(*id)));
        }
        let mut writes = self.wrongly(protocol::commit(&commit));
        let mut then = None;
        if self.is(Mutant::EvictionFreesFirst) && !commit.ended.is_empty() {
            then = Some(self.take_after_freeing(&mut writes, id).into());
        }
        let request = Request { starter: index, id, now, plain: false, writes: writes.into(), then };
        state.starters[index].phase = Phase::Ready(request);
    }

    /// Splits a start in two: what frees, and the rest, which it returns.
    fn take_after_freeing(&self, writes: &mut Vec<Write>, id: Id) -> Vec<Write> {
        let frees = |write: &Write| matches!(write, Write::MarkEnded { .. } | Write::DeleteDead { .. });
        let mut taking: Vec<Write> = writes.iter().copied().filter(|write| !frees(write)).collect();
        writes.retain(|write| frees(write) || matches!(write, Write::SetMembers { .. }));
        let seen = taking.iter_mut().find_map(|write| match write {
            Write::SetMembers { revision, .. } => Some(revision.replace(revision.unwrap_or(0) + 1)),
            _ => None,
        });
        for write in writes {
            if let Write::SetMembers { revision, streams, .. } = write {
                (*revision, *streams) = (seen.flatten(), *streams & !bit(id));
            }
        }
        taking
    }

    fn answer(&self, state: &mut State, index: usize, answer: &Answer) {
        match answer {
            Answer::Existing(existing) => {
                self.note(Event::Existing);
                let id = state.starters[index].id;
                // The read is a moment old: who ended the stream since then did so by right.
                if state.items.can_be_renewed(id) {
                    state.acknowledge(id, protocol::tick(existing.lease.expires_at));
                }
            }
            Answer::Ended(_) => self.note(Event::AnsweredEnded),
            Answer::Denied(_) => return self.deny(state, index),
            Answer::Started(_) | Answer::KeyReused => {}
        }
        state.starters[index].done();
    }

    fn deny(&self, state: &mut State, index: usize) {
        self.note(Event::Denied);
        checks::denied(self, state, index);
        state.starters[index].done();
    }

    pub fn send(&self, state: &mut State, index: usize, heard: bool) {
        let Phase::Ready(request) = state.starters[index].phase.clone() else { return };
        match self.transact(state, &request.writes, request.now, Some(&request)) {
            Outcome::Applied if !heard => {
                self.note(Event::AnswerLost);
                self.unheard(state, index);
            }
            Outcome::Applied => match request.then {
                Some(then) => {
                    state.starters[index].phase = Phase::Ready(Request { writes: then, then: None, ..request })
                }
                None => {
                    state.acknowledge(request.id, request.now + self.bounds.duration);
                    state.starters[index].done();
                }
            },
            // An answer that says nothing is as good as none, and both repeat.
            _ if !heard => self.unheard(state, index),
            Outcome::Conflict if self.is(Mutant::ConflictIsDenial) => self.deny(state, index),
            Outcome::Refused(1) if request.plain && state.own_is_ended(request.id) => {
                self.note(Event::AnsweredEnded);
                state.starters[index].done();
            }
            Outcome::Conflict | Outcome::Refused(_) if request.plain => {
                state.starters[index].phase = Phase::Reading { now: request.now, seen: self.nothing_read() };
            }
            Outcome::Conflict | Outcome::Refused(_) => {
                let now = state.now.saturating_add_signed(self.bounds.starters[index].skew);
                state.starters[index].again(Phase::Idle);
                if state.starters[index].phase == Phase::Idle {
                    self.attempt(state, index, Phase::Reading { now, seen: self.nothing_read() });
                }
            }
        }
    }

    pub fn give_up(&self, state: &mut State, index: usize) {
        if let Phase::Ready(request) = &state.starters[index].phase {
            state.zombies.push(request.clone());
            self.unheard(state, index);
        }
    }

    /// The caller does not know what became of its request: its player repeats the call, if it still wants to.
    fn unheard(&self, state: &mut State, index: usize) {
        if self.is(Mutant::LostAnswerIsDenial) {
            return self.deny(state, index);
        }
        if self.is(Mutant::KeyedRetryMakesSecondLease) || self.is(Mutant::UnknownIsNotApplied) {
            state.starters[index].id = IDS as Id - 1;
        }
        state.starters[index].again(Phase::Idle);
    }

    fn attempt(&self, state: &mut State, index: usize, phase: Phase) {
        let settled = !state.unsettled.any();
        let starter = &mut state.starters[index];
        starter.phase = phase;
        (starter.was_full, starter.limit) = (false, u8::MAX);
        let own = state.items.leases[starter.id as usize];
        let now = starter.now().unwrap_or_default();
        starter.was_admitted = settled && own.is_some_and(|own| own.ended.is_none() && own.expires_at > now);
    }

    pub fn request(&self, index: usize, id: Id) -> StartRequest {
        let start = &self.bounds.starters[index];
        let replaces: Vec<Id> = start.replaces.into_iter().collect();
        protocol::request(id, start.device, &replaces, start.at_limit, self.bounds.limit, self.bounds.duration)
    }

    /// Ids that nobody starts are not worth a step.
    fn nothing_read(&self) -> Seen {
        let mut seen = Seen { counter: None, leases: [Some(None); IDS] };
        self.bounds.ids().for_each(|id| seen.leases[id as usize] = None);
        seen
    }

    pub fn wrongly(&self, mut writes: Vec<Write>) -> Vec<Write> {
        if self.is(Mutant::UncountWithoutDelete) {
            writes.retain(|write| !matches!(write, Write::DeleteDead { .. }));
        }
        for write in &mut writes {
            match write {
                Write::AddMember { bumps, minds_limit, .. } => {
                    *bumps = !self.is(Mutant::PlainStartKeepsRevision);
                    *minds_limit = !self.is(Mutant::PlainStartIgnoresOwnLimit);
                }
                Write::SetMembers { minds_revision, minds_limit, .. } => {
                    *minds_revision = !self.is(Mutant::StartIgnoresRevision);
                    *minds_limit = !self.is(Mutant::StartIgnoresOwnLimit);
                }
                Write::DeleteDead { conditional, .. } => *conditional = !self.is(Mutant::DeleteDeadUnconditionally),
                Write::MarkEnded { conditional, .. } => *conditional = !self.is(Mutant::MarkWithoutLease),
                Write::PutLease { conditional, .. } => *conditional = !self.is(Mutant::PutWithoutCondition),
                _ => {}
            }
        }
        writes
    }
}

impl State {
    fn own_is_ended(&self, id: Id) -> bool {
        self.items.leases[id as usize].is_some_and(|own| own.ended.is_some())
    }

    pub fn is_wrong(&mut self, wrong: Wrong) {
        self.wrong.get_or_insert(wrong);
    }
}
