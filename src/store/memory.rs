//! The in-memory store. It applies the admission rules under one lock per shard. Only one process can use it, and its
//! data is lost when the process ends. Its methods complete without awaiting, except the count of all live streams.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    CountLiveStreams, Ended, Heartbeat, HeartbeatRequest, LeaseStore, Result, StartHint, Stop, StreamState,
    UserStreams,
};
use crate::domain::admission::end::{EndRequest, decide_end};
use crate::domain::admission::{
    Commit, Decision, Guard, MembershipChange, Snapshot, StartOutcome, StartRequest, decide,
};
use crate::domain::lease::{Lease, StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};

/// Many shards, so that a sweep of one shard blocks only a few users, and only briefly.
const SHARDS: usize = 1024;

/// Keeps all leases in memory. [`MemoryStore::sweep_shard`] must run regularly to delete leases whose retention
/// period has ended.
pub struct MemoryStore {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<UserName, User>;

/// The stored state of one user. A lease without a termination is a member. A separate member list is not needed,
/// because one lock protects all leases of the user.
#[derive(Default)]
struct User {
    revision: Option<u64>,
    stored_limit: Option<StreamLimit>,
    /// All stored leases, including ended and expired ones.
    leases: Vec<Lease>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Deletes the leases in one shard whose retention period has ended by `now`. Then deletes users that have neither leases
    /// nor a stored limit. Returns the number of deleted leases.
    pub fn sweep_shard(&self, index: usize, now: Timestamp) -> usize {
        let Some(shard) = self.shards.get(index) else { return 0 };
        let mut users = lock(shard);
        let mut swept = 0;
        users.retain(|_, user| {
            let before = user.leases.len();
            user.leases.retain(|lease| lease.ttl_s >= now.epoch_ms() / 1000);
            swept += before - user.leases.len();
            user.leases.shrink_to_fit();
            !user.leases.is_empty() || user.stored_limit.is_some()
        });
        if users.capacity() > 4 * users.len() + 16 {
            users.shrink_to_fit();
        }
        swept
    }

    /// The number of stored users and leases, including inactive leases.
    pub fn size(&self) -> (usize, usize) {
        self.shards.iter().map(lock).fold((0, 0), |(users, leases), shard| {
            (users + shard.len(), leases + shard.values().map(|user| user.leases.len()).sum::<usize>())
        })
    }

    fn shard(&self, user: &UserName) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(user) % self.shards.len() as u64;
        lock(&self.shards[index as usize])
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        _: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome> {
        let mut users = self.shard(user);
        Ok(match with_snapshot(users.get(user), |snapshot| decide(snapshot, request, now)) {
            Decision::NoWrite(start) => start,
            Decision::Admit(commit) => {
                match users.get_mut(user) {
                    Some(user) => user.apply(&commit),
                    None => users.entry(user.clone()).or_default().apply(&commit),
                }
                StartOutcome::Started(commit.into_started())
            }
        })
    }

    async fn heartbeat(&self, user: &UserName, request: &HeartbeatRequest, now: Timestamp) -> Result<Heartbeat> {
        let mut users = self.shard(user);
        let Some(lease) = users.get_mut(user).and_then(|user| user.lease_mut(request.stream_id)) else {
            return Ok(Heartbeat::without_renewal(StreamState::NotFound));
        };
        let expires_at = request.terms.expires_at(now);
        let mut previous_expiry = None;
        if lease.is_live_at(now) && lease.expires_at < expires_at {
            previous_expiry = Some(lease.expires_at);
            lease.expires_at = expires_at;
            lease.ttl_s = request.terms.ttl_s(expires_at);
            if let Some(content_id) = &request.content_id {
                lease.content_id = Some(content_id.clone());
            }
        }
        Ok(Heartbeat { state: StreamState::of(Some(lease.clone()), now), previous_expiry })
    }

    async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop> {
        let mut users = self.shard(user);
        let Some(user) = users.get_mut(user) else { return Ok(Stop::AlreadyGone) };
        let member = |lease: &Lease| lease.stream_id == stream_id && lease.termination.is_none();
        let Some(index) = user.leases.iter().position(member) else { return Ok(Stop::AlreadyGone) };
        user.leases.remove(index);
        user.bump_revision();
        Ok(Stop::Freed)
    }

    async fn end(&self, user: &UserName, request: &EndRequest, now: Timestamp) -> Result<Ended> {
        let mut users = self.shard(user);
        let commit = with_snapshot(users.get(user), |snapshot| decide_end(snapshot, request, now));
        let previous_limit = users.get(user).and_then(|user| user.stored_limit);
        let Some(commit) = commit else { return Ok(Ended { leases: Vec::new(), previous_limit }) };
        let user = users.entry(user.clone()).or_default();
        user.change_membership(&commit.change);
        user.leases.retain(|lease| !commit.erased.contains(&lease.stream_id));
        user.stored_limit = commit.new_limit.or(user.stored_limit);
        Ok(Ended { leases: commit.ended, previous_limit })
    }

    async fn purge(&self, user: &UserName, _: Timestamp) -> Result<()> {
        let mut users = self.shard(user);
        let Some(stored) = users.get_mut(user) else { return Ok(()) };
        stored.leases.retain(|lease| lease.termination.is_none());
        stored.stored_limit = None;
        if stored.leases.is_empty() {
            users.remove(user);
        }
        Ok(())
    }

    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState> {
        let mut users = self.shard(user);
        let lease = users.get_mut(user).and_then(|user| user.lease_mut(stream_id));
        Ok(StreamState::of(lease.cloned(), now))
    }

    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams> {
        let users = self.shard(user);
        let Some(user) = users.get(user) else {
            return Ok(UserStreams { stored_limit: None, live: Vec::new() });
        };
        let mut live: Vec<Lease> = user.leases.iter().filter(|lease| lease.is_live_at(now)).cloned().collect();
        live.sort_by(Lease::by_age);
        Ok(UserStreams { stored_limit: user.stored_limit, live })
    }

    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>> {
        Ok(self.shard(user).get(user).and_then(|user| user.stored_limit))
    }

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<Option<StreamLimit>> {
        let mut users = self.shard(user);
        Ok(match (users.get_mut(user), limit) {
            (Some(user), _) => std::mem::replace(&mut user.stored_limit, limit),
            (None, Some(_)) => {
                users.entry(user.clone()).or_default().stored_limit = limit;
                None
            }
            (None, None) => None,
        })
    }
}

#[async_trait]
impl CountLiveStreams for MemoryStore {
    async fn count_live_streams(&self, now: Timestamp) -> Result<u64> {
        let mut live = 0;
        for shard in &self.shards {
            let leases = |user: &User| user.leases.iter().filter(|lease| lease.is_live_at(now)).count() as u64;
            live += lock(shard).values().map(leases).sum::<u64>();
            // Lets the runtime execute requests between two shards.
            tokio::task::yield_now().await;
        }
        Ok(live)
    }
}

impl User {
    /// Applies a commit without checking its conditions. They hold, because the caller has held the lock since the
    /// decision.
    fn apply(&mut self, commit: &Commit) {
        let own = commit.lease.stream_id;
        self.leases.retain(|lease| lease.stream_id != own);
        self.change_membership(&commit.change);
        // Reserves memory for one lease, because `push` alone would allocate memory for four. Most users hold one to three
        // leases.
        self.leases.reserve_exact(1);
        self.leases.push(commit.lease.clone());
    }

    fn change_membership(&mut self, change: &MembershipChange) {
        let deleted = |id: &StreamId| change.dead.contains(id) || change.pruned.contains(id);
        self.leases.retain(|lease| !deleted(&lease.stream_id));
        for ended in &change.ended {
            if let Some(lease) = self.lease_mut(ended.stream_id) {
                lease.termination = Some(Box::new(ended.termination.clone()));
                lease.ttl_s = ended.ttl_s;
            }
        }
        self.bump_revision();
    }

    fn lease_mut(&mut self, stream_id: StreamId) -> Option<&mut Lease> {
        self.leases.iter_mut().find(|lease| lease.stream_id == stream_id)
    }

    fn bump_revision(&mut self) {
        self.revision = Some(self.revision.unwrap_or(0) + 1);
    }
}

/// Calls `f` with the snapshot of the user, which is empty for an unknown user.
fn with_snapshot<T>(user: Option<&User>, f: impl FnOnce(&Snapshot<'_>) -> T) -> T {
    let unknown = User::default();
    let User { revision, stored_limit, leases } = user.unwrap_or(&unknown);
    let members = leases.iter().filter(|lease| lease.termination.is_none());
    let members: Vec<StreamId> = members.map(|lease| lease.stream_id).collect();
    let guard = Guard { revision: *revision, stored_limit: *stored_limit };
    f(&Snapshot { guard, members: &members, leases })
}

/// Ignores lock poisoning, because a panic cannot leave a partly applied change.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::admission::AtLimit;
    use crate::domain::labels::Labels;
    use crate::domain::lease::LeaseTerms;
    use crate::domain::rules::LimitMode;

    const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 10 };

    fn request(n: u8) -> StartRequest {
        StartRequest {
            stream_id: StreamId::random([n; 16]),
            fingerprint: None,
            device_id: None,
            device_name: None,
            content_id: None,
            labels: Labels::default(),
            replaces: Vec::new(),
            at_limit: AtLimit::EvictOldest,
            token_limit: None,
            default_limit: StreamLimit::DEFAULT,
            limit_mode: LimitMode::Enforce,
            hard_limit: StreamLimit::HIGHEST,
            rules: Arc::default(),
            terms: TERMS,
        }
    }

    #[tokio::test]
    async fn sweep_deletes_leases_after_retention_and_empty_users() {
        let store = MemoryStore::new();
        let now = Timestamp::from_epoch_ms(1_000_000);
        let sweep = |now| (0..store.shards()).map(|shard| store.sweep_shard(shard, now)).sum::<usize>();
        let users: Vec<UserName> = (0..50).map(|n| UserName::parse(&format!("user-{n}")).unwrap()).collect();
        for user in &users {
            for n in 0..20 {
                store.start(user, &request(n), StartHint::Optimistic, now).await.unwrap();
            }
        }
        store.set_limit(&users[0], StreamLimit::new(5)).await.unwrap();
        assert_eq!(store.size(), (50, 50 * 20), "3 live and 17 evicted leases per user");
        assert_eq!(sweep(now.plus_s(10)), 0);
        assert_eq!(sweep(now.plus_s(11)), 50 * 17, "the retention of the evicted leases has passed");
        assert_eq!(sweep(now.plus_s(100)), 0, "expired leases are retained");
        assert_eq!(sweep(now.plus_s(101)), 50 * 3);
        assert_eq!(store.size(), (1, 0), "a stored limit is kept");
    }
}
