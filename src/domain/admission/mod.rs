//! The rules of admission, all of them: who may start, whom that ends, and which slots are dead. Pure functions on
//! plain data; every store uses these and none has rules of its own.

use std::collections::BTreeSet;

use crate::domain::lease::{EndReason, EndedBy, Fingerprint, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use crate::domain::names::{ContentId, DeviceId, DeviceName, StreamId};

/// What a player asks for. Repeating it with the same `stream_id` never takes a second slot.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub stream_id: StreamId,
    /// Present when the id comes from an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    /// Streams of the same user to end in the same step; unknown ones are ignored.
    pub replaces: Vec<StreamId>,
    pub at_limit: AtLimit,
    /// What the caller's token says the user's limit is; it goes before a stored one.
    pub token_limit: Option<StreamLimit>,
    /// The limit of a user who has none of their own.
    pub default_limit: StreamLimit,
    pub terms: LeaseTerms,
}

/// What a start does when the user is at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLimit {
    Reject,
    EvictOldest,
}

/// A DynamoDB transaction holds at most 100 actions; the counter and the new lease take two.
pub const MAX_DROPPED: usize = 98;

/// How many ended leases of a user a start that looks and an eviction leave to be remembered: so that what a look reads
/// stays bounded, whatever is started and ended within the retention. As many as a user can hold: all of them evicted at
/// once, each player still learns that it was.
pub const MAX_ENDED_LEASES: usize = 50;

/// What is known of a user. Leases of ids that are not members may be among them (ended ones, or expired ones).
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    pub guard: Guard,
    /// The ids that hold a slot.
    pub members: &'a [StreamId],
    pub leases: &'a [Lease],
}

/// What must still hold when a [`Commit`] is applied: nobody changed the membership or the limit in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// None while the user has never started anything.
    pub revision: Option<u64>,
    pub own_limit: Option<StreamLimit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To be applied as one step, or not at all.
    Admit(Commit),
    /// Nothing is to be written.
    NoWrite(StartOutcome),
}

/// One admission as plain data: applied only if `guard` still holds, every `dead` lease is still missing or expired at
/// `now`, every `ended` lease is still stored, every `forgotten` one still ended or gone, and the own lease is missing or expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub now: Timestamp,
    pub guard: Guard,
    pub limit: StreamLimit,
    /// All members afterwards, the new one included.
    pub members: BTreeSet<StreamId>,
    /// Members whose lease is missing or has expired: their leases are deleted.
    pub dead: Vec<StreamId>,
    /// Live members that make room, oldest first.
    pub ended: Vec<EndedLease>,
    /// Leases that were ended before, no members, that are too many to be remembered: deleted if they are still ended.
    pub pruned: Vec<StreamId>,
    pub lease: Lease,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedLease {
    pub stream_id: StreamId,
    pub termination: Termination,
    pub ttl_s: i64,
}

/// How a start came out. A refusal is an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    Started(Started),
    /// The same start was admitted before and its lease is live.
    Existing(Started),
    /// The same start was admitted before, and somebody ended that stream since.
    Ended(Lease),
    /// The same key came with another request.
    KeyReused,
    Denied(Denial),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub lease: Lease,
    pub limit: StreamLimit,
    /// The streams that this start replaced or evicted.
    pub ended: Vec<StreamId>,
    /// How many of them made room; the others were replaced.
    pub evicted: usize,
    /// How many dead leases it cleared away.
    pub reaped: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub limit: StreamLimit,
    /// The live streams that hold the slots, oldest first.
    pub streams: Vec<Lease>,
}

/// What one stored lease of the requested id means for the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnLease {
    Live,
    Ended,
    KeyReused,
    /// It ran out: the id may be admitted anew.
    Expired,
}

impl StartRequest {
    /// Whether the start must see the user's other streams before it can be decided.
    pub fn needs_read(&self) -> bool {
        self.device_id.is_some() || !self.replaces.is_empty()
    }

    /// The limit in force for a user whose stored limit is `own`.
    pub fn limit(&self, own: Option<StreamLimit>) -> StreamLimit {
        self.token_limit.or(own).unwrap_or(self.default_limit)
    }

    /// The lease that an admission at `now` grants.
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

    /// What a lease that is stored under the requested id means. One that ran out means no more than a missing one,
    /// since any start of the user may have reaped it.
    pub fn own_lease(&self, stored: &Lease, now: Timestamp) -> OwnLease {
        if stored.termination.is_none() && stored.expires_at <= now {
            OwnLease::Expired
        } else if stored.fingerprint != self.fingerprint {
            OwnLease::KeyReused
        } else if stored.termination.is_some() {
            OwnLease::Ended
        } else {
            OwnLease::Live
        }
    }
}

impl Commit {
    /// The answer once the commit is applied.
    pub fn into_started(self) -> Started {
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

/// Decides a start on what was read at `now`. Takes the snapshot to be possibly torn (a member whose lease is just
/// being written looks missing), so whatever it calls dead is to be deleted under the condition that it is.
pub fn decide(snapshot: &Snapshot<'_>, request: &StartRequest, now: Timestamp) -> Decision {
    let limit = request.limit(snapshot.guard.own_limit);
    if let Some(own) = snapshot.leases.iter().find(|lease| lease.stream_id == request.stream_id) {
        let answer = match request.own_lease(own, now) {
            OwnLease::Live => Some(StartOutcome::Existing(Started {
                lease: own.clone(),
                limit,
                ended: ended_by(snapshot.leases, request.stream_id),
                evicted: 0,
                reaped: 0,
            })),
            OwnLease::Ended => Some(StartOutcome::Ended(own.clone())),
            OwnLease::KeyReused => Some(StartOutcome::KeyReused),
            OwnLease::Expired => None,
        };
        if let Some(answer) = answer {
            return Decision::NoWrite(answer);
        }
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

    dead.truncate(MAX_DROPPED.saturating_sub(victims.len()));
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
    let most = MAX_DROPPED.saturating_sub(dead.len() + ended.len());
    let pruned = pruned(snapshot, request.stream_id, ended.len(), most);
    let lease = request.lease(now);
    Decision::Admit(Commit { now, guard: snapshot.guard, limit, members, dead, ended, pruned, lease })
}

/// What an eviction forgets. The one evicted is among those to remember, whether it is shown as ended already or not.
pub fn pruned_by_eviction(snapshot: &Snapshot<'_>, evicted: StreamId) -> Vec<StreamId> {
    pruned(snapshot, evicted, 1, MAX_DROPPED)
}

/// The ended leases beyond [`MAX_ENDED_LEASES`], those that would be deleted first anyway, at most `most`. `new` ones are
/// added to those shown; `own` is never among them.
fn pruned(snapshot: &Snapshot<'_>, own: StreamId, new: usize, most: usize) -> Vec<StreamId> {
    let over = |lease: &&Lease| {
        lease.termination.is_some() && lease.stream_id != own && !snapshot.members.contains(&lease.stream_id)
    };
    let mut ended: Vec<&Lease> = snapshot.leases.iter().filter(over).collect();
    let too_many = (ended.len() + new).saturating_sub(MAX_ENDED_LEASES).min(ended.len()).min(most);
    ended.sort_by_key(|lease| (lease.ttl_s, lease.stream_id));
    ended.into_iter().take(too_many).map(|lease| lease.stream_id).collect()
}

/// The live streams that the request ends: its own device's, the ones it names, and the oldest if it may evict.
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
    let mut reason = |lease: &Lease| {
        if replaced(lease) {
            Some(EndReason::Replaced)
        } else if to_evict > 0 {
            to_evict -= 1;
            Some(EndReason::Evicted)
        } else {
            None
        }
    };
    live.iter().filter_map(|lease| reason(lease).map(|reason| (*lease, reason))).collect()
}

/// The streams that a start ended, oldest first, as far as their leases are still stored.
fn ended_by(leases: &[Lease], stream_id: StreamId) -> Vec<StreamId> {
    let by_it = |lease: &&Lease| {
        let by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
        by.is_some_and(|by| by.stream_id == stream_id)
    };
    let mut ended: Vec<&Lease> = leases.iter().filter(by_it).collect();
    ended.sort_by(|a, b| a.by_age(b));
    ended.into_iter().map(|lease| lease.stream_id).collect()
}

#[cfg(test)]
mod tests;
