//! The memory store behind the same network as the table, watched write by write.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use stream_manager::domain::admission::{StartOutcome, StartRequest};
use stream_manager::domain::lease::{LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{
    Heartbeat, LeaseStore, Refusal, Result, StartHint, Stop, StoppedBy, StoreError, StreamState, UserStreams,
};
use tokio::sync::oneshot;
// Virtual time: it costs none, and is what the seed says.
use tokio::time::{sleep, timeout};

use super::clock::BEGINNING;
use super::faults::Fate;
use super::state::{Act, State};
use super::world::{CALL, World};

#[derive(Clone)]
pub struct Watched {
    pub store: Arc<MemoryStore>,
    pub world: Arc<World>,
}

/// How long a caller waits: as long as the SDK would.
const PATIENCE: Duration = Duration::from_millis(1800);

impl Watched {
    /// Forgets what the store's own sweep lets go at `now`.
    pub fn sweep(&self, users: &[UserName], now: Timestamp) {
        (0..self.store.shards()).for_each(|shard| _ = self.store.sweep_shard(shard, now));
        users.iter().for_each(|user| self.look(user, &Act::Sweep { now }, None));
    }

    fn look(&self, user: &UserName, act: &Act, call: Option<usize>) {
        let UserStreams { own_limit, live } = at_once(self.store.streams(user, BEGINNING)).expect("a list");
        let mut state = State { own_limit, ..State::default() };
        state.members.extend(live.iter().map(|lease| lease.stream_id));
        state.leases.extend(live.into_iter().map(|lease| (lease.stream_id, lease)));
        for id in self.world.ids(user) {
            if let StreamState::Inactive(lease) = at_once(self.store.stream(user, id, BEGINNING)).expect("a look") {
                state.leases.insert(id, lease);
            }
        }
        self.world.step(user, act, call, Ok(state));
    }

    async fn write<T: Send + 'static>(
        &self,
        user: &UserName,
        act: Act,
        verb: impl Fn(&MemoryStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (watched, user, call) = (self.clone(), user.clone(), CALL.try_with(|call| *call).ok());
        self.travel(true, move || {
            let answer = verb(&watched.store);
            watched.look(&user, &act, call);
            answer
        })
        .await
    }

    async fn read<T: Send + 'static>(&self, verb: impl Fn(&MemoryStore) -> Result<T> + Send + 'static) -> Result<T> {
        let store = Arc::clone(&self.store);
        self.travel(false, move || verb(&store)).await
    }

    async fn travel<T: Send + 'static>(
        &self,
        writes: bool,
        verb: impl Fn() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (plan, world) = (self.world.plan(writes), Arc::clone(&self.world));
        world.count("requests");
        let (sender, receiver) = oneshot::channel();
        // A task of its own: what is on its way stays on its way when its caller has gone.
        tokio::spawn(async move {
            sleep(plan.there).await;
            if world.outage() {
                world.count("lost in an outage");
                return;
            }
            let unapplied = |refusal| Err(StoreError::NotApplied { refusal, detail: "injected".to_owned() });
            let answer = match plan.fate {
                Fate::Lost(_) => return,
                Fate::Throttled => unapplied(Refusal::Throttled),
                Fate::Conflict => unapplied(Refusal::Contention),
                Fate::FailedUnapplied => Err(StoreError::Unknown("injected".to_owned())),
                Fate::Delivered | Fate::Late | Fate::Twice => verb(),
                Fate::AnswerLost(_) | Fate::FailedApplied => {
                    _ = verb();
                    Err(StoreError::Unknown("injected".to_owned()))
                }
            };
            sleep(plan.back).await;
            _ = sender.send(answer);
            if plan.fate == Fate::Twice {
                sleep(plan.again).await;
                _ = verb();
            }
        });
        match timeout(PATIENCE, receiver).await {
            Ok(Ok(answer)) => answer,
            _ => Err(StoreError::Unknown("no answer".to_owned())),
        }
    }
}

#[async_trait]
impl LeaseStore for Watched {
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        room: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome> {
        let act = Act::Start { stream_id: request.stream_id, now };
        let (whose, request) = (user.clone(), request.clone());
        self.write(user, act, move |store| at_once(store.start(&whose, &request, room, now))).await
    }

    async fn heartbeat(&self, user: &UserName, id: StreamId, terms: LeaseTerms, now: Timestamp) -> Result<Heartbeat> {
        let (act, whose) = (Act::Beat { stream_id: id, now }, user.clone());
        self.write(user, act, move |store| at_once(store.heartbeat(&whose, id, terms, now))).await
    }

    async fn stop(
        &self,
        user: &UserName,
        stream_id: StreamId,
        by: StoppedBy,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Stop> {
        let act = match by {
            StoppedBy::Player => Act::Stop { stream_id },
            StoppedBy::Evictor => Act::Evict { stream_id },
        };
        let whose = user.clone();
        self.write(user, act, move |store| at_once(store.stop(&whose, stream_id, by, terms, now))).await
    }

    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState> {
        let user = user.clone();
        self.read(move |store| at_once(store.stream(&user, stream_id, now))).await
    }

    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams> {
        let user = user.clone();
        self.read(move |store| at_once(store.streams(&user, now))).await
    }

    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>> {
        let user = user.clone();
        self.read(move |store| at_once(store.limit(&user))).await
    }

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()> {
        let whose = user.clone();
        self.write(user, Act::Limit { limit }, move |store| at_once(store.set_limit(&whose, limit))).await
    }
}

/// The memory store never waits.
fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("an answer at once")
}
