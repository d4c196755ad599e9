//! The admission rules: whether a stream may start, which streams a start ends, and which members are dead. They are pure
//! functions. Every store uses them, so that all stores make the same decisions. [`end`] contains the rules for requests
//! that only end streams.

mod constraints;
pub mod end;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::constraints::{Exceeded, Limits};
use crate::domain::labels::Labels;
use crate::domain::lease::{
    EndReason, EndedBy, Fingerprint, Lease, LeaseTerms, StreamLimit, Termination, Timestamp, UserLimit,
};
use crate::domain::names::{ContentId, DeviceId, DeviceName, StreamId};
use crate::domain::rules::{Rule, RuleName};

/// A request to start a stream. Repeating it with the same `stream_id` never takes a second slot.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub stream_id: StreamId,
    /// Present if the stream id is derived from an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    pub labels: Labels,
    /// Streams of the same user that this start ends. Unknown ids are ignored.
    pub replaces: Vec<StreamId>,
    pub at_limit: AtLimit,
    /// The limit in the caller's token. It overrides the stored limit, unless the stored limit is 0.
    pub token_limit: Option<StreamLimit>,
    /// The limit of a user without a stored limit.
    pub default_limit: StreamLimit,
    /// All rules. Only those that apply to the labels of this start are evaluated.
    pub rules: Arc<[Rule]>,
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
    pub limit: StreamLimit,
    pub lease: Lease,
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
    /// The rules and the limit in observe mode that the start exceeds, in the order in which they are evaluated. Empty for an
    /// existing stream.
    pub over_limit: Vec<OverLimit>,
}

/// A limit in observe mode that a start exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// `None` for the user's own limit.
    pub rule: Option<RuleName>,
    pub limit: StreamLimit,
    /// How many live streams the limit counts, without the new one and those that it replaces.
    pub count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that denies the start. `None` if the user's own limit denies it.
    pub rule: Option<RuleName>,
    pub limit: StreamLimit,
    /// The live streams that count, oldest first. The user's own limit counts all streams. A rule does not count those that the
    /// start would replace.
    pub streams: Vec<Lease>,
    /// The time from which a repeated start would be admitted if no stream is renewed. `None` if the user is blocked or a rule
    /// forbids the stream.
    pub slot_frees_at: Option<Timestamp>,
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
    /// Whether the decision depends on the user's other streams. A blocked user's start also needs a read, because its
    /// denial lists the streams. The counter does not contain the labels, so a start to which a rule applies needs a read too.
    pub fn needs_read(&self) -> bool {
        self.device_id.is_some()
            || !self.replaces.is_empty()
            || self.limit(None).is_blocked()
            || self.rules.iter().any(|rule| rule.applies_to(&self.labels))
    }

    /// Whether the start ends this live stream because it is from the same device or in `replaces`.
    fn replaces_lease(&self, lease: &Lease) -> bool {
        self.replaces.contains(&lease.stream_id) || (self.device_id.is_some() && lease.device_id == self.device_id)
    }

    /// The effective limit. `stored` is the user's stored limit.
    pub fn limit(&self, stored: Option<StreamLimit>) -> StreamLimit {
        UserLimit::effective(self.token_limit, stored, self.default_limit).limit
    }

    /// The lease of a start that is admitted at `now`.
    pub fn lease(&self, now: Timestamp) -> Lease {
        let expires_at = self.terms.expires_at(now);
        Lease {
            stream_id: self.stream_id,
            device_id: self.device_id.clone(),
            device_name: self.device_name.clone(),
            content_id: self.content_id.clone(),
            labels: self.labels.clone(),
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
        let MembershipChange { ended, dead, .. } = self.change;
        let evicted = ended.iter().filter(|ended| ended.termination.reason == EndReason::Evicted).count();
        Started {
            lease: self.lease,
            limit: self.limit,
            evicted,
            ended: ended.into_iter().map(|ended| ended.stream_id).collect(),
            reaped: dead.len(),
            over_limit: Vec::new(),
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
    let live = member_leases(snapshot, |lease| lease.stream_id != request.stream_id && lease.is_live_at(now));
    let kept: Vec<&Lease> = live.iter().copied().filter(|lease| !request.replaces_lease(lease)).collect();
    let (kept, evicts) = match request.at_limit {
        AtLimit::Reject => (kept, false),
        AtLimit::EvictOldest => (eviction_order(&kept, &request.terms, now), true),
    };
    let limits = Limits { labels: &request.labels, rules: &request.rules, user_limit: limit };
    let evicted = match constraints::evictions(&limits, &kept, evicts) {
        Ok(evicted) => evicted,
        Err(exceeded) => return Decision::NoWrite(StartOutcome::Denied(denial(exceeded, live))),
    };
    let mut dead = dead_members(snapshot, &live);
    dead.retain(|id| *id != request.stream_id);
    let ended_by =
        EndedBy { stream_id: Some(request.stream_id), device_name: request.device_name.clone(), message: None };
    let ended = victims(&live, &evicted, request).map(|(lease, reason)| EndedLease {
        stream_id: lease.stream_id,
        termination: Termination { reason, ended_by: Some(ended_by.clone()) },
        ttl_s: request.terms.ttl_s(now),
    });
    let mut change = membership_change(snapshot, dead, ended.collect(), Some(request.stream_id), now);
    change.members.insert(request.stream_id);
    Decision::Admit(Commit { change, limit, lease: request.lease(now) })
}

/// `live` are all live streams of the user, oldest first.
fn denial(exceeded: Exceeded<'_>, live: Vec<&Lease>) -> Denial {
    let Exceeded { rule, max, counted, slot_frees_at } = exceeded;
    let mut streams = if rule.is_some() { counted } else { live };
    streams.sort_by(|a, b| a.by_age(b));
    Denial {
        rule: rule.map(|rule| rule.name.clone()),
        limit: max,
        streams: streams.into_iter().cloned().collect(),
        slot_frees_at,
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

/// The live streams that the start ends, oldest first, and the reasons: streams that it replaces, and `evicted` streams.
fn victims<'a>(
    live: &[&'a Lease],
    evicted: &[&Lease],
    request: &StartRequest,
) -> impl Iterator<Item = (&'a Lease, EndReason)> {
    let end_reason = |lease: &Lease| {
        if request.replaces_lease(lease) {
            Some(EndReason::Replaced)
        } else {
            evicted.iter().any(|evicted| evicted.stream_id == lease.stream_id).then_some(EndReason::Evicted)
        }
    };
    live.iter().filter_map(move |lease| end_reason(lease).map(|reason| (*lease, reason)))
}

/// The streams that the start of `stream_id` ended, oldest first. If a lease was deleted since then, its stream is
/// not in the result.
fn ended_by(leases: &[Lease], stream_id: StreamId) -> Vec<StreamId> {
    let ended_by_start = |lease: &&Lease| {
        let by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
        by.is_some_and(|by| by.stream_id == Some(stream_id))
    };
    let mut ended: Vec<&Lease> = leases.iter().filter(ended_by_start).collect();
    ended.sort_by(|a, b| a.by_age(b));
    ended.into_iter().map(|lease| lease.stream_id).collect()
}

#[cfg(test)]
mod tests;
