//! Wraps the correct store for mutants that misinterpret the result of a store operation or replace the stream id of a
//! start.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;
use stream_manager::domain::admission::{AtLimit, Denial, StartOutcome, StartRequest};
use stream_manager::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::{
    Heartbeat, LeaseStore, Refusal, Result, StartHint, Stop, StoppedBy, StoreError, StreamState, UserStreams,
};

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
        let limit = stored_limit.unwrap_or(request.default_limit);
        let replaced = |lease: &Lease| {
            let same_device = request.device_id.is_some() && request.device_id == lease.device_id;
            same_device || lease.stream_id == request.stream_id || request.replaces.contains(&lease.stream_id)
        };
        let kept = leases.iter().filter(|lease| !replaced(lease)).count();
        let any_dead = leases.iter().any(|lease| !lease.is_live_at(now));
        let denied = request.at_limit == AtLimit::Reject && any_dead && kept >= limit.get() as usize;
        Ok(denied.then_some(Denial { limit, streams: leases }))
    }

    async fn denial(&self, user: &UserName, request: &StartRequest, now: Timestamp) -> Result<StartOutcome> {
        self.context.count("mutations");
        let UserStreams { stored_limit, live: streams } = self.store.streams(user, now).await?;
        Ok(StartOutcome::Denied(Denial { limit: stored_limit.unwrap_or(request.default_limit), streams }))
    }
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
        let result = self.store.start(user, request, hint, now).await;
        match (self.mutant, &result) {
            (Mutant::ConflictIsDenial, Err(StoreError::NotApplied { refusal: Refusal::Contention, .. }))
            | (Mutant::LostResponseIsDenial, Err(StoreError::Unknown(_))) => self.denial(user, request, now).await,
            (Mutant::UnknownOutcomeIsNotApplied, Err(StoreError::Unknown(_))) => {
                self.store.start(user, &self.with_new_id(request), hint, now).await
            }
            _ => result,
        }
    }

    async fn heartbeat(&self, user: &UserName, id: StreamId, terms: LeaseTerms, now: Timestamp) -> Result<Heartbeat> {
        match (self.mutant, self.store.heartbeat(user, id, terms, now).await) {
            (Mutant::ConflictIsStreamEnded, Err(StoreError::NotApplied { refusal: Refusal::Contention, .. })) => {
                self.context.count("mutations");
                Ok(Heartbeat::without_renewal(StreamState::NotFound))
            }
            (_, result) => result,
        }
    }

    async fn stop(
        &self,
        user: &UserName,
        stream_id: StreamId,
        by: StoppedBy,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Stop> {
        self.store.stop(user, stream_id, by, terms, now).await
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

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()> {
        self.store.set_limit(user, limit).await
    }
}
