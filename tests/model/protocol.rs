//! The protocol in the model: the items of one user, and the writes, each with a condition and an effect.
//! `expressions.rs` tests that the DynamoDB expressions have the same conditions and effects.

use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Commit, Guard, Snapshot, StartRequest};
use stream_manager::domain::lease::{EndReason, EndedBy, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::{Label, StreamId};

/// The number of stream ids.
pub const STREAMS: usize = 4;

/// The index of a stream.
pub type Id = u8;
/// A set of streams, one bit per stream.
pub type IdSet = u8;
/// A time in seconds.
pub type Tick = u8;

/// The counter item. The default value represents a missing item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CounterItem {
    pub members: IdSet,
    pub revision: Option<u8>,
    pub stream_limit: Option<u8>,
}

/// The item of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseItem {
    pub started_at: Tick,
    pub expires_at: Tick,
    pub device: Option<u8>,
    pub termination: Option<TerminationMark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TerminationMark {
    /// True for a replacement, false for an eviction.
    pub replaced: bool,
    /// The start that ended the stream. `None` for an eviction by id.
    pub by: Option<Id>,
}

/// All items of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Items {
    pub counter: CounterItem,
    pub leases: [Option<LeaseItem>; STREAMS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKey {
    Counter,
    Lease(Id),
}

/// One write, alone or as an action of a transaction. Each flag enables one check or effect. A mutant clears one flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Optimistic start: if no limit is stored and there are fewer than `limit` members, adds the id and increments the
    /// revision.
    AddMember { id: Id, limit: u8, increments_revision: bool, checks_limit: bool },
    /// Read-then-start: if the revision and the stored limit are unchanged, replaces the members and increments the
    /// revision.
    SetMembers {
        revision: Option<u8>,
        stream_limit: Option<u8>,
        members: IdSet,
        checks_revision: bool,
        checks_limit: bool,
    },
    /// Stop and eviction: if the id is a member, removes it and increments the revision.
    RemoveMember { id: Id },
    /// Stores a lease if none is stored. With `replaces_expired_at`, also replaces a lease that had expired at that
    /// time and was not ended.
    PutLease { id: Id, lease: LeaseItem, replaces_expired_at: Option<Tick>, conditional: bool },
    /// Deletes a dead lease. The condition holds if the lease is missing or had expired at `now`.
    DeleteDead { id: Id, now: Tick, conditional: bool },
    /// Marks a stored lease as ended.
    MarkEnded { id: Id, termination: TerminationMark, conditional: bool },
    /// Deletes an ended lease. The condition holds if the lease is missing or ended.
    Prune { id: Id },
    /// Deletes a lease without a condition, for the player's own stop and for TTL.
    DeleteLease { id: Id },
    /// Heartbeat: if the lease is stored, not ended, not expired at `now`, and expires before `new`, moves its expiry to
    /// `new`.
    Renew {
        id: Id,
        now: Tick,
        new: Tick,
        requires_stored: bool,
        rejects_ended: bool,
        rejects_expired: bool,
        only_forward: bool,
    },
    /// Stores the user's limit. `None` deletes the limit if one is stored.
    SetLimit { limit: Option<u8> },
}

/// One transaction: either all writes are applied, or none.
pub type Writes = Arc<[Write]>;

impl Write {
    pub fn key(&self) -> ItemKey {
        match *self {
            Self::AddMember { .. } | Self::SetMembers { .. } | Self::RemoveMember { .. } | Self::SetLimit { .. } => {
                ItemKey::Counter
            }
            Self::PutLease { id, .. }
            | Self::DeleteDead { id, .. }
            | Self::MarkEnded { id, .. }
            | Self::Prune { id }
            | Self::DeleteLease { id }
            | Self::Renew { id, .. } => ItemKey::Lease(id),
        }
    }

    pub fn condition_holds(&self, items: &Items) -> bool {
        let counter = &items.counter;
        let lease = |id: Id| items.leases[id as usize];
        match *self {
            Self::AddMember { limit, checks_limit, .. } => {
                (!checks_limit || counter.stream_limit.is_none()) && counter.members.count_ones() < u32::from(limit)
            }
            Self::SetMembers { revision, stream_limit, checks_revision, checks_limit, .. } => {
                (!checks_revision || counter.revision == revision)
                    && (!checks_limit || counter.stream_limit == stream_limit)
            }
            Self::SetLimit { limit } => limit.is_some() || counter.stream_limit.is_some(),
            Self::RemoveMember { id } => counter.members & bit(id) != 0,
            Self::PutLease { id, replaces_expired_at, conditional, .. } => {
                let expired = |stored: LeaseItem| {
                    stored.termination.is_none() && replaces_expired_at.is_some_and(|now| stored.expires_at <= now)
                };
                !conditional || lease(id).is_none_or(expired)
            }
            Self::DeleteDead { id, now, conditional } => {
                !conditional || lease(id).is_none_or(|stored| stored.expires_at <= now)
            }
            Self::MarkEnded { id, conditional, .. } => !conditional || lease(id).is_some(),
            Self::Prune { id } => lease(id).is_none_or(|stored| stored.termination.is_some()),
            Self::DeleteLease { .. } => true,
            Self::Renew { id, now, new, requires_stored, rejects_ended, rejects_expired, only_forward } => {
                match lease(id) {
                    None => !requires_stored,
                    Some(stored) => {
                        (!rejects_ended || stored.termination.is_none())
                            && (!rejects_expired || stored.expires_at > now)
                            && (!only_forward || stored.expires_at < new)
                    }
                }
            }
        }
    }

    pub fn apply(&self, items: &mut Items) {
        let counter = &mut items.counter;
        match *self {
            Self::AddMember { id, increments_revision, .. } => {
                counter.members |= bit(id);
                if increments_revision {
                    counter.revision = Some(counter.revision.unwrap_or(0) + 1);
                }
            }
            Self::SetMembers { revision, members, .. } => {
                counter.members = members;
                counter.revision = Some(revision.unwrap_or(0) + 1);
            }
            Self::RemoveMember { id } => {
                counter.members &= !bit(id);
                counter.revision = Some(counter.revision.unwrap_or(0) + 1);
            }
            Self::PutLease { id, lease, .. } => items.leases[id as usize] = Some(lease),
            Self::DeleteDead { id, .. } | Self::Prune { id } | Self::DeleteLease { id } => {
                items.leases[id as usize] = None;
            }
            Self::MarkEnded { id, termination, .. } => {
                let stored = items.leases[id as usize].unwrap_or(EMPTY_LEASE);
                // An eviction by id does not overwrite the stored `by`.
                let by = termination.by.or(stored.termination.and_then(|stored| stored.by));
                let termination = Some(TerminationMark { by, ..termination });
                items.leases[id as usize] = Some(LeaseItem { termination, ..stored });
            }
            Self::Renew { id, new, .. } => {
                items.leases[id as usize].get_or_insert(EMPTY_LEASE).expires_at = new;
            }
            Self::SetLimit { limit } => counter.stream_limit = limit,
        }
    }
}

/// The initial value of a lease item that an update creates.
const EMPTY_LEASE: LeaseItem = LeaseItem { started_at: 0, expires_at: 0, device: None, termination: None };

/// The writes of a start that does not read first.
pub fn optimistic_start(id: Id, request: &StartRequest, now: Tick) -> Vec<Write> {
    let lease = lease_item(&request.lease(timestamp(now)));
    vec![
        Write::AddMember {
            id,
            limit: request.limit(None).get(),
            increments_revision: true,
            checks_limit: request.token_limit.is_none(),
        },
        Write::PutLease { id, lease, replaces_expired_at: None, conditional: true },
    ]
}

/// The writes of a production [`Commit`].
pub fn commit(commit: &Commit) -> Vec<Write> {
    let now = tick(commit.now);
    let mut writes = vec![Write::SetMembers {
        revision: commit.guard.revision.map(|revision| revision as u8),
        stream_limit: commit.guard.stored_limit.map(StreamLimit::get),
        members: commit.members.iter().fold(0, |all, id| all | bit(id_of(*id))),
        checks_revision: true,
        checks_limit: true,
    }];
    let dead = commit.dead.iter().map(|id| Write::DeleteDead { id: id_of(*id), now, conditional: true });
    let ended = commit.ended.iter().map(|ended| Write::MarkEnded {
        id: id_of(ended.stream_id),
        termination: termination_mark(&ended.termination),
        conditional: true,
    });
    let pruned = commit.pruned.iter().map(|id| Write::Prune { id: id_of(*id) });
    writes.extend(dead.chain(ended).chain(pruned));
    let (id, lease) = (id_of(commit.lease.stream_id), lease_item(&commit.lease));
    writes.push(Write::PutLease { id, lease, replaces_expired_at: Some(now), conditional: true });
    writes
}

pub fn stop(id: Id) -> Vec<Write> {
    vec![Write::RemoveMember { id }, Write::DeleteLease { id }]
}

pub fn evict(id: Id) -> Vec<Write> {
    let termination = TerminationMark { replaced: false, by: None };
    vec![Write::RemoveMember { id }, Write::MarkEnded { id, termination, conditional: true }]
}

pub fn heartbeat(id: Id, now: Tick, duration: Tick) -> Write {
    Write::Renew {
        id,
        now,
        new: now + duration,
        requires_stored: true,
        rejects_ended: true,
        rejects_expired: true,
        only_forward: true,
    }
}

impl Items {
    /// Converts the items to a production [`Snapshot`] and calls `decide` with it.
    pub fn with_snapshot<T>(&self, duration: Tick, decide: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let members: Vec<StreamId> = ids(self.counter.members).map(stream_id).collect();
        let stored = (0..STREAMS).filter_map(|id| Some((id as Id, self.leases[id]?)));
        let leases: Vec<Lease> = stored.map(|(id, lease)| lease.to_lease(id, duration)).collect();
        let stored_limit = self.counter.stream_limit.and_then(|limit| StreamLimit::new(limit.into()));
        let guard = Guard { revision: self.counter.revision.map(u64::from), stored_limit };
        decide(&Snapshot { guard, members: &members, leases: &leases })
    }
}

impl LeaseItem {
    pub fn to_lease(self, id: Id, duration: Tick) -> Lease {
        let request = request(id, self.device, &[], AtLimit::Reject, 1, duration);
        let termination = self.termination.map(|mark| {
            let reason = if mark.replaced { EndReason::Replaced } else { EndReason::Evicted };
            let ended_by = mark.by.map(|by| EndedBy { stream_id: stream_id(by), device_name: None });
            Box::new(Termination { reason, ended_by })
        });
        let expires_at = timestamp(self.expires_at);
        let ttl_s = request.terms.ttl_s(expires_at);
        Lease { expires_at, ttl_s, termination, ..request.lease(timestamp(self.started_at)) }
    }
}

pub fn lease_item(lease: &Lease) -> LeaseItem {
    LeaseItem {
        started_at: tick(lease.started_at),
        expires_at: tick(lease.expires_at),
        device: lease.device_id.as_ref().and_then(|device| device.as_str().parse().ok()),
        termination: lease.termination.as_deref().map(termination_mark),
    }
}

fn termination_mark(termination: &Termination) -> TerminationMark {
    let by = termination.ended_by.as_ref().map(|by| id_of(by.stream_id));
    TerminationMark { replaced: termination.reason == EndReason::Replaced, by }
}

pub fn request(
    id: Id,
    device: Option<u8>,
    replaces: &[Id],
    at_limit: AtLimit,
    limit: u8,
    duration: Tick,
) -> StartRequest {
    StartRequest {
        stream_id: stream_id(id),
        fingerprint: None,
        device_id: device.map(|device| Label::parse(&device.to_string()).unwrap()),
        device_name: None,
        content_id: None,
        replaces: replaces.iter().map(|id| stream_id(*id)).collect(),
        at_limit,
        token_limit: None,
        default_limit: StreamLimit::new(limit.into()).unwrap(),
        terms: LeaseTerms { duration_s: duration.into(), retention_s: RETENTION_S },
    }
}

/// Longer than any run of the model, because the model has a separate action for TTL.
pub const RETENTION_S: u32 = 1000;

pub fn bit(id: Id) -> IdSet {
    1 << id
}

pub fn ids(set: IdSet) -> impl Iterator<Item = Id> {
    (0..STREAMS as Id).filter(move |id| set & bit(*id) != 0)
}

pub fn stream_id(id: Id) -> StreamId {
    StreamId::random([id; 16])
}

/// The inverse of [`stream_id`].
pub fn id_of(id: StreamId) -> Id {
    (0..STREAMS as Id).find(|index| stream_id(*index) == id).unwrap()
}

pub fn timestamp(tick: Tick) -> Timestamp {
    Timestamp::from_epoch_ms(i64::from(tick) * 1000)
}

pub fn tick(at: Timestamp) -> Tick {
    Tick::try_from(at.epoch_ms() / 1000).unwrap()
}
