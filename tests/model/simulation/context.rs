//! The shared state of one run: faults, trace, counts, the stored state after each write, API calls, and the first
//! violation.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use stream_manager::clock::Clock;
use stream_manager::domain::lease::Timestamp;
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::domain::rules::LimitMode;
use stream_manager::limiter::Policy;
use stream_manager::store::{Refusal, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{ApiRequest, ApiResponse, Operation};
use super::checker::responses::ResponseCheck;
use super::checker::violation::{Violation, ViolationKind};
use super::checker::writes::WriteCheck;
use super::clock::SkewedClock;
use super::faults::{DeliveryPlan, FaultRates};
use super::state::{ShortId, ShortTime, StoreWrite, UserState};

tokio::task_local! {
    /// The index of the API call that sends a store request.
    pub static CALL: usize;
}

pub struct RunContext {
    pub seed: u64,
    /// The settings of all instances. Only the modes of the limits can differ.
    pub policy: Policy,
    pub started: Instant,
    /// Cancelled at the first violation, because later steps give no useful information.
    pub stop: CancellationToken,
    inner: Mutex<Inner>,
}

struct Inner {
    random: StdRng,
    fault_rates: FaultRates,
    outage: bool,
    trace: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    /// Every state of each user, in order.
    users: BTreeMap<UserName, Vec<Arc<UserState>>>,
    calls: Vec<Call>,
    /// The stream that each idempotency key created.
    keys: BTreeMap<(UserName, String), StreamId>,
    violation: Option<Violation>,
}

struct Call {
    request: ApiRequest,
    /// The number of the user's states when the call began.
    first_state: usize,
    /// The clock and the settings of the instance that handles the call.
    clock: SkewedClock,
    policy: Policy,
    began_at: Timestamp,
    created: Option<StreamId>,
}

/// The result of a run.
pub struct Report {
    pub trace: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
}

impl RunContext {
    pub fn new(seed: u64, policy: Policy, mut random: StdRng) -> Arc<Self> {
        let fault_rates = FaultRates::draw(&mut random);
        let inner = Inner {
            random,
            fault_rates,
            outage: false,
            trace: vec![format!("{policy:?} {fault_rates:?}")],
            counts: BTreeMap::new(),
            users: BTreeMap::new(),
            calls: Vec::new(),
            keys: BTreeMap::new(),
            violation: None,
        };
        let (started, stop) = (Instant::now(), CancellationToken::new());
        Arc::new(Self { seed, policy, started, stop, inner: Mutex::new(inner) })
    }

    /// Draws the fault and the delays of one request from the run's random generator.
    pub fn plan(&self, writes: bool) -> DeliveryPlan {
        let mut inner = self.inner();
        let rates = inner.fault_rates;
        let plan = DeliveryPlan::draw(rates, writes, &mut inner.random);
        drop(inner);
        self.count(plan.delivery.name());
        plan
    }

    pub fn coin(&self) -> bool {
        rand::RngExt::random(&mut self.inner().random)
    }

    pub fn set_outage(&self, outage: bool) {
        self.inner().outage = outage;
        self.log(if outage { "outage begins" } else { "outage ends" });
    }

    pub fn outage(&self) -> bool {
        self.inner().outage
    }

    pub fn disable_faults(&self) {
        self.inner().fault_rates = FaultRates::NONE;
        self.set_outage(false);
    }

    pub fn count(&self, event: &'static str) {
        self.add(event, 1);
    }

    fn add(&self, event: &'static str, times: u64) {
        *self.inner().counts.entry(event).or_default() += times;
    }

    /// Adds a line with the virtual time to the trace.
    pub fn log(&self, line: impl Display) {
        let ms = self.started.elapsed().as_millis();
        self.inner().trace.push(format!("{:>4}.{:03} {line}", ms / 1000, ms % 1000));
    }

    pub fn state(&self, user: &UserName) -> Arc<UserState> {
        self.inner().users.get(user).and_then(|states| states.last().cloned()).unwrap_or_default()
    }

    /// The streams that the user's calls have created, oldest first.
    pub fn created_ids(&self, user: &UserName) -> Vec<StreamId> {
        self.inner().calls.iter().filter(|call| call.request.user == *user).filter_map(|call| call.created).collect()
    }

    pub fn operation(&self, call: Option<usize>) -> Option<Operation> {
        self.inner().calls.get(call?).map(|call| call.request.operation.clone())
    }

    /// Checks and records an applied write. `after` is the user's state after the write.
    pub fn record_write(
        &self,
        user: &UserName,
        write: &StoreWrite,
        call: Option<usize>,
        after: Result<UserState, StoreError>,
    ) {
        let after = match after {
            Ok(after) => Arc::new(after),
            Err(error) => return self.violate(ViolationKind::InvalidItem.with(format!("{error} after {write}"))),
        };
        let before = self.state(user);
        if before == after {
            return;
        }
        self.log(format_args!("      {user} {write}: {after}"));
        let (operation, during_call, policy) = match self.call_and_states(user, call) {
            Some((operation, states, policy)) => (Some(operation), Some(states), Some(policy)),
            None => (None, None, None),
        };
        let check = WriteCheck {
            before: &before,
            after: &after,
            write,
            operation: operation.as_ref(),
            during_call: &during_call.unwrap_or_default(),
            policy: policy.as_ref().unwrap_or(&self.policy),
        };
        let result = self.check_time(call, write.now()).and_then(|()| check.run());
        self.count_write(&check);
        if let StoreWrite::Start { stream_id, .. } = write
            && !before.leases.contains_key(stream_id)
        {
            self.record_creation(*stream_id, call);
        }
        self.inner().users.entry(user.clone()).or_insert_with(|| vec![Arc::default()]).push(after);
        if let Err(violation) = result {
            self.violate(violation);
        }
    }

    /// The operation of a call, the states of its user since it began, and the settings of its instance.
    fn call_and_states(
        &self,
        user: &UserName,
        call: Option<usize>,
    ) -> Option<(Operation, Vec<Arc<UserState>>, Policy)> {
        let inner = self.inner();
        let call = inner.calls.get(call?)?;
        let states = inner.users.get(user)?[call.first_state - 1..].to_vec();
        Some((call.request.operation.clone(), states, call.policy.clone()))
    }

    fn count_write(&self, check: &WriteCheck<'_>) {
        let WriteCheck { before, after, write, operation, .. } = check;
        let deleted = before.leases.keys().filter(|id| !after.leases.contains_key(id)).count() as u64;
        let ended = |state: &UserState| state.leases.len() - state.renewable();
        let ended = ended(after).saturating_sub(ended(before)) as u64;
        let has_tombstone = |state: &UserState| state.counter.is_some_and(|counter| counter.ttl_s.is_some());
        match write {
            StoreWrite::Start { .. } => {
                self.count("admissions");
                self.add("dead leases deleted", deleted);
                self.add("streams ended by starts", ended);
                self.add("starts after an erasure", has_tombstone(before).into());
                self.add("overdue streams evicted before older ones", check.evicts_overdue_before_older().into());
                if check.has_rules() {
                    self.count("admissions under rules");
                    self.add("streams ended by starts under rules", ended);
                }
            }
            StoreWrite::Heartbeat { content, .. } => {
                self.count("renewals");
                self.add("contents changed", content.is_some().into());
            }
            StoreWrite::Stop { .. } => self.count("stops"),
            StoreWrite::End { .. } => match operation {
                Some(Operation::Evict(None, _)) => self.add("streams ended by evictions of all", ended),
                Some(Operation::EndExcess(_)) => self.add("streams ended by limits", ended),
                Some(Operation::Erase) => self.add("streams ended by erasures", deleted),
                _ => self.add("streams ended by evictions of listed streams", ended),
            },
            StoreWrite::Purge | StoreWrite::DeleteEnded => self.add("leases erased", deleted),
            StoreWrite::Bury => self.count("tombstones"),
            StoreWrite::SetLimit { .. } => self.count("limit changes"),
            StoreWrite::Sweep { .. } => {
                self.add("TTL deletions", deleted);
                self.add("tombstones deleted", (has_tombstone(before) && after.counter.is_none()).into());
            }
        }
        self.add("users blocked", (after.stored_limit != before.stored_limit && after.is_blocked()).into());
    }

    /// Checks that a call creates only one stream, and that all calls with the same idempotency key create the same
    /// stream.
    fn record_creation(&self, stream_id: StreamId, call: Option<usize>) {
        let mut inner = self.inner();
        let Some(call) = call.and_then(|call| inner.calls.get_mut(call)) else { return };
        let by_call = *call.created.get_or_insert(stream_id);
        let key = match &call.request.operation {
            Operation::Start(_, Some(key)) => Some((call.request.user.clone(), key.clone())),
            _ => None,
        };
        let by_key = key.map_or(by_call, |key| *inner.keys.entry(key).or_insert(stream_id));
        drop(inner);
        for first in [by_call, by_key] {
            if first != stream_id {
                let details = format!("{} and {}", ShortId(first), ShortId(stream_id));
                self.violate(ViolationKind::DuplicateStream.with(details));
            }
        }
    }

    /// Records the beginning of a call and returns the call's index.
    pub fn begin_call(&self, request: &ApiRequest, instance: usize, clock: SkewedClock, policy: Policy) -> usize {
        let mut inner = self.inner();
        let states = inner.users.entry(request.user.clone()).or_insert_with(|| vec![Arc::default()]);
        let first_state = states.len();
        let began_at = clock.now();
        inner.calls.push(Call { request: request.clone(), first_state, clock, policy, began_at, created: None });
        let call = inner.calls.len() - 1;
        drop(inner);
        self.count("calls");
        self.log(format_args!("#{call} instance {instance}: {request}"));
        call
    }

    /// Records and checks the response of a call.
    pub fn end_call(&self, call: usize, response: &Result<ApiResponse, StoreError>) {
        match response {
            Ok(response) => self.log(format_args!("#{call} {response}")),
            Err(error) => self.log(format_args!("#{call} {}", error_kind(error))),
        }
        let (request, states, clock, policy) = {
            let inner = self.inner();
            let Call { request, first_state, clock, policy, .. } = &inner.calls[call];
            (request.clone(), inner.users[&request.user][first_state - 1..].to_vec(), *clock, policy.clone())
        };
        let check = ResponseCheck { states: &states, policy: &policy, ended_at: clock.now() };
        let result = match response {
            Ok(response) => {
                self.count(response.kind());
                let is_observed = policy.limit_mode == LimitMode::Observe;
                self.add("denials by the hard limit", (is_observed && response.is_denied_by_limit()).into());
                self.check_time(Some(call), response.now()).and_then(|()| check.run(&request, response))
            }
            Err(StoreError::Corrupt { key, problem }) => {
                Err(ViolationKind::InvalidItem.with(format!("{key}: {problem}")))
            }
            Err(StoreError::NotApplied { refusal: Refusal::Rejected, detail }) => {
                Err(ViolationKind::InvalidRequest.with(detail.clone()))
            }
            Err(_) => {
                self.count("store failures");
                Ok(())
            }
        };
        if let Err(Violation { kind, details }) = result {
            self.violate(kind.with(format!("#{call} {request}: {details}")));
        }
    }

    /// Checks that the time in a write or response is between the beginning of the call and now, on the instance's
    /// clock.
    fn check_time(&self, call: Option<usize>, time: Option<Timestamp>) -> Result<(), Violation> {
        let inner = self.inner();
        let (Some(call), Some(time)) = (call.and_then(|call| inner.calls.get(call)), time) else { return Ok(()) };
        if (call.began_at..=call.clock.now()).contains(&time) {
            return Ok(());
        }
        let details = format!("{} is not between {} and now", ShortTime(time), ShortTime(call.began_at));
        Err(ViolationKind::WrongTime.with(details))
    }

    pub fn violate(&self, violation: Violation) {
        self.log(format_args!("VIOLATION {violation}"));
        self.inner().violation.get_or_insert(violation);
        self.stop.cancel();
    }

    pub fn report(&self) -> Report {
        let mut inner = self.inner();
        Report {
            trace: std::mem::take(&mut inner.trace),
            counts: std::mem::take(&mut inner.counts),
            violation: inner.violation.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes an error without its text, because the text can differ between runs of the same seed.
fn error_kind(error: &StoreError) -> String {
    match error {
        StoreError::NotApplied { refusal, .. } => format!("not applied: {refusal:?}"),
        StoreError::Unknown(_) => "unknown outcome".to_owned(),
        StoreError::Corrupt { .. } => "corrupt item".to_owned(),
    }
}
