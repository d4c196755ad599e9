//! The protocol under everything that DynamoDB, the network and clocks may do to it, for `stateright` to explore.
//!
//! A transaction locks its items and is decided at once; then its items become visible one by one, in any order. Until
//! then readers see the old item, and other writers of it meet a conflict. A caller may give up on a request, which
//! arrives later or never, and may lose an answer. Whoever crashes takes no further step, which is in every run, since
//! no step is ever due. Clocks are off by what the bounds say. What the answers and the items must never do is in
//! [`checks`]; what a start does step by step, in [`starter`].

pub mod bounds;
pub mod checks;
mod runs;
pub mod starter;
pub mod story;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property};

use self::bounds::Bounds;
use self::checks::Wrong;
use self::starter::{Part, Phase, Starter};
use crate::mutants::Mutant;
use crate::protocol::{self, CounterItem, Id, Ids, Items, LeaseItem, Place, Tick, Write, Writes, bit};

/// The clocks of the model begin here, so that one that is late has something to be late by.
pub const BEGIN: Tick = 2;

pub struct Protocol {
    pub bounds: Bounds,
    pub mutant: Option<Mutant>,
    /// How often each thing happened, over all states: what never happened was not checked.
    pub seen: Arc<[AtomicU64; Event::COUNT]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The true time.
    pub now: Tick,
    /// The items as the transactions have decided them.
    pub items: Items,
    pub unsettled: Unsettled,
    pub starters: Vec<Starter>,
    /// Requests whose callers gave up on them, and that may still arrive.
    pub zombies: Vec<Request>,
    /// Until when each stream's player was told that it may play; 0 for nobody.
    pub acked: [Tick; protocol::IDS],
    /// Whose players have sent a stop: such an id is not started again.
    pub stopped: Ids,
    pub limit_set: bool,
    pub wrong: Option<Wrong>,
}

/// What readers still see of items that a transaction has written. These are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unsettled {
    pub counter: Option<CounterItem>,
    pub leases: [Option<Option<LeaseItem>>; protocol::IDS],
}

/// A start's writes on their way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub starter: usize,
    pub id: Id,
    pub now: Tick,
    pub plain: bool,
    pub writes: Writes,
    /// What a wrong version writes only after that.
    pub then: Option<Writes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Tick,
    /// A call begins, or a player repeats one.
    Begin(usize),
    ReadCounter(usize),
    ReadLeases(usize),
    ReadLease(usize, Id),
    /// The request arrives and is answered.
    Send(usize),
    /// The request arrives, and nobody hears of it.
    SendUnheard(usize),
    /// The caller gives up; the request is still on its way.
    GiveUp(usize),
    Arrive(usize),
    /// An item that a transaction wrote becomes visible and writable.
    Settle(Place),
    Heartbeat {
        id: Id,
        now: Tick,
    },
    Stop(Id),
    Evict(Id),
    Ttl(Id),
    SetLimit,
}

/// What a run should have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    PlainStart,
    DecidedStart,
    Reaped,
    ReapedUnseen,
    Ended,
    Denied,
    Existing,
    AnsweredEnded,
    Conflict,
    GuardRefused,
    DeadRefused,
    StaleRead,
    AnswerLost,
    ZombieApplied,
    Renewed,
    Stopped,
    Expired,
    LimitSet,
}

impl Event {
    pub const ALL: [Self; Self::COUNT] = [
        Self::PlainStart,
        Self::DecidedStart,
        Self::Reaped,
        Self::ReapedUnseen,
        Self::Ended,
        Self::Denied,
        Self::Existing,
        Self::AnsweredEnded,
        Self::Conflict,
        Self::GuardRefused,
        Self::DeadRefused,
        Self::StaleRead,
        Self::AnswerLost,
        Self::ZombieApplied,
        Self::Renewed,
        Self::Stopped,
        Self::Expired,
        Self::LimitSet,
    ];
    pub const COUNT: usize = 18;
}

/// What became of a request at the table.
pub enum Outcome {
    Applied,
    Conflict,
    /// By the condition of the write at this position.
    Refused(usize),
}

impl Protocol {
    pub fn note(&self, event: Event) {
        self.seen[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Locks, checks and decides; what is applied is held against the promises.
    fn transact(&self, state: &mut State, writes: &[Write], now: Tick, by: Option<&Request>) -> Outcome {
        if writes.iter().any(|write| state.unsettled.locks(write.place())) {
            self.note(Event::Conflict);
            return Outcome::Conflict;
        }
        if let Some(refused) = writes.iter().position(|write| !write.holds(&state.items)) {
            match writes[refused] {
                Write::SetMembers { .. } => self.note(Event::GuardRefused),
                Write::DeleteDead { .. } => self.note(Event::DeadRefused),
                _ => {}
            }
            return Outcome::Refused(refused);
        }
        let before = state.items;
        writes.iter().for_each(|write| write.apply(&mut state.items));
        if writes.len() > 1 {
            writes.iter().for_each(|write| state.unsettled.hide(write.place(), &before));
        }
        checks::after_writes(self, state, &before, writes, now, by);
        Outcome::Applied
    }

    /// A renewal whose answer is lost leaves less to hold it to than one that is heard, so all are heard.
    fn heartbeat(&self, state: &mut State, id: Id, now: Tick) {
        let mut write = protocol::heartbeat(id, now, self.bounds.duration);
        let Write::Renew { new, if_stored, unless_ended, unless_expired, forward, .. } = &mut write else { return };
        let new = *new;
        *if_stored = !self.is(Mutant::HeartbeatCreates);
        *unless_ended = !self.is(Mutant::HeartbeatIgnoresEviction);
        *unless_expired = !self.is(Mutant::HeartbeatRevivesExpired);
        *forward = !self.is(Mutant::HeartbeatNotMonotone);
        match self.transact(state, &[write], now, None) {
            Outcome::Applied => {
                self.note(Event::Renewed);
                state.acknowledge(id, new);
            }
            Outcome::Refused(_) => {
                let stored = state.items.leases[id as usize].filter(|stored| stored.ended.is_none());
                if let Some(stored) = stored.filter(|stored| stored.expires_at >= new) {
                    state.acknowledge(id, stored.expires_at);
                }
            }
            Outcome::Conflict => {}
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: BEGIN,
            items: Items::default(),
            unsettled: Unsettled::default(),
            starters: self.bounds.starters.iter().map(|start| Starter::new(start.id, self.bounds.attempts)).collect(),
            zombies: Vec::new(),
            acked: [0; protocol::IDS],
            stopped: 0,
            limit_set: false,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        if state.now < self.bounds.until {
            actions.push(Action::Tick);
        }
        for (index, starter) in state.starters.iter().enumerate() {
            match &starter.phase {
                Phase::Idle if state.stopped & bit(starter.id) == 0 => actions.push(Action::Begin(index)),
                Phase::Reading { seen, .. } => starter::reads(self.bounds.reads, index, seen, actions),
                Phase::Ready(_) => {
                    actions.extend([Action::Send(index), Action::SendUnheard(index)]);
                    if state.zombies.len() < self.bounds.zombies {
                        actions.push(Action::GiveUp(index));
                    }
                }
                Phase::Idle | Phase::Done => {}
            }
        }
        actions.extend((0..state.zombies.len()).map(Action::Arrive));
        if state.unsettled.counter.is_some() {
            actions.push(Action::Settle(Place::Counter));
        }
        for id in self.bounds.ids() {
            if state.unsettled.locks(Place::Lease(id)) {
                actions.push(Action::Settle(Place::Lease(id)));
                continue;
            }
            let stored = state.items.leases[id as usize];
            if stored.is_some_and(|lease| lease.expires_at <= state.now || lease.ended.is_some()) {
                actions.push(Action::Ttl(id));
            }
            // What is neither stored nor counted is changed by none of these.
            if stored.is_none() && state.items.counter.streams & bit(id) == 0 {
                continue;
            }
            let clocks = state.now - 2..=state.now + 1;
            actions.extend(clocks.map(|now| Action::Heartbeat { id, now }));
            if self.bounds.stops {
                actions.push(Action::Stop(id));
            }
            if self.bounds.evictions {
                actions.push(Action::Evict(id));
            }
        }
        if self.bounds.set_limit.is_some() && !state.limit_set && state.unsettled.counter.is_none() {
            actions.push(Action::SetLimit);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Begin(index) => self.begin(&mut state, index),
            Action::ReadCounter(index) => self.read(&mut state, index, Part::Counter),
            Action::ReadLeases(index) => self.read(&mut state, index, Part::Leases),
            Action::ReadLease(index, id) => self.read(&mut state, index, Part::Lease(id)),
            Action::Send(index) => self.send(&mut state, index, true),
            Action::SendUnheard(index) => self.send(&mut state, index, false),
            Action::GiveUp(index) => self.give_up(&mut state, index),
            Action::Arrive(index) => {
                let request = state.zombies.remove(index);
                if let Outcome::Applied = self.transact(&mut state, &request.writes, request.now, Some(&request)) {
                    self.note(Event::ZombieApplied);
                }
            }
            Action::Settle(Place::Counter) => state.unsettled.counter = None,
            Action::Settle(Place::Lease(id)) => state.unsettled.leases[id as usize] = None,
            Action::Heartbeat { id, now } => self.heartbeat(&mut state, id, now),
            Action::Stop(id) => {
                state.stopped |= bit(id);
                state.acked[id as usize] = 0;
                let now = state.now;
                if let Outcome::Applied = self.transact(&mut state, &protocol::stop(id), now, None) {
                    self.note(Event::Stopped);
                }
            }
            Action::Evict(id) => {
                let now = state.now;
                self.transact(&mut state, &self.wrongly(protocol::evict(id)), now, None);
            }
            Action::Ttl(id) => {
                let now = state.now;
                self.transact(&mut state, &[Write::DeleteLease { id }], now, None);
                self.note(Event::Expired);
            }
            Action::SetLimit => {
                state.limit_set = true;
                let (now, limit) = (state.now, self.bounds.set_limit.flatten());
                self.transact(&mut state, &[Write::SetLimit { limit }], now, None);
                self.note(Event::LimitSet);
            }
        }
        state.forget_the_past(&self.bounds);
        checks::look_for_causes(self, &mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no promise is broken", |_, state: &State| state.wrong.is_none()),
            Property::always("nobody is stuck", |model: &Self, state: &State| {
                state.wrong.is_some() || checks::is_stuck(model, state).is_none()
            }),
        ]
    }
}

impl State {
    pub fn acknowledge(&mut self, id: Id, until: Tick) {
        if self.stopped & bit(id) == 0 {
            self.acked[id as usize] = self.acked[id as usize].max(until);
        }
    }

    /// What readers see now.
    pub fn visible(&self) -> Items {
        Items {
            counter: self.unsettled.counter.unwrap_or(self.items.counter),
            leases: std::array::from_fn(|id| self.unsettled.leases[id].unwrap_or(self.items.leases[id])),
        }
    }

    /// Makes states alike that differ only in what no later step can ask for.
    fn forget_the_past(&mut self, bounds: &Bounds) {
        let slowest = self.now.saturating_sub(bounds.slowest());
        self.acked.iter_mut().filter(|until| **until <= slowest).for_each(|until| *until = 0);
        self.zombies.sort_by_cached_key(|request| (request.starter, request.now, request.plain));
    }
}

impl Unsettled {
    pub fn locks(&self, place: Place) -> bool {
        match place {
            Place::Counter => self.counter.is_some(),
            Place::Lease(id) => self.leases[id as usize].is_some(),
        }
    }

    fn hide(&mut self, place: Place, before: &Items) {
        match place {
            Place::Counter => self.counter = Some(before.counter),
            Place::Lease(id) => self.leases[id as usize] = Some(before.leases[id as usize]),
        }
    }

    pub fn any(&self) -> bool {
        self.counter.is_some() || self.leases.iter().any(Option::is_some)
    }
}
