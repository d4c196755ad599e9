//! What a run is about: what is truly stored, step by step, every call, and the first rule that was broken.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use stream_manager::clock::Clock;
use stream_manager::domain::lease::Timestamp;
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::limiter::Policy;
use stream_manager::store::StoreError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answers::Window;
use super::asks::{Answer, Ask, Verb};
use super::clock::SkewedClock;
use super::faults::{Plan, Weather};
use super::oracle::Step;
use super::state::{Act, Short, State, Until};
use super::violation::{Rule, Violation};

tokio::task_local! {
    /// The call on whose behalf a request is sent.
    pub static CALL: usize;
}

pub struct World {
    pub policy: Policy,
    pub started: Instant,
    /// Cancelled at the first violation: what comes after it proves nothing.
    pub over: CancellationToken,
    inner: Mutex<Inner>,
}

struct Inner {
    random: StdRng,
    weather: Weather,
    outage: bool,
    trace: Vec<String>,
    tally: BTreeMap<&'static str, u64>,
    users: BTreeMap<UserName, Vec<Arc<State>>>,
    calls: Vec<Call>,
    /// Which stream each key made.
    keys: BTreeMap<(UserName, String), StreamId>,
    violation: Option<Violation>,
}

struct Call {
    ask: Ask,
    /// How many states the user had when it began.
    began: usize,
    /// Of the instance that was asked, and what it showed then.
    clock: SkewedClock,
    began_at: Timestamp,
    made: Option<StreamId>,
}

/// What is left of a run.
pub struct Report {
    pub trace: Vec<String>,
    pub tally: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
}

impl World {
    pub fn new(policy: Policy, mut random: StdRng) -> Arc<Self> {
        let weather = Weather::of(&mut random);
        let inner = Inner {
            random,
            weather,
            outage: false,
            trace: vec![format!("{policy:?} {weather:?}")],
            tally: BTreeMap::new(),
            users: BTreeMap::new(),
            calls: Vec::new(),
            keys: BTreeMap::new(),
            violation: None,
        };
        let (started, over) = (Instant::now(), CancellationToken::new());
        Arc::new(Self { policy, started, over, inner: Mutex::new(inner) })
    }

    pub fn plan(&self, writes: bool) -> Plan {
        let mut inner = self.inner();
        let weather = inner.weather;
        let plan = Plan::of(weather, writes, &mut inner.random);
        drop(inner);
        self.count(plan.fate.name());
        plan
    }

    /// One of two, by seed.
    pub fn coin(&self) -> bool {
        rand::RngExt::random(&mut self.inner().random)
    }

    pub fn set_outage(&self, outage: bool) {
        self.inner().outage = outage;
        self.note(if outage { "outage begins" } else { "outage ends" });
    }

    pub fn outage(&self) -> bool {
        self.inner().outage
    }

    /// No fault and no delay worth speaking of from here on.
    pub fn calm(&self) {
        self.inner().weather = Weather::CALM;
        self.set_outage(false);
    }

    pub fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn add(&self, what: &'static str, times: u64) {
        *self.inner().tally.entry(what).or_default() += times;
    }

    pub fn note(&self, line: impl Display) {
        let ms = self.started.elapsed().as_millis();
        self.inner().trace.push(format!("{:>4}.{:03} {line}", ms / 1000, ms % 1000));
    }

    pub fn state(&self, user: &UserName) -> Arc<State> {
        self.inner().users.get(user).and_then(|states| states.last().cloned()).unwrap_or_default()
    }

    pub fn ids(&self, user: &UserName) -> Vec<StreamId> {
        self.inner().calls.iter().filter(|call| call.ask.user == *user).filter_map(|call| call.made).collect()
    }

    pub fn lists(&self, call: Option<usize>) -> bool {
        let inner = self.inner();
        call.and_then(|call| inner.calls.get(call)).is_some_and(|call| matches!(call.ask.verb, Verb::List))
    }

    /// One write was applied on behalf of `call` and left the user's items as `after`.
    pub fn step(&self, user: &UserName, act: &Act, call: Option<usize>, after: Result<State, StoreError>) {
        let after = match after {
            Ok(after) => Arc::new(after),
            Err(error) => return self.broken(Rule::NotAnItem.broken(format!("{error} after {act}"))),
        };
        let before = self.state(user);
        if before == after {
            return;
        }
        self.note(format_args!("      {user} {act}: {after}"));
        let asked = call.and_then(|call| self.inner().calls.get(call).map(|call| call.ask.clone()));
        let asked = asked.as_ref().and_then(Ask::start_options);
        let step = Step { before: &before, after: &after, act, asked, default_limit: self.policy.default_limit };
        let verdict = self.by_the_clock(call, act.now()).and_then(|()| step.check());
        self.tally_step(&before, &after, act);
        if let Act::Start { stream_id, .. } = act
            && !before.leases.contains_key(stream_id)
        {
            self.made(*stream_id, call);
        }
        self.inner().users.entry(user.clone()).or_insert_with(|| vec![Arc::default()]).push(after);
        if let Err(violation) = verdict {
            self.broken(violation);
        }
    }

    fn tally_step(&self, before: &State, after: &State, act: &Act) {
        let gone = before.leases.keys().filter(|id| !after.leases.contains_key(id)).count() as u64;
        match act {
            Act::Start { .. } => {
                self.count("admissions");
                self.add("reaped", gone);
                let ended = |state: &State| state.leases.values().filter(|lease| lease.termination.is_some()).count();
                self.add("ended by starts", ended(after).saturating_sub(ended(before)) as u64);
            }
            Act::Beat { .. } => self.count("renewals"),
            Act::Stop { .. } => self.count("stops"),
            Act::Evict { .. } => self.count("evictions"),
            Act::Forget => self.add("pruned after evictions", gone),
            Act::Limit { .. } => self.count("limits set"),
            Act::Sweep { .. } => self.add("TTL deletions", gone),
        }
    }

    /// One call, and one key with all its calls, may make one stream.
    fn made(&self, stream_id: StreamId, call: Option<usize>) {
        let mut inner = self.inner();
        let Some(call) = call.and_then(|call| inner.calls.get_mut(call)) else { return };
        let by_call = *call.made.get_or_insert(stream_id);
        let key = match &call.ask.verb {
            Verb::Start(_, Some(key)) => Some((call.ask.user.clone(), key.clone())),
            _ => None,
        };
        let by_key = key.map_or(by_call, |key| *inner.keys.entry(key).or_insert(stream_id));
        drop(inner);
        for first in [by_call, by_key] {
            if first != stream_id {
                let what = format!("{} and {}", Short(first), Short(stream_id));
                self.broken(Rule::SecondStream.broken(what));
            }
        }
    }

    /// Remembers a call that begins now, and gives it its number.
    pub fn begin(&self, ask: &Ask, instance: usize, clock: SkewedClock) -> usize {
        let mut inner = self.inner();
        let states = inner.users.entry(ask.user.clone()).or_insert_with(|| vec![Arc::default()]);
        let began = states.len();
        inner.calls.push(Call { ask: ask.clone(), began, clock, began_at: clock.now(), made: None });
        let call = inner.calls.len() - 1;
        drop(inner);
        self.count("calls");
        self.note(format_args!("#{call} instance {instance}: {ask}"));
        call
    }

    pub fn end(&self, call: usize, answer: &Result<Answer, StoreError>) {
        match answer {
            Ok(answer) => self.note(format_args!("#{call} {answer}")),
            Err(error) => self.note(format_args!("#{call} {}", kind(error))),
        }
        let (ask, states) = {
            let inner = self.inner();
            let Call { ask, began, .. } = &inner.calls[call];
            (ask.clone(), inner.users[&ask.user][began - 1..].to_vec())
        };
        let window = Window { states: &states, default_limit: self.policy.default_limit, terms: self.policy.terms };
        let verdict = match answer {
            Ok(answer) => {
                self.count(answer.sort());
                self.by_the_clock(Some(call), answer.now()).and_then(|()| window.check(&ask, answer))
            }
            Err(StoreError::Corrupt { key, problem }) => Err(Rule::NotAnItem.broken(format!("{key}: {problem}"))),
            Err(StoreError::NotApplied { refusal: stream_manager::store::Refusal::Rejected, detail }) => {
                Err(Rule::Misasked.broken(detail.clone()))
            }
            Err(_) => {
                self.count("store failures");
                Ok(())
            }
        };
        if let Err(Violation { rule, what }) = verdict {
            self.broken(rule.broken(format!("#{call} {ask}: {what}")));
        }
    }

    /// What a call says of the time was shown by its instance's clock since it began.
    fn by_the_clock(&self, call: Option<usize>, claimed: Option<Timestamp>) -> Result<(), Violation> {
        let inner = self.inner();
        let (Some(call), Some(now)) = (call.and_then(|call| inner.calls.get(call)), claimed) else { return Ok(()) };
        if (call.began_at..=call.clock.now()).contains(&now) {
            return Ok(());
        }
        Err(Rule::ClockIgnored.broken(format!("{} was not between {} and now", Until(now), Until(call.began_at))))
    }

    pub fn broken(&self, violation: Violation) {
        self.note(format_args!("VIOLATION {violation}"));
        self.inner().violation.get_or_insert(violation);
        self.over.cancel();
    }

    pub fn report(&self) -> Report {
        let mut inner = self.inner();
        Report {
            trace: std::mem::take(&mut inner.trace),
            tally: std::mem::take(&mut inner.tally),
            violation: inner.violation.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without its text, which may hold what differs from run to run.
fn kind(error: &StoreError) -> String {
    match error {
        StoreError::NotApplied { refusal, .. } => format!("not applied: {refusal:?}"),
        StoreError::Unknown(_) => "unknown".to_owned(),
        StoreError::Corrupt { .. } => "corrupt".to_owned(),
    }
}
