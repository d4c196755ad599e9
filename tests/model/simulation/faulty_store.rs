//! Wraps the correct store for mutants that misinterpret the result of a store operation or replace the stream id of a
//! start.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;
use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::domain::admission::{AtLimit, Denial, StartOutcome, StartRequest, Started};
use stream_manager::domain::lease::{Lease, StreamLimit, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::domain::rules::{LimitMode, RuleName};
use stream_manager::store::{
    Ended, Heartbeat, HeartbeatRequest, LeaseStore, Refusal, Result, StartHint, Stop, StoreError, StreamState,
    UserStreams,
};

use super::checker::rules::{counts, is_enforced, texts};
use super::clock::BEFORE_ALL;
use super::context::RunContext;
use crate::mutants::Mutant;

pub struct FaultyStore {
    pub store: Arc<dyn LeaseStore>,
    pub mutant: Mutant,
    pub random: Mutex<StdRng>,
    pub context: Arc<RunContext>,
}

impl FaultyStore {
    fn with_new_id(&self, request: &StartRequest) -> StartRequest {
        self.context.count("mutations");
        let mut bytes = [0; 16];
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        StartRequest { stream_id: StreamId::random(bytes), ..request.clone() }
    }

    /// Returns a denial if live and expired leases together take all slots.
    async fn denial_by_dead_leases(
        &self,
        user: &UserName,
        request: &StartRequest,
        now: Timestamp,
    ) -> Result<Option<Denial>> {
        let UserStreams { stored_limit, live: leases } = self.store.streams(user, BEFORE_ALL).await?;
        let limit = if observes(request) { request.hard_limit } else { request.limit(stored_limit) };
        let is_kept = |lease: &&Lease| lease.stream_id != request.stream_id && !replaces(request, lease);
        let kept = leases.iter().filter(is_kept).count();
        let any_dead = leases.iter().any(|lease| !lease.is_live_at(now));
        let denied = request.at_limit == AtLimit::Reject && any_dead && kept >= limit.get() as usize;
        Ok(denied.then(|| denial(request, stored_limit, None, limit, leases)))
    }

    /// Returns the limit that `ExcessCountsDeadLeases` uses instead of `limit`, if there are live and dead leases.
    /// `FaultyRequests` then writes the correct limit into the request.
    async fn limit_minus_dead_leases(
        &self,
        user: &UserName,
        limit: StreamLimit,
        now: Timestamp,
    ) -> Result<Option<StreamLimit>> {
        let UserStreams { stored_limit, live: leases } = self.store.streams(user, BEFORE_ALL).await?;
        let dead = leases.iter().filter(|lease| !lease.is_live_at(now)).count();
        let reduced = StreamLimit::new(u64::from(limit.get()).saturating_sub(dead as u64));
        Ok(reduced.filter(|reduced| dead > 0 && dead < leases.len() && stored_limit != Some(*reduced)))
    }

    /// Returns the denial by a rule that counts more streams than the correct one. Does not change a start that was admitted
    /// earlier.
    async fn denial_by_mutated_rule(
        &self,
        user: &UserName,
        request: &StartRequest,
        now: Timestamp,
    ) -> Result<Option<Denial>> {
        let since = if self.mutant == Mutant::RuleCountsDeadLeases { BEFORE_ALL } else { now };
        let UserStreams { stored_limit, live: leases } = self.store.streams(user, since).await?;
        if request.at_limit == AtLimit::EvictOldest || leases.iter().any(|lease| lease.stream_id == request.stream_id)
        {
            return Ok(None);
        }
        let kept = |lease: &&Lease| self.mutant == Mutant::RuleCountsReplacedStreams || !replaces(request, lease);
        let own = texts(&request.labels);
        for rule in request.rules.iter().filter(|rule| is_enforced(rule) && counts(rule, &own, &own)) {
            let other = |lease: &Lease| {
                let mut labels = texts(&lease.labels);
                if let (Mutant::RuleComparesOnlyNames, Some(per)) = (self.mutant, &rule.per)
                    && let Some(value) = labels.get_mut(per.as_str())
                {
                    *value = own[per.as_str()].clone();
                }
                labels
            };
            let counted: Vec<Lease> =
                leases.iter().filter(kept).filter(|lease| counts(rule, &own, &other(lease))).cloned().collect();
            if counted.len() >= usize::from(rule.max.get()) {
                let rule_name = Some(rule.name.clone());
                return Ok(Some(denial(request, stored_limit, rule_name, rule.max, counted)));
            }
        }
        Ok(None)
    }

    async fn denial(&self, user: &UserName, request: &StartRequest, now: Timestamp) -> Result<StartOutcome> {
        self.context.count("mutations");
        let UserStreams { stored_limit, live: streams } = self.store.streams(user, now).await?;
        Ok(StartOutcome::Denied(denial(request, stored_limit, None, request.limit(stored_limit), streams)))
    }
}

fn denial(
    request: &StartRequest,
    stored_limit: Option<StreamLimit>,
    rule: Option<RuleName>,
    limit: StreamLimit,
    streams: Vec<Lease>,
) -> Denial {
    let (count, user_limit) = (streams.len(), request.user_limit(stored_limit));
    Denial { rule, limit, count, streams, slot_frees_at: None, user_limit, live_before: count }
}

#[async_trait]
impl LeaseStore for FaultyStore {
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        hint: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome> {
        if self.mutant == Mutant::KeyedRetryCreatesSecondLease && request.fingerprint.is_some() {
            return self.store.start(user, &self.with_new_id(request), hint, now).await;
        }
        if self.mutant == Mutant::DeadLeasesKeepSlots
            && let Some(denial) = self.denial_by_dead_leases(user, request, now).await?
        {
            self.context.count("mutations");
            return Ok(StartOutcome::Denied(denial));
        }
        if self.mutant == Mutant::BlockedStartIsOptimistic && hint == StartHint::Optimistic && is_blocked(request) {
            self.context.count("mutations");
            // For a user without members, the condition of the optimistic write has the same result for limits of 0 and 1.
            let request = StartRequest { token_limit: StreamLimit::new(1), ..request.clone() };
            if let started @ StartOutcome::Started(_) = self.store.start(user, &request, hint, now).await? {
                return Ok(started);
            }
        }
        if self.mutant == Mutant::RuleIgnoredByOptimisticStart && hint == StartHint::Optimistic && is_ruled(request) {
            self.context.count("mutations");
            let request = StartRequest { rules: Arc::default(), ..request.clone() };
            return self.store.start(user, &request, hint, now).await;
        }
        let counts_too_many = matches!(
            self.mutant,
            Mutant::RuleCountsDeadLeases | Mutant::RuleComparesOnlyNames | Mutant::RuleCountsReplacedStreams
        );
        if counts_too_many && let Some(denial) = self.denial_by_mutated_rule(user, request, now).await? {
            self.context.count("mutations");
            return Ok(StartOutcome::Denied(denial));
        }
        let mut changed = request.clone();
        if self.mutant != Mutant::HardLimitEvicts && self.mutant.change_modes(&mut changed) {
            self.context.count("mutations");
        }
        let result = self.store.start(user, &changed, hint, now).await;
        match (self.mutant, &result) {
            (Mutant::HardLimitEvicts, Ok(StartOutcome::Denied(Denial { rule: None, .. })))
                if self.mutant.change_modes(&mut changed) =>
            {
                self.context.count("mutations");
                self.store.start(user, &changed, hint, now).await
            }
            (Mutant::OverLimitNotReported, Ok(StartOutcome::Started(started))) if !started.over_limit.is_empty() => {
                self.context.count("mutations");
                Ok(StartOutcome::Started(Started { over_limit: Vec::new(), ..started.clone() }))
            }
            (Mutant::ConflictIsDenial, Err(StoreError::NotApplied { refusal: Refusal::Contention, .. }))
            | (Mutant::LostResponseIsDenial, Err(StoreError::Unknown(_))) => self.denial(user, request, now).await,
            (Mutant::UnknownOutcomeIsNotApplied, Err(StoreError::Unknown(_))) => {
                self.store.start(user, &self.with_new_id(request), hint, now).await
            }
            _ => result,
        }
    }

    async fn heartbeat(&self, user: &UserName, request: &HeartbeatRequest, now: Timestamp) -> Result<Heartbeat> {
        match (self.mutant, self.store.heartbeat(user, request, now).await) {
            (Mutant::ConflictIsStreamEnded, Err(StoreError::NotApplied { refusal: Refusal::Contention, .. })) => {
                self.context.count("mutations");
                Ok(Heartbeat::without_renewal(StreamState::NotFound))
            }
            (_, result) => result,
        }
    }

    async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop> {
        self.store.stop(user, stream_id).await
    }

    async fn end(&self, user: &UserName, request: &EndRequest, now: Timestamp) -> Result<Ended> {
        if let (Mutant::ExcessCountsDeadLeases, Selection::ExcessOver(limit)) = (self.mutant, &request.selection)
            && let Some(reduced) = self.limit_minus_dead_leases(user, *limit, now).await?
        {
            let request = EndRequest { selection: Selection::ExcessOver(reduced), ..request.clone() };
            return self.store.end(user, &request, now).await;
        }
        self.store.end(user, request, now).await
    }

    async fn purge(&self, user: &UserName, now: Timestamp) -> Result<()> {
        self.store.purge(user, now).await
    }

    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState> {
        self.store.stream(user, stream_id, now).await
    }

    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams> {
        self.store.streams(user, now).await
    }

    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>> {
        self.store.limit(user).await
    }

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<Option<StreamLimit>> {
        self.store.set_limit(user, limit).await
    }
}

fn observes(request: &StartRequest) -> bool {
    request.limit_mode == LimitMode::Observe
}

/// Whether the limit in the request blocks the user, and nothing else requires a read.
fn is_blocked(request: &StartRequest) -> bool {
    let reads_anyway = request.device_id.is_some() || !request.replaces.is_empty();
    request.limit(None).is_blocked() && !reads_anyway && !observes(request)
}

/// Whether the start reads first only because of a rule. Starts under rules in observe mode are not changed, because they would only lack
/// a report.
fn is_ruled(request: &StartRequest) -> bool {
    request.rules.iter().all(is_enforced)
        && request.needs_read()
        && !StartRequest { rules: Arc::default(), ..request.clone() }.needs_read()
}

/// Whether the start replaces this stream.
fn replaces(request: &StartRequest, lease: &Lease) -> bool {
    let same_device = request.device_id.is_some() && request.device_id == lease.device_id;
    same_device || request.replaces.contains(&lease.stream_id)
}
