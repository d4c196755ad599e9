//! Wraps the memory store. Injects the same faults and delays as the simulated network, and records every write.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::domain::admission::{StartOutcome, StartRequest};
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{
    Ended, Heartbeat, HeartbeatRequest, LeaseStore, Refusal, Result, StartHint, Stop, StoreError, StreamState,
    UserStreams,
};
use tokio::sync::oneshot;
// Uses virtual time, so that sleeping takes no real time and the seed decides the order of events.
use tokio::time::{sleep, timeout};

use super::clock::BEFORE_ALL;
use super::context::{CALL, RunContext};
use super::faults::Delivery;
use super::state::{StoreWrite, UserState};

#[derive(Clone)]
pub struct RecordingStore {
    pub store: Arc<MemoryStore>,
    pub context: Arc<RunContext>,
}

/// The same value as the SDK's operation timeout in the DynamoDB simulation.
const TIMEOUT: Duration = Duration::from_millis(1800);

impl RecordingStore {
    /// Runs the memory store's own sweep.
    pub fn sweep(&self, users: &[UserName], now: Timestamp) {
        (0..self.store.shards()).for_each(|shard| _ = self.store.sweep_shard(shard, now));
        users.iter().for_each(|user| self.record(user, &StoreWrite::Sweep { now }, None));
    }

    fn record(&self, user: &UserName, write: &StoreWrite, call: Option<usize>) {
        let UserStreams { stored_limit, live } = complete(self.store.streams(user, BEFORE_ALL)).unwrap();
        let mut state = UserState { stored_limit, ..UserState::default() };
        state.members.extend(live.iter().map(|lease| lease.stream_id));
        state.leases.extend(live.into_iter().map(|lease| (lease.stream_id, lease)));
        for id in self.context.created_ids(user) {
            if let StreamState::Inactive(lease) = complete(self.store.stream(user, id, BEFORE_ALL)).unwrap() {
                state.leases.insert(id, lease);
            }
        }
        self.context.record_write(user, write, call, Ok(state));
    }

    async fn write<T: Send + 'static>(
        &self,
        user: &UserName,
        write: StoreWrite,
        operation: impl Fn(&MemoryStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (recording, user, call) = (self.clone(), user.clone(), CALL.try_with(|call| *call).ok());
        self.deliver(true, move || {
            let result = operation(&recording.store);
            recording.record(&user, &write, call);
            result
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: impl Fn(&MemoryStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        self.deliver(false, move || operation(&store)).await
    }

    async fn deliver<T: Send + 'static>(
        &self,
        writes: bool,
        operation: impl Fn() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (plan, context) = (self.context.plan(writes), Arc::clone(&self.context));
        context.count("requests");
        let (sender, receiver) = oneshot::channel();
        // A separate task keeps the request in flight if the caller is cancelled.
        tokio::spawn(async move {
            sleep(plan.request_delay).await;
            if context.outage() {
                context.count("lost in an outage");
                return;
            }
            let not_applied = |refusal| Err(StoreError::NotApplied { refusal, detail: "injected".to_owned() });
            let unknown_outcome = || Err(StoreError::Unknown("injected".to_owned()));
            let result = match plan.delivery {
                Delivery::RequestLost(_) => return,
                Delivery::Throttled => not_applied(Refusal::Throttled),
                Delivery::Conflict => not_applied(Refusal::Contention),
                Delivery::FailedBeforeApply => unknown_outcome(),
                Delivery::Normal | Delivery::Late | Delivery::Duplicated => operation(),
                Delivery::ResponseLost(_) | Delivery::FailedAfterApply => {
                    _ = operation();
                    unknown_outcome()
                }
            };
            sleep(plan.response_delay).await;
            _ = sender.send(result);
            if plan.delivery == Delivery::Duplicated {
                sleep(plan.duplicate_delay).await;
                _ = operation();
            }
        });
        match timeout(TIMEOUT, receiver).await {
            Ok(Ok(result)) => result,
            _ => Err(StoreError::Unknown("no response".to_owned())),
        }
    }
}

#[async_trait]
impl LeaseStore for RecordingStore {
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        hint: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome> {
        let write = StoreWrite::Start { stream_id: request.stream_id, now };
        let (owner, request) = (user.clone(), request.clone());
        self.write(user, write, move |store| complete(store.start(&owner, &request, hint, now))).await
    }

    async fn heartbeat(&self, user: &UserName, request: &HeartbeatRequest, now: Timestamp) -> Result<Heartbeat> {
        let (owner, request) = (user.clone(), request.clone());
        let write = StoreWrite::Heartbeat { stream_id: request.stream_id, now, content: request.content_id.clone() };
        self.write(user, write, move |store| complete(store.heartbeat(&owner, &request, now))).await
    }

    async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop> {
        let owner = user.clone();
        self.write(user, StoreWrite::Stop { stream_id }, move |store| complete(store.stop(&owner, stream_id))).await
    }

    async fn end(&self, user: &UserName, request: &EndRequest, now: Timestamp) -> Result<Ended> {
        let (owner, request) = (user.clone(), request.clone());
        let new_limit = match request.selection {
            Selection::ExcessOver(limit) => Some(limit),
            Selection::All | Selection::Listed(_) | Selection::Erase => None,
        };
        let write = StoreWrite::End { now: Some(now), new_limit };
        self.write(user, write, move |store| complete(store.end(&owner, &request, now))).await
    }

    async fn purge(&self, user: &UserName, now: Timestamp) -> Result<()> {
        let owner = user.clone();
        self.write(user, StoreWrite::Purge, move |store| complete(store.purge(&owner, now))).await
    }

    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState> {
        let user = user.clone();
        self.read(move |store| complete(store.stream(&user, stream_id, now))).await
    }

    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams> {
        let user = user.clone();
        self.read(move |store| complete(store.streams(&user, now))).await
    }

    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>> {
        let user = user.clone();
        self.read(move |store| complete(store.limit(&user))).await
    }

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<Option<StreamLimit>> {
        let owner = user.clone();
        self.write(user, StoreWrite::SetLimit { limit }, move |store| complete(store.set_limit(&owner, limit))).await
    }
}

/// Runs a future of the memory store. Such a future completes without waiting.
fn complete<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}
