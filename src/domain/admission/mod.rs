//! The admission rules: whether a stream may start, which streams a start ends, and which members are dead. They are pure
//! functions. Every store uses them, so that all stores make the same decisions. [`end`] contains the rules for requests
//! that only end streams.

mod constraints;
pub mod end;
mod outcome;
mod request;

use std::collections::BTreeSet;

use self::constraints::{Admission, Exceeded, Limits, Observed};
pub use self::outcome::{Denial, EndedStream, OverLimit, StartOutcome, Started};
pub(crate) use self::request::PriorLease;
pub use self::request::{AtLimit, StartRequest};
use crate::domain::lease::{EndReason, EndedBy, Lease, LeaseTerms, StreamLimit, Termination, Timestamp, UserLimit};
use crate::domain::names::StreamId;

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

/// The optimistic lock of a [`MembershipChange`]: the store applies the change only if the revision and the stored
/// limit are unchanged.
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

/// The changes of one admitted start. The store applies them only if the conditions of `change` hold and the lease of
/// the started stream is missing or expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub change: MembershipChange,
    pub lease: Lease,
    pub limit: UserLimit,
    /// The number of live streams before the start.
    pub live_before: usize,
    /// The streams that the start replaces or evicts, oldest first.
    pub ended: Vec<EndedStream>,
    /// The leases in `change.dead` that are still stored.
    pub expired: Vec<Lease>,
    /// Becomes [`Started::over_limit`].
    pub over_limit: Vec<OverLimit>,
}

/// A change to a user's members and to their stored leases. The store applies the change only if all of these
/// conditions hold:
///
/// - the `guard` is unchanged,
/// - every `dead` lease is missing or expired at `now`,
/// - every `ended` lease is still stored,
/// - every `pruned` lease is ended or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipChange {
    pub now: Timestamp,
    pub guard: Guard,
    /// All members after the change.
    pub members: BTreeSet<StreamId>,
    /// Members that the change removes because their lease is missing or expired. The change also deletes these leases.
    pub dead: Vec<StreamId>,
    /// Members that the change replaces or evicts, oldest first.
    pub ended: Vec<EndedLease>,
    /// The ended leases in excess of [`MAX_ENDED_LEASES`]. The change deletes them.
    pub pruned: Vec<StreamId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedLease {
    pub stream_id: StreamId,
    pub termination: Termination,
    pub ttl_s: i64,
}

impl Commit {
    /// The outcome after the commit is applied.
    pub(crate) fn into_started(self) -> Started {
        Started {
            lease: self.lease,
            limit: self.limit,
            live_before: Some(self.live_before),
            ended: self.ended,
            reaped: self.change.dead.len(),
            expired: self.expired,
            over_limit: self.over_limit,
        }
    }
}

/// Decides whether a stream may start. `snapshot` was read at `now`.
///
/// The read may be torn: the lease of a concurrent start can be missing from the snapshot although its id is a member.
/// The store must therefore apply the commit only if all `dead` leases are missing or expired.
pub fn decide(snapshot: &Snapshot<'_>, request: &StartRequest, now: Timestamp) -> Decision {
    let limit = request.user_limit(snapshot.guard.stored_limit);
    if let Some(outcome) = prior_outcome(snapshot, request, limit, now) {
        return Decision::NoWrite(outcome);
    }
    let live = member_leases(snapshot, |lease| lease.stream_id != request.stream_id && lease.is_live_at(now));
    let kept: Vec<&Lease> = live.iter().copied().filter(|lease| !request.replaces_lease(lease)).collect();
    let (kept, evicts) = match request.at_limit {
        AtLimit::Reject => (kept, false),
        AtLimit::EvictOldest => (eviction_order(&kept, &request.terms, now), true),
    };
    let limits = Limits {
        labels: &request.labels,
        rules: &request.rules,
        user_limit: limit.limit,
        limit_mode: request.limit_mode,
        hard_limit: request.hard_limit,
    };
    let Admission { evicted, exceeded } = match constraints::admission(&limits, &kept, evicts) {
        Ok(admission) => admission,
        Err(exceeded) => return Decision::NoWrite(StartOutcome::Denied(denial(exceeded, live, limit))),
    };
    let over_limit = exceeded.into_iter().map(over_limit).collect();
    let mut dead = dead_members(snapshot, &live);
    dead.retain(|id| *id != request.stream_id);
    let ended = victims(&live, &evicted, request);
    let ended_by =
        EndedBy { stream_id: Some(request.stream_id), device_name: request.device_name.clone(), message: None };
    let marked = ended.iter().map(|ended| EndedLease {
        stream_id: ended.lease.stream_id,
        termination: Termination { reason: ended.reason, ended_by: Some(ended_by.clone()) },
        ttl_s: request.terms.ttl_s(now),
    });
    let mut change = membership_change(snapshot, dead, marked.collect(), Some(request.stream_id), now);
    change.members.insert(request.stream_id);
    let expired = snapshot.leases.iter().filter(|lease| change.dead.contains(&lease.stream_id)).cloned().collect();
    let lease = request.lease(now);
    Decision::Admit(Commit { change, lease, limit, live_before: live.len(), ended, expired, over_limit })
}

fn over_limit(exceeded: Observed<'_>) -> OverLimit {
    let Observed { rule, max, count } = exceeded;
    OverLimit { rule: rule.map(|rule| rule.name.clone()), limit: max, count }
}

/// `live` are all live streams of the user, oldest first.
fn denial(exceeded: Exceeded<'_>, live: Vec<&Lease>, user_limit: UserLimit) -> Denial {
    let Exceeded { rule, max, counted, slot_frees_at } = exceeded;
    let (count, live_before) = (counted.len(), live.len());
    let mut streams = if rule.is_some() { counted } else { live };
    streams.sort_by(|a, b| a.by_age(b));
    Denial {
        rule: rule.map(|rule| rule.name.clone()),
        limit: max,
        count,
        streams: streams.into_iter().cloned().collect(),
        slot_frees_at,
        user_limit,
        live_before,
    }
}

/// The leases of members that satisfy `include`, oldest first.
fn member_leases<'a>(snapshot: &Snapshot<'a>, include: impl Fn(&Lease) -> bool) -> Vec<&'a Lease> {
    let lease = |id: &StreamId| snapshot.leases.iter().find(|lease| lease.stream_id == *id && include(lease));
    let mut leases: Vec<&Lease> = snapshot.members.iter().filter_map(lease).collect();
    leases.sort_by(|a, b| a.by_age(b));
    leases
}

/// The members that are not in `kept`.
fn dead_members(snapshot: &Snapshot<'_>, kept: &[&Lease]) -> Vec<StreamId> {
    let members = snapshot.members.iter().copied();
    members.filter(|id| kept.iter().all(|lease| lease.stream_id != *id)).collect()
}

/// Removes the dead and ended members, and prunes ended leases. Dead members that do not fit into the transaction stay
/// until the next change. `own` is the stream that is being started, if any. Its lease is never pruned.
fn membership_change(
    snapshot: &Snapshot<'_>,
    mut dead: Vec<StreamId>,
    ended: Vec<EndedLease>,
    own: Option<StreamId>,
    now: Timestamp,
) -> MembershipChange {
    dead.truncate(MAX_OTHER_LEASES.saturating_sub(ended.len()));
    let mut members: BTreeSet<StreamId> = snapshot.members.iter().copied().collect();
    let ended_ids = ended.iter().map(|ended| &ended.stream_id);
    dead.iter().chain(ended_ids).for_each(|id| _ = members.remove(id));
    let max_pruned = MAX_OTHER_LEASES.saturating_sub(dead.len() + ended.len());
    let pruned = pruned(snapshot, own, ended.len(), max_pruned);
    MembershipChange { now, guard: snapshot.guard, members, dead, ended, pruned }
}

/// The leases in eviction order: first the ones with an overdue heartbeat, then the others, and the oldest first in both
/// groups. A stream with recent heartbeats is probably being watched, so it comes last.
fn eviction_order<'a>(live: &[&'a Lease], terms: &LeaseTerms, now: Timestamp) -> Vec<&'a Lease> {
    let mut order = live.to_vec();
    order.sort_by(|a, b| b.is_overdue_at(now, terms).cmp(&a.is_overdue_at(now, terms)).then(a.by_age(b)));
    order
}

/// The outcome of a start that was admitted before. `None` if the start is new or its lease has expired.
fn prior_outcome(
    snapshot: &Snapshot<'_>,
    request: &StartRequest,
    limit: UserLimit,
    now: Timestamp,
) -> Option<StartOutcome> {
    let prior = snapshot.leases.iter().find(|lease| lease.stream_id == request.stream_id)?;
    match request.classify(prior, now) {
        PriorLease::Live => Some(StartOutcome::Existing(Started {
            lease: prior.clone(),
            limit,
            live_before: None,
            ended: ended_by(snapshot.leases, request.stream_id),
            reaped: 0,
            expired: Vec::new(),
            over_limit: Vec::new(),
        })),
        PriorLease::Ended => Some(StartOutcome::Ended(prior.clone())),
        PriorLease::KeyReused => Some(StartOutcome::KeyReused),
        PriorLease::Expired => None,
    }
}

/// The ended leases to delete: those over [`MAX_ENDED_LEASES`], earliest TTL first, at most `max`. The caller is
/// about to end `new` more leases, which count towards the cap. Members and the lease `own` are never pruned.
fn pruned(snapshot: &Snapshot<'_>, own: Option<StreamId>, new: usize, max: usize) -> Vec<StreamId> {
    let prunable = |lease: &&Lease| {
        lease.termination.is_some() && Some(lease.stream_id) != own && !snapshot.members.contains(&lease.stream_id)
    };
    let mut ended: Vec<&Lease> = snapshot.leases.iter().filter(prunable).collect();
    let excess = (ended.len() + new).saturating_sub(MAX_ENDED_LEASES).min(ended.len()).min(max);
    ended.sort_by_key(|lease| (lease.ttl_s, lease.stream_id));
    ended.into_iter().take(excess).map(|lease| lease.stream_id).collect()
}

/// The live streams that the start ends, oldest first: streams that it replaces, and `evicted` streams.
fn victims(live: &[&Lease], evicted: &[&Lease], request: &StartRequest) -> Vec<EndedStream> {
    let end_reason = |lease: &Lease| {
        if request.replaces_lease(lease) {
            Some(EndReason::Replaced)
        } else {
            evicted.iter().any(|evicted| evicted.stream_id == lease.stream_id).then_some(EndReason::Evicted)
        }
    };
    let victim = |lease: &&Lease| Some(EndedStream { reason: end_reason(lease)?, lease: (*lease).clone() });
    live.iter().filter_map(victim).collect()
}

/// The streams that the start of `stream_id` ended, oldest first. If a lease was deleted since then, its stream is
/// not in the result.
fn ended_by(leases: &[Lease], stream_id: StreamId) -> Vec<EndedStream> {
    let ended = |lease: &Lease| {
        let termination = lease.termination.as_ref()?;
        let is_own = termination.ended_by.as_ref()?.stream_id == Some(stream_id);
        is_own.then(|| EndedStream { lease: lease.clone(), reason: termination.reason })
    };
    let mut ended: Vec<EndedStream> = leases.iter().filter_map(ended).collect();
    ended.sort_by(|a, b| a.lease.by_age(&b.lease));
    ended
}

#[cfg(test)]
mod tests;
