//! The admission rules: whether a stream may start, which streams a start ends, and which members are dead. They are
//! pure functions. Every store uses them, so that all stores make the same decisions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::lease::{EndReason, EndedBy, Fingerprint, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use crate::domain::names::{ContentId, DeviceId, DeviceName, StreamId};

/// A request to start a stream. Repeating it with the same `stream_id` never takes a second slot.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub stream_id: StreamId,
    /// Present if the stream id is derived from an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    /// Streams of the same user that this start ends. Unknown ids are ignored.
    pub replaces: Vec<StreamId>,
    pub at_limit: AtLimit,
    /// The limit in the caller's token. It overrides the stored limit.
    pub token_limit: Option<StreamLimit>,
    /// The limit of a user without a stored limit.
    pub default_limit: StreamLimit,
    pub terms: LeaseTerms,
}

/// What a start does when the limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AtLimit {
    Reject,
    EvictOldest,
}

/// How many leases one commit may change besides the new lease. A DynamoDB transaction holds at most 100 actions, and
/// the counter and the new lease take two of them.
pub(crate) const MAX_OTHER_LEASES: usize = 98;

/// The maximum number of ended leases stored per user. The next read-then-start or eviction deletes the oldest leases
/// beyond this number, so that queries stay small even if a device restarts often. The value equals
/// [`StreamLimit::MAX`], so that if all streams of a user are evicted at once, every player can learn the reason.
pub const MAX_ENDED_LEASES: usize = 50;

/// The stored state of a user.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    pub guard: Guard,
    /// The ids of the streams that hold a slot.
    pub members: &'a [StreamId],
    /// All stored leases, including ended and expired ones whose ids are not members.
    pub leases: &'a [Lease],
}

/// The optimistic lock of a [`Commit`]: the store applies the commit only if the revision and the stored limit are
/// unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// `None` if the user has never started a stream.
    pub revision: Option<u64>,
    pub stored_limit: Option<StreamLimit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The store must apply the commit atomically.
    Admit(Commit),
    /// The outcome needs no write.
    NoWrite(StartOutcome),
}

/// The changes of one admitted start. The store applies them only if all of these conditions hold:
///
/// - the `guard` is unchanged,
/// - every `dead` lease is missing or expired at `now`,
/// - every `ended` lease is still stored,
/// - every `pruned` lease is ended or missing,
/// - the lease of the started stream is missing or expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub now: Timestamp,
    pub guard: Guard,
    pub limit: StreamLimit,
    /// All members after the commit, including the new one.
    pub members: BTreeSet<StreamId>,
    /// Members that the commit removes because their lease is missing or expired. It also deletes these leases.
    pub dead: Vec<StreamId>,
    /// Live members that the start replaces or evicts, oldest first.
    pub ended: Vec<EndedLease>,
    /// Leases that earlier requests ended, beyond [`MAX_ENDED_LEASES`]. The commit deletes them.
    pub pruned: Vec<StreamId>,
    pub lease: Lease,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedLease {
    pub stream_id: StreamId,
    pub termination: Termination,
    pub ttl_s: i64,
}

/// The outcome of a start. A denial is an outcome, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    Started(Started),
    /// The start was admitted earlier, and its lease is live.
    Existing(Started),
    /// The start was admitted earlier, and the stream has since been evicted or replaced.
    Ended(Lease),
    /// The idempotency key was used before with a different request.
    KeyReused,
    Denied(Denial),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub lease: Lease,
    pub limit: StreamLimit,
    /// The streams that the start replaced or evicted.
    pub ended: Vec<StreamId>,
    /// How many of `ended` were evicted. The others were replaced.
    pub evicted: usize,
    /// How many dead members the start removed.
    pub reaped: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub limit: StreamLimit,
    /// The live streams that hold the slots, oldest first.
    pub streams: Vec<Lease>,
}

/// How a start treats a lease that is already stored under its stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriorLease {
    Live,
    Ended,
    /// The lease has another fingerprint.
    KeyReused,
    /// The start may be admitted again.
    Expired,
}

impl StartRequest {
    /// Whether the decision depends on the user's other streams.
    pub fn needs_read(&self) -> bool {
        self.device_id.is_some() || !self.replaces.is_empty()
    }

    /// The effective limit. `stored` is the user's stored limit.
    pub fn limit(&self, stored: Option<StreamLimit>) -> StreamLimit {
        self.token_limit.or(stored).unwrap_or(self.default_limit)
    }

    /// The lease of a start that is admitted at `now`.
    pub fn lease(&self, now: Timestamp) -> Lease {
        let expires_at = self.terms.expires_at(now);
        Lease {
            stream_id: self.stream_id,
            device_id: self.device_id.clone(),
            device_name: self.device_name.clone(),
            content_id: self.content_id.clone(),
            fingerprint: self.fingerprint,
            started_at: now,
            expires_at,
            ttl_s: self.terms.ttl_s(expires_at),
            termination: None,
        }
    }

    /// Classifies the lease that is stored under this request's stream id. An expired lease counts as missing even if
    /// its fingerprint differs, because any other start of the user may delete it at any time.
    pub(crate) fn classify(&self, stored: &Lease, now: Timestamp) -> PriorLease {
        if stored.termination.is_none() && stored.expires_at <= now {
            PriorLease::Expired
        } else if stored.fingerprint != self.fingerprint {
            PriorLease::KeyReused
        } else if stored.termination.is_some() {
            PriorLease::Ended
        } else {
            PriorLease::Live
        }
    }
}

impl Commit {
    /// The outcome after the commit is applied.
    pub(crate) fn into_started(self) -> Started {
        let evicted = self.ended.iter().filter(|ended| ended.termination.reason == EndReason::Evicted).count();
        Started {
            lease: self.lease,
            limit: self.limit,
            evicted,
            ended: self.ended.into_iter().map(|ended| ended.stream_id).collect(),
            reaped: self.dead.len(),
        }
    }
}

/// Decides whether a stream may start. `snapshot` was read at `now`.
///
/// The read may be torn: the lease of a concurrent start can be missing from the snapshot although its id is a member.
/// The store must therefore apply the commit only if all `dead` leases are missing or expired.
pub fn decide(snapshot: &Snapshot<'_>, request: &StartRequest, now: Timestamp) -> Decision {
    let limit = request.limit(snapshot.guard.stored_limit);
    if let Some(outcome) = prior_outcome(snapshot, request, limit, now) {
        return Decision::NoWrite(outcome);
    }
    let others = || snapshot.members.iter().copied().filter(|id| *id != request.stream_id);
    let mut live: Vec<&Lease> = others()
        .filter_map(|id| snapshot.leases.iter().find(|lease| lease.stream_id == id && lease.is_live_at(now)))
        .collect();
    live.sort_by(|a, b| a.by_age(b));
    let mut dead: Vec<StreamId> = others().filter(|id| live.iter().all(|lease| lease.stream_id != *id)).collect();

    let victims = victims(&live, request, limit);
    if limit.exceeded_by(live.len() - victims.len() + 1) > 0 {
        return Decision::NoWrite(StartOutcome::Denied(Denial {
            limit,
            streams: live.into_iter().cloned().collect(),
        }));
    }

    dead.truncate(MAX_OTHER_LEASES.saturating_sub(victims.len()));
    let mut members: BTreeSet<StreamId> = snapshot.members.iter().copied().collect();
    dead.iter().for_each(|id| _ = members.remove(id));
    members.insert(request.stream_id);
    let ended_by = EndedBy { stream_id: request.stream_id, device_name: request.device_name.clone() };
    let ended = victims.into_iter().map(|(lease, reason)| {
        members.remove(&lease.stream_id);
        EndedLease {
            stream_id: lease.stream_id,
            termination: Termination { reason, ended_by: Some(ended_by.clone()) },
            ttl_s: request.terms.ttl_s(now),
        }
    });
    let ended: Vec<EndedLease> = ended.collect();
    let max_pruned = MAX_OTHER_LEASES.saturating_sub(dead.len() + ended.len());
    let pruned = pruned(snapshot, request.stream_id, ended.len(), max_pruned);
    let lease = request.lease(now);
    Decision::Admit(Commit { now, guard: snapshot.guard, limit, members, dead, ended, pruned, lease })
}

/// The ended leases that an eviction deletes. It never deletes the evicted lease, whether or not the snapshot shows
/// that lease as ended.
pub(crate) fn pruned_by_eviction(snapshot: &Snapshot<'_>, evicted: StreamId) -> Vec<StreamId> {
    pruned(snapshot, evicted, 1, MAX_OTHER_LEASES)
}

/// The outcome of a start that was admitted before. `None` if the start is new or its lease has expired.
fn prior_outcome(
    snapshot: &Snapshot<'_>,
    request: &StartRequest,
    limit: StreamLimit,
    now: Timestamp,
) -> Option<StartOutcome> {
    let prior = snapshot.leases.iter().find(|lease| lease.stream_id == request.stream_id)?;
    match request.classify(prior, now) {
        PriorLease::Live => Some(StartOutcome::Existing(Started {
            lease: prior.clone(),
            limit,
            ended: ended_by(snapshot.leases, request.stream_id),
            evicted: 0,
            reaped: 0,
        })),
        PriorLease::Ended => Some(StartOutcome::Ended(prior.clone())),
        PriorLease::KeyReused => Some(StartOutcome::KeyReused),
        PriorLease::Expired => None,
    }
}

/// The ended leases to delete: those over [`MAX_ENDED_LEASES`], earliest TTL first, at most `max`. The `new` leases
/// that the caller is about to end count towards the cap. Members and the lease `kept` are never pruned.
fn pruned(snapshot: &Snapshot<'_>, kept: StreamId, new: usize, max: usize) -> Vec<StreamId> {
    let prunable = |lease: &&Lease| {
        lease.termination.is_some() && lease.stream_id != kept && !snapshot.members.contains(&lease.stream_id)
    };
    let mut ended: Vec<&Lease> = snapshot.leases.iter().filter(prunable).collect();
    let excess = (ended.len() + new).saturating_sub(MAX_ENDED_LEASES).min(ended.len()).min(max);
    ended.sort_by_key(|lease| (lease.ttl_s, lease.stream_id));
    ended.into_iter().take(excess).map(|lease| lease.stream_id).collect()
}

/// The live streams that the start ends: streams of the same device, streams in `replaces`, and with
/// [`AtLimit::EvictOldest`] as many of the oldest other streams as needed.
fn victims<'a>(live: &[&'a Lease], request: &StartRequest, limit: StreamLimit) -> Vec<(&'a Lease, EndReason)> {
    let replaced = |lease: &Lease| {
        request.replaces.contains(&lease.stream_id)
            || (request.device_id.is_some() && lease.device_id == request.device_id)
    };
    let kept = live.iter().filter(|lease| !replaced(lease)).count();
    let mut to_evict = match request.at_limit {
        AtLimit::Reject => 0,
        AtLimit::EvictOldest => limit.exceeded_by(kept + 1),
    };
    let mut end_reason = |lease: &Lease| {
        if replaced(lease) {
            Some(EndReason::Replaced)
        } else if to_evict > 0 {
            to_evict -= 1;
            Some(EndReason::Evicted)
        } else {
            None
        }
    };
    live.iter().filter_map(|lease| end_reason(lease).map(|reason| (*lease, reason))).collect()
}

/// The streams that the start of `stream_id` ended, oldest first. Streams whose leases were deleted since then are
/// missing.
fn ended_by(leases: &[Lease], stream_id: StreamId) -> Vec<StreamId> {
    let ended_by_start = |lease: &&Lease| {
        let by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
        by.is_some_and(|by| by.stream_id == stream_id)
    };
    let mut ended: Vec<&Lease> = leases.iter().filter(ended_by_start).collect();
    ended.sort_by(|a, b| a.by_age(b));
    ended.into_iter().map(|lease| lease.stream_id).collect()
}

#[cfg(test)]
mod tests;
