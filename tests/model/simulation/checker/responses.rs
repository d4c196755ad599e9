//! Checks responses: each one must have been true at some moment between the beginning and the end of its call.

use std::collections::BTreeSet;
use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Denial, StartOutcome, Started};
use stream_manager::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::limiter::{LimitSource, StartOptions, Timestamped, Usage, UserLimit};
use stream_manager::store::{Stop, StoppedBy, StreamState};

use super::violation::{Violation, ViolationKind};
use super::writes::replaces;
use crate::simulation::api::{ApiRequest, ApiResponse, Operation};
use crate::simulation::state::{ShortId, UserState, short_ids};

pub struct ResponseCheck<'a> {
    /// All states of the user during the call, including the state at its beginning.
    pub states: &'a [Arc<UserState>],
    pub default_limit: StreamLimit,
    pub terms: LeaseTerms,
}

type CheckResult = Result<(), Violation>;

impl ResponseCheck<'_> {
    pub fn run(&self, request: &ApiRequest, response: &ApiResponse) -> CheckResult {
        match (&request.operation, response) {
            (Operation::Start(options, _), ApiResponse::Start(Timestamped { now, value: outcome })) => {
                self.check_start(request, options, outcome, *now)
            }
            (Operation::Heartbeat(id), ApiResponse::Heartbeat(Timestamped { now, value: state })) => {
                self.check_heartbeat(*id, state, *now)
            }
            (Operation::Get(id), ApiResponse::Get(Timestamped { now, value: state })) => {
                self.check_state(*id, state, *now)
            }
            (Operation::Stop(id, by), ApiResponse::Stop(stop)) => self.check_stop(*id, *by, *stop),
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

    fn at_some_moment(
        &self,
        holds: impl Fn(&UserState) -> bool,
        kind: ViolationKind,
        details: impl Fn() -> String,
    ) -> CheckResult {
        if self.states.iter().any(|state| holds(state)) { Ok(()) } else { Err(kind.with(details())) }
    }

    fn in_some_write(
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
                self.check_started(started, now)?;
                self.check_admission(started, now)
            }
            StartOutcome::Existing(started) => self.check_started(started, now),
            StartOutcome::Ended(lease) => self.check_inactive(lease, now),
            StartOutcome::KeyReused => {
                Err(ViolationKind::UnfoundedEnd.with("no idempotency key was used for two requests"))
            }
            StartOutcome::Denied(denial) => {
                self.check_denial(denial, now, options)?;
                let own = options.idempotency_key.as_ref().map(|key| StreamId::from_key(&request.user, key));
                own.map_or(Ok(()), |own| self.check_own_not_live(own, now))
            }
        }
    }

    fn check_started(&self, started: &Started, now: Timestamp) -> CheckResult {
        let id = started.lease.stream_id;
        self.check_live(&started.lease, now, ViolationKind::UnfoundedSuccess)?;
        let limit = |state: &UserState| state.limit(self.default_limit) == started.limit;
        self.at_some_moment(limit, ViolationKind::UnfoundedSuccess, || {
            format!("the limit was never {}", started.limit)
        })?;
        for ended in &started.ended {
            let by_start = |state: &UserState| {
                let termination = state.lease(*ended).and_then(|lease| lease.termination.as_ref());
                let by = termination.and_then(|termination| termination.ended_by.as_ref());
                by.is_some_and(|by| by.stream_id == id)
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
        let stored = |old: &UserState, new: &UserState| old.lease(id) != Some(lease) && new.lease(id) == Some(lease);
        let details = || format!("{} was not stored during the call", ShortId(id));
        self.in_some_write(stored, ViolationKind::UnfoundedSuccess, details)?;
        if lease.expires_at < self.terms.expires_at(now) {
            let details = format!("{} expires before a full lease duration", ShortId(id));
            return Err(ViolationKind::UnfoundedSuccess.with(details));
        }
        let ended: BTreeSet<StreamId> = started.ended.iter().copied().collect();
        let by_start = |state: &UserState| state.lease(id) == Some(lease) && state.ended_by(id) == ended;
        let details = || format!("{} did not end exactly{}", ShortId(id), short_ids(&started.ended));
        self.at_some_moment(by_start, ViolationKind::UnfoundedSuccess, details)
    }

    /// The members and the limit are in one item, so both must have been true at the same moment. Each lease must have
    /// been live at some moment.
    fn check_denial(&self, denial: &Denial, now: Timestamp, options: &StartOptions) -> CheckResult {
        let ids = short_ids(denial.streams.iter().map(|lease| &lease.stream_id));
        let kept = denial.streams.iter().filter(|lease| !replaces(options, lease)).count();
        if kept < denial.limit.get() as usize {
            return Err(ViolationKind::UnfoundedDenial.with(format!("limit {} and live:{ids}", denial.limit)));
        }
        if options.at_limit == Some(AtLimit::EvictOldest) {
            let details = format!("denied instead of evicting one of{ids}");
            return Err(ViolationKind::UnfoundedDenial.with(details));
        }
        let full = |state: &UserState| {
            state.limit(self.default_limit) == denial.limit
                && denial.streams.iter().all(|lease| state.members.contains(&lease.stream_id))
        };
        let details = || format!("limit {} with members{ids} was true at no moment", denial.limit);
        self.at_some_moment(full, ViolationKind::UnfoundedDenial, details)?;
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
            format!("{} was never stored and live like this", ShortId(lease.stream_id))
        })
    }

    fn check_heartbeat(&self, id: StreamId, state: &StreamState, now: Timestamp) -> CheckResult {
        self.check_state(id, state, now)?;
        match state {
            StreamState::Live(lease) if lease.expires_at < self.terms.expires_at(now) => {
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
        let details = || format!("{} was never stored and inactive like this", ShortId(id));
        self.at_some_moment(inactive, ViolationKind::UnfoundedEnd, details)
    }

    fn check_stop(&self, id: StreamId, by: StoppedBy, stop: Stop) -> CheckResult {
        let is_member = |state: &UserState| state.members.contains(&id);
        match stop {
            Stop::Freed => {
                let freed = |old: &UserState, new: &UserState| is_member(old) && !is_member(new);
                let details = || format!("{} did not free a slot", ShortId(id));
                self.in_some_write(freed, ViolationKind::UnfoundedSuccess, details)
            }
            Stop::AlreadyGone => {
                // If TTL has deleted a member's lease, the member cannot be evicted.
                let no_lease = |state: &UserState| by == StoppedBy::Evictor && state.lease(id).is_none();
                let nothing_to_stop = |state: &UserState| !is_member(state) || no_lease(state);
                let details = || format!("{} held its slot during the whole call", ShortId(id));
                self.at_some_moment(nothing_to_stop, ViolationKind::UnfoundedSuccess, details)
            }
        }
    }

    fn check_list(&self, usage: &Usage, now: Timestamp) -> CheckResult {
        let ids = || short_ids(usage.streams.iter().map(|lease| &lease.stream_id));
        let matches = |state: &UserState| {
            state.limit(self.default_limit) == usage.limit
                && usage.streams.iter().all(|lease| state.members.contains(&lease.stream_id))
        };
        let details = || format!("limit {} with members{} was true at no moment", usage.limit, ids());
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
            expected == *source && state.limit(self.default_limit) == *limit
        };
        self.at_some_moment(matches, ViolationKind::UnfoundedList, || format!("limit {limit}, {source:?}"))
    }
}
