//! Wrong versions of the store's verbs, made by a store around the right one: mistakes of what an answer means.
//! `mutants.rs` names all wrong versions; those that a request betrays are made in `mutations.rs`.

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

use super::clock::BEGINNING;
use super::world::World;
use crate::mutants::Mutant;

pub struct WrongStore {
    pub store: Arc<dyn LeaseStore>,
    pub mutant: Mutant,
    pub random: Mutex<StdRng>,
    pub world: Arc<World>,
}

impl WrongStore {
    fn other_id(&self, request: &StartRequest) -> StartRequest {
        self.world.count("done wrong");
        let mut bytes = [0; 16];
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        StartRequest { stream_id: StreamId::random(bytes), ..request.clone() }
    }

    /// A denial when those who once started hold all slots, although some of them have expired.
    async fn denied_by_the_dead(
        &self,
        user: &UserName,
        request: &StartRequest,
        now: Timestamp,
    ) -> Result<Option<Denial>> {
        let UserStreams { own_limit, live: held } = self.store.streams(user, BEGINNING).await?;
        let limit = own_limit.unwrap_or(request.default_limit);
        let replaced = |lease: &Lease| {
            let device = request.device_id.is_some() && request.device_id == lease.device_id;
            device || lease.stream_id == request.stream_id || request.replaces.contains(&lease.stream_id)
        };
        let kept = held.iter().filter(|lease| !replaced(lease)).count();
        let some_dead = held.iter().any(|lease| !lease.is_live_at(now));
        let denied = request.at_limit == AtLimit::Reject && some_dead && kept >= limit.get() as usize;
        Ok(denied.then_some(Denial { limit, streams: held }))
    }

    /// As somebody would write it who takes "it did not work" for "there was no room".
    async fn denial(&self, user: &UserName, request: &StartRequest, now: Timestamp) -> Result<StartOutcome> {
        self.world.count("done wrong");
        let UserStreams { own_limit, live: streams } = self.store.streams(user, now).await?;
        Ok(StartOutcome::Denied(Denial { limit: own_limit.unwrap_or(request.default_limit), streams }))
    }
}

#[async_trait]
impl LeaseStore for WrongStore {
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        room: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome> {
        if self.mutant == Mutant::KeyedRetryMakesSecondLease && request.fingerprint.is_some() {
            return self.store.start(user, &self.other_id(request), room, now).await;
        }
        if self.mutant == Mutant::DeadHoldTheirSlots
            && let Some(denial) = self.denied_by_the_dead(user, request, now).await?
        {
            self.world.count("done wrong");
            return Ok(StartOutcome::Denied(denial));
        }
        let start = self.store.start(user, request, room, now).await;
        match (self.mutant, &start) {
            (Mutant::ConflictIsDenial, Err(StoreError::NotApplied { refusal: Refusal::Contention, .. }))
            | (Mutant::LostAnswerIsDenial, Err(StoreError::Unknown(_))) => self.denial(user, request, now).await,
            (Mutant::UnknownIsNotApplied, Err(StoreError::Unknown(_))) => {
                self.store.start(user, &self.other_id(request), room, now).await
            }
            _ => start,
        }
    }

    async fn heartbeat(&self, user: &UserName, id: StreamId, terms: LeaseTerms, now: Timestamp) -> Result<Heartbeat> {
        match (self.mutant, self.store.heartbeat(user, id, terms, now).await) {
            (Mutant::ConflictIsEnding, Err(StoreError::NotApplied { refusal: Refusal::Contention, .. })) => {
                self.world.count("done wrong");
                Ok(Heartbeat::without_renewal(StreamState::NotFound))
            }
            (_, beat) => beat,
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
