//! Checks responses: each one must have been true at some moment between the beginning and the end of its call.

use std::collections::BTreeSet;
use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Denial, StartOutcome, Started};
use stream_manager::domain::lease::{Lease, LimitSource, StreamLimit, Timestamp, UserLimit};
use stream_manager::domain::names::StreamId;
use stream_manager::domain::rules::LimitMode;
use stream_manager::limiter::{Policy, StartOptions, Timestamped, Usage};
use stream_manager::store::{Stop, StreamState};

use super::violation::{Violation, ViolationKind};
use super::writes::replaces;
use crate::simulation::api::{ApiRequest, ApiResponse, Operation};
use crate::simulation::state::{ShortId, UserState, short_ids};

pub struct ResponseCheck<'a> {
    /// All states of the user during the call, including the state at its beginning.
    pub states: &'a [Arc<UserState>],
    /// The settings of the instance that handled the call.
    pub policy: &'a Policy,
    /// The end of the call, on the instance's clock.
    pub ended_at: Timestamp,
}

type CheckResult = Result<(), Violation>;

impl ResponseCheck<'_> {
    pub fn run(&self, request: &ApiRequest, response: &ApiResponse) -> CheckResult {
        match (&request.operation, response) {
            (Operation::Start(options, _), ApiResponse::Start(Timestamped { now, value: outcome })) => {
                self.check_start(request, options, outcome, *now)
            }
            (Operation::Heartbeat(id, _), ApiResponse::Heartbeat(Timestamped { now, value: state })) => {
                self.check_heartbeat(*id, state, *now)
            }
            (Operation::Get(id), ApiResponse::Get(Timestamped { now, value: state })) => {
                self.check_state(*id, state, *now)
            }
            (Operation::Stop(id), ApiResponse::Stop(stop)) => self.check_stop(*id, *stop),
            (Operation::Evict(ids, _), ApiResponse::Ended(ended)) => self.check_eviction(ids.as_deref(), ended),
            (Operation::EndExcess(limit), ApiResponse::Ended(ended)) => self.check_excess(*limit, ended),
            (Operation::Erase, ApiResponse::Erased) => self.check_erasure(),
            (Operation::List, ApiResponse::List(Timestamped { now, value: usage })) => self.check_list(usage, *now),
            (Operation::GetLimit, ApiResponse::GetLimit(limit)) => self.check_limit(limit),
            (Operation::SetLimit(limit), ApiResponse::SetLimit) => {
                let is_set = |state: &UserState| state.stored_limit == *limit;
                self.at_some_moment(is_set, ViolationKind::UnfoundedSuccess, || {
                    format!("the stored limit was never {limit:?}")
                })
            }
            (operation, response) => {
                Err(ViolationKind::InvalidRequest.with(format!("{operation:?} returned {response:?}")))
            }
        }
    }

    pub fn at_some_moment(
        &self,
        holds: impl Fn(&UserState) -> bool,
        kind: ViolationKind,
        details: impl Fn() -> String,
    ) -> CheckResult {
        if self.states.iter().any(|state| holds(state)) { Ok(()) } else { Err(kind.with(details())) }
    }

    pub fn in_some_write(
        &self,
        holds: impl Fn(&UserState, &UserState) -> bool,
        kind: ViolationKind,
        details: impl Fn() -> String,
    ) -> CheckResult {
        let found = self.states.windows(2).any(|pair| holds(&pair[0], &pair[1]));
        if found { Ok(()) } else { Err(kind.with(details())) }
    }

    fn check_start(
        &self,
        request: &ApiRequest,
        options: &StartOptions,
        outcome: &StartOutcome,
        now: Timestamp,
    ) -> CheckResult {
        match outcome {
            StartOutcome::Started(started) => {
                self.check_started(started, now, options)?;
                self.check_admission(started, now)?;
                self.check_over_limit(started, options)
            }
            StartOutcome::Existing(started) if !started.over_limit.is_empty() => {
                Err(ViolationKind::WrongReport.with("a repeated start reports a limit again"))
            }
            StartOutcome::Existing(started) => self.check_started(started, now, options),
            StartOutcome::Ended(lease) => self.check_inactive(lease, now),
            StartOutcome::KeyReused => {
                Err(ViolationKind::UnfoundedEnd.with("no key was used for two different requests"))
            }
            StartOutcome::Denied(denial) => {
                self.check_denial(denial, now, options)?;
                let own = options.idempotency_key.as_ref().map(|key| StreamId::from_key(&request.user, key));
                own.map_or(Ok(()), |own| self.check_own_not_live(own, now))
            }
        }
    }

    fn check_started(&self, started: &Started, now: Timestamp, options: &StartOptions) -> CheckResult {
        let id = started.lease.stream_id;
        self.check_live(&started.lease, now, ViolationKind::UnfoundedSuccess)?;
        let limit =
            |state: &UserState| state.limit(options.token_limit, self.policy.default_limit) == started.limit.limit;
        self.at_some_moment(limit, ViolationKind::UnfoundedSuccess, || {
            format!("the limit was never {}", started.limit.limit)
        })?;
        for ended in &started.ended_ids() {
            let by_start = |state: &UserState| {
                let termination = state.lease(*ended).and_then(|lease| lease.termination.as_ref());
                let by = termination.and_then(|termination| termination.ended_by.as_ref());
                by.is_some_and(|by| by.stream_id == Some(id))
            };
            let details = || format!("{} was never ended by {}", ShortId(*ended), ShortId(id));
            self.at_some_moment(by_start, ViolationKind::UnfoundedSuccess, details)?;
        }
        Ok(())
    }

    /// Checks that the call stored this lease with a full lease duration, and ended exactly the streams in the
    /// response.
    fn check_admission(&self, started: &Started, now: Timestamp) -> CheckResult {
        let (lease, id) = (&started.lease, started.lease.stream_id);
        let ended: BTreeSet<StreamId> = started.ended_ids().into_iter().collect();
        // Leave out the streams that an earlier lease with the same id ended.
        let ends = |old: &UserState, new: &UserState| &new.ended_by(id) - &old.ended_by(id) == ended;
        let stored = |old: &UserState, new: &UserState| {
            old.lease(id) != Some(lease) && new.lease(id) == Some(lease) && ends(old, new)
        };
        let details = || {
            format!(
                "no write stored {} and ended exactly the streams{}",
                ShortId(id),
                short_ids(&started.ended_ids())
            )
        };
        self.in_some_write(stored, ViolationKind::UnfoundedSuccess, details)?;
        if lease.expires_at < self.policy.terms.expires_at(now) {
            let details = format!("{} expires before a full lease duration", ShortId(id));
            return Err(ViolationKind::UnfoundedSuccess.with(details));
        }
        Ok(())
    }

    /// The members and the limit are in one item, so both must have been true at the same moment. Each lease must have
    /// been live at some moment.
    fn check_denial(&self, denial: &Denial, now: Timestamp, options: &StartOptions) -> CheckResult {
        let ids = short_ids(denial.streams.iter().map(|lease| &lease.stream_id));
        let kept = denial.streams.iter().filter(|lease| !replaces(options, lease)).count();
        if kept < denial.limit.get() as usize {
            return Err(ViolationKind::UnfoundedDenial.with(format!("limit {}, live only:{ids}", denial.limit)));
        }
        let by_hard_limit = denial.rule.is_none() && self.policy.limit_mode == LimitMode::Observe;
        if options.at_limit == Some(AtLimit::EvictOldest) && !denial.limit.is_blocked() && !by_hard_limit {
            let details = format!("denied instead of evicting one of{ids}");
            return Err(ViolationKind::UnfoundedDenial.with(details));
        }
        let full = |state: &UserState| {
            let own_limit = state.limit(options.token_limit, self.policy.default_limit);
            let limit = if by_hard_limit { self.policy.hard_limit } else { own_limit };
            (denial.rule.is_some() || limit == denial.limit)
                && denial.streams.iter().all(|lease| state.members.contains(&lease.stream_id))
        };
        let details = || format!("no state had limit {} and members{ids}", denial.limit);
        self.at_some_moment(full, ViolationKind::UnfoundedDenial, details)?;
        self.check_denying_rule(denial, now, options)?;
        denial.streams.iter().try_for_each(|lease| self.check_live(lease, now, ViolationKind::UnfoundedDenial))
    }

    /// A repeated start whose first attempt was admitted must return the admitted lease instead of a denial.
    fn check_own_not_live(&self, own: StreamId, now: Timestamp) -> CheckResult {
        let not_live = |state: &UserState| state.lease(own).is_none_or(|lease| !lease.is_live_at(now));
        let details = || format!("{} was live during the whole call", ShortId(own));
        self.at_some_moment(not_live, ViolationKind::UnfoundedDenial, details)
    }

    fn check_live(&self, lease: &Lease, now: Timestamp, kind: ViolationKind) -> CheckResult {
        let stored = |state: &UserState| lease.is_live_at(now) && state.lease(lease.stream_id) == Some(lease);
        self.at_some_moment(stored, kind, || {
            format!("{} was never live with the returned values", ShortId(lease.stream_id))
        })
    }

    fn check_heartbeat(&self, id: StreamId, state: &StreamState, now: Timestamp) -> CheckResult {
        self.check_state(id, state, now)?;
        match state {
            StreamState::Live(lease) if lease.expires_at < self.policy.terms.expires_at(now) => {
                let details = format!("{} expires before the heartbeat's lease duration", ShortId(id));
                Err(ViolationKind::UnfoundedSuccess.with(details))
            }
            _ => Ok(()),
        }
    }

    fn check_state(&self, id: StreamId, state: &StreamState, now: Timestamp) -> CheckResult {
        match state {
            StreamState::Live(lease) => self.check_live(lease, now, ViolationKind::UnfoundedSuccess),
            StreamState::Inactive(lease) => self.check_inactive(lease, now),
            StreamState::NotFound => {
                let missing = |state: &UserState| state.lease(id).is_none();
                let details = || format!("{} was stored during the whole call", ShortId(id));
                self.at_some_moment(missing, ViolationKind::UnfoundedEnd, details)
            }
        }
    }

    fn check_inactive(&self, lease: &Lease, now: Timestamp) -> CheckResult {
        let id = lease.stream_id;
        let inactive = |state: &UserState| state.lease(id) == Some(lease) && !lease.is_live_at(now);
        let details = || format!("{} was never inactive with the returned values", ShortId(id));
        self.at_some_moment(inactive, ViolationKind::UnfoundedEnd, details)
    }

    fn check_stop(&self, id: StreamId, stop: Stop) -> CheckResult {
        let is_member = |state: &UserState| state.members.contains(&id);
        match stop {
            Stop::Freed => {
                let freed = |old: &UserState, new: &UserState| is_member(old) && !is_member(new);
                let details = || format!("{} did not free a slot", ShortId(id));
                self.in_some_write(freed, ViolationKind::UnfoundedSuccess, details)
            }
            Stop::AlreadyGone => {
                let details = || format!("{} held its slot during the whole call", ShortId(id));
                self.at_some_moment(|state| !is_member(state), ViolationKind::UnfoundedSuccess, details)
            }
        }
    }

    /// Every selected stream must have lost its slot at some moment of the call.
    fn check_eviction(&self, ids: Option<&[StreamId]>, ended: &[StreamId]) -> CheckResult {
        let at_begin = self.states.first().map(|state| state.members.iter().copied().collect::<Vec<_>>());
        for id in ids.unwrap_or(&at_begin.unwrap_or_default()) {
            let gone = |state: &UserState| !state.members.contains(id);
            let details = || format!("{} held its slot during the whole call", ShortId(*id));
            self.at_some_moment(gone, ViolationKind::UnfoundedSuccess, details)?;
        }
        self.check_ended(ended)
    }

    fn check_excess(&self, limit: StreamLimit, ended: &[StreamId]) -> CheckResult {
        let holds = |state: &UserState| {
            state.stored_limit == Some(limit) && limit.exceeded_by(state.members.len().max(state.renewable())) == 0
        };
        let details = || format!("the limit {limit} was never both stored and kept");
        self.at_some_moment(holds, ViolationKind::UnfoundedSuccess, details)?;
        self.check_ended(ended)
    }

    /// One write must have ended these streams. It may have ended other streams only if they had expired.
    fn check_ended(&self, ended: &[StreamId]) -> CheckResult {
        if ended.is_empty() {
            return Ok(());
        }
        let in_one_write = |old: &UserState, new: &UserState| {
            let is_ended = |lease: &&Lease| {
                let termination = new.lease(lease.stream_id).and_then(|lease| lease.termination.as_ref());
                termination
                    .and_then(|termination| termination.ended_by.as_ref())
                    .is_none_or(|by| by.stream_id.is_none())
                    && termination.is_some()
            };
            let by_write: Vec<&Lease> = old.held().filter(is_ended).collect();
            let is_reported = |lease: &&&Lease| ended.contains(&lease.stream_id);
            by_write.iter().filter(is_reported).count() == ended.len()
                && by_write.iter().all(|lease| is_reported(&lease) || lease.expires_at <= self.ended_at)
        };
        let details = || format!("no write ended exactly{}", short_ids(ended));
        self.in_some_write(in_one_write, ViolationKind::UnfoundedSuccess, details)
    }

    /// An erasure leaves no data that was stored when it began, except a tombstone. Streams that started during the call
    /// may hold slots.
    fn check_erasure(&self) -> CheckResult {
        let Some(first) = self.states.first() else { return Ok(()) };
        let is_stored = |state: &UserState, id: &StreamId| state.lease(*id).is_some() || state.members.contains(id);
        let at_begin: BTreeSet<StreamId> = first.leases.keys().chain(&first.members).copied().collect();
        for id in &at_begin {
            let details = || format!("{} was stored during the whole call", ShortId(*id));
            self.at_some_moment(|state| !is_stored(state, id), ViolationKind::NotErased, details)?;
        }
        let has_no_limit = |state: &UserState| state.stored_limit.is_none();
        self.at_some_moment(has_no_limit, ViolationKind::NotErased, || "the limit was always stored".to_owned())?;
        let is_buried = |state: &UserState| state.counter.is_none_or(|counter| counter.ttl_s.is_some());
        let in_use = |index: usize, state: &UserState| {
            let is_new = |id: &StreamId| self.states[..index].iter().any(|earlier| !is_stored(earlier, id));
            !state.members.is_empty() && state.members.iter().all(is_new)
        };
        if self.states.iter().enumerate().any(|(index, state)| is_buried(state) || in_use(index, state)) {
            return Ok(());
        }
        Err(ViolationKind::NotErased.with("the counter never had a TTL"))
    }

    fn check_list(&self, usage: &Usage, now: Timestamp) -> CheckResult {
        let ids = || short_ids(usage.streams.iter().map(|lease| &lease.stream_id));
        let matches = |state: &UserState| {
            state.limit(None, self.policy.default_limit) == usage.limit
                && usage.streams.iter().all(|lease| state.members.contains(&lease.stream_id))
        };
        let details = || format!("no state had limit {} and members{}", usage.limit, ids());
        self.at_some_moment(matches, ViolationKind::UnfoundedList, details)?;
        usage.streams.iter().try_for_each(|lease| self.check_live(lease, now, ViolationKind::UnfoundedList))?;
        let Some((first, rest)) = self.states.split_first() else { return Ok(()) };
        let missing = first.members.iter().find(|id| {
            let live = |state: &UserState| {
                state.members.contains(id) && state.lease(**id).is_some_and(|lease| lease.is_live_at(now))
            };
            let always_live = live(first) && rest.iter().all(|state| live(state));
            always_live && usage.streams.iter().all(|lease| lease.stream_id != **id)
        });
        match missing {
            None => Ok(()),
            Some(id) => {
                let details = format!("{} is missing, but was live during the whole call", ShortId(*id));
                Err(ViolationKind::UnfoundedList.with(details))
            }
        }
    }

    fn check_limit(&self, UserLimit { limit, source }: &UserLimit) -> CheckResult {
        let matches = |state: &UserState| {
            let expected = state.stored_limit.map_or(LimitSource::Default, |_| LimitSource::User);
            expected == *source && state.limit(None, self.policy.default_limit) == *limit
        };
        self.at_some_moment(matches, ViolationKind::UnfoundedList, || format!("never limit {limit}, {source:?}"))
    }
}
