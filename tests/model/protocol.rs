//! What the writes of the protocol mean for the items of one user: the model's reading of it, as data and pure
//! functions. `expressions.rs` holds it against what the DynamoDB store renders.

use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Commit, Guard, Snapshot, StartRequest};
use stream_manager::domain::lease::{EndReason, EndedBy, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::{Label, StreamId};

/// How many streams a model has.
pub const IDS: usize = 4;

/// A stream, by its place in the model.
pub type Id = u8;
/// A set of streams, a bit each.
pub type Ids = u8;
/// A point of time; one is a second.
pub type Tick = u8;

/// The counter's item. One that is not there has none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CounterItem {
    pub streams: Ids,
    pub revision: Option<u8>,
    pub stream_limit: Option<u8>,
}

/// A stream's item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseItem {
    pub started_at: Tick,
    pub expires_at: Tick,
    pub device: Option<u8>,
    pub ended: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    pub replaced: bool,
    /// The start that did it.
    pub by: Option<Id>,
}

/// All items of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Items {
    pub counter: CounterItem,
    pub leases: [Option<LeaseItem>; IDS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Counter,
    Lease(Id),
}

/// One action of a transaction, or a write of its own. The flags are true in the protocol; a wrong version clears one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Plain start: IF no own limit and fewer than `limit` members: ADD the id, ADD revision 1.
    AddMember { id: Id, limit: u8, bumps: bool, minds_limit: bool },
    /// Deciding start: IF revision and own limit are as seen: SET members, SET revision.
    SetMembers {
        revision: Option<u8>,
        stream_limit: Option<u8>,
        streams: Ids,
        minds_revision: bool,
        minds_limit: bool,
    },
    /// Stop and eviction: IF it is a member: DELETE the id, ADD revision 1.
    RemoveMember { id: Id },
    /// IF nothing is stored, or with `or_expired_at` what ran out by then and was not ended.
    PutLease { id: Id, lease: LeaseItem, or_expired_at: Option<Tick>, conditional: bool },
    /// IF nothing is stored or it ran out by `now`.
    DeleteDead { id: Id, now: Tick, conditional: bool },
    /// IF it is stored.
    MarkEnded { id: Id, end: End, conditional: bool },
    /// IF nothing is stored or it was ended.
    Forget { id: Id },
    /// A player's stop: without a condition of its own.
    DeleteLease { id: Id },
    /// A heartbeat: IF stored, not ended, not expired at `now`, and `new` is later.
    Renew { id: Id, now: Tick, new: Tick, if_stored: bool, unless_ended: bool, unless_expired: bool, forward: bool },
    /// An operator's: the user's own limit, or with `None` away with it, if there is one.
    SetLimit { limit: Option<u8> },
}

/// One request that changes something: all of it or nothing.
pub type Writes = Arc<[Write]>;

impl Write {
    pub fn place(&self) -> Place {
        match *self {
            Self::AddMember { .. } | Self::SetMembers { .. } | Self::RemoveMember { .. } | Self::SetLimit { .. } => {
                Place::Counter
            }
            Self::PutLease { id, .. }
            | Self::DeleteDead { id, .. }
            | Self::MarkEnded { id, .. }
            | Self::Forget { id }
            | Self::DeleteLease { id }
            | Self::Renew { id, .. } => Place::Lease(id),
        }
    }

    /// Whether its condition holds.
    pub fn holds(&self, items: &Items) -> bool {
        let counter = &items.counter;
        let lease = |id: Id| items.leases[id as usize];
        match *self {
            Self::AddMember { limit, minds_limit, .. } => {
                (!minds_limit || counter.stream_limit.is_none()) && counter.streams.count_ones() < u32::from(limit)
            }
            Self::SetMembers { revision, stream_limit, minds_revision, minds_limit, .. } => {
                (!minds_revision || counter.revision == revision)
                    && (!minds_limit || counter.stream_limit == stream_limit)
            }
            Self::SetLimit { limit } => limit.is_some() || counter.stream_limit.is_some(),
            Self::RemoveMember { id } => counter.streams & bit(id) != 0,
            Self::PutLease { id, or_expired_at, conditional, .. } => {
                let expired = |stored: LeaseItem| {
                    stored.ended.is_none() && or_expired_at.is_some_and(|now| stored.expires_at <= now)
                };
                !conditional || lease(id).is_none_or(expired)
            }
            Self::DeleteDead { id, now, conditional } => {
                !conditional || lease(id).is_none_or(|stored| stored.expires_at <= now)
            }
            Self::MarkEnded { id, conditional, .. } => !conditional || lease(id).is_some(),
            Self::Forget { id } => lease(id).is_none_or(|stored| stored.ended.is_some()),
            Self::DeleteLease { .. } => true,
            Self::Renew { id, now, new, if_stored, unless_ended, unless_expired, forward } => match lease(id) {
                None => !if_stored,
                Some(stored) => {
                    (!unless_ended || stored.ended.is_none())
                        && (!unless_expired || stored.expires_at > now)
                        && (!forward || stored.expires_at < new)
                }
            },
        }
    }

    pub fn apply(&self, items: &mut Items) {
        let counter = &mut items.counter;
        match *self {
            Self::AddMember { id, bumps, .. } => {
                counter.streams |= bit(id);
                if bumps {
                    counter.revision = Some(counter.revision.unwrap_or(0) + 1);
                }
            }
            Self::SetMembers { revision, streams, .. } => {
                counter.streams = streams;
                counter.revision = Some(revision.unwrap_or(0) + 1);
            }
            Self::RemoveMember { id } => {
                counter.streams &= !bit(id);
                counter.revision = Some(counter.revision.unwrap_or(0) + 1);
            }
            Self::PutLease { id, lease, .. } => items.leases[id as usize] = Some(lease),
            Self::DeleteDead { id, .. } | Self::Forget { id } | Self::DeleteLease { id } => {
                items.leases[id as usize] = None;
            }
            Self::MarkEnded { id, end, .. } => {
                let stored = items.leases[id as usize].unwrap_or(NOTHING);
                // An eviction by name has no start behind it, and leaves what is stored of one.
                let by = end.by.or(stored.ended.and_then(|ended| ended.by));
                items.leases[id as usize] = Some(LeaseItem { ended: Some(End { by, ..end }), ..stored });
            }
            Self::Renew { id, new, .. } => {
                items.leases[id as usize].get_or_insert(NOTHING).expires_at = new;
            }
            Self::SetLimit { limit } => counter.stream_limit = limit,
        }
    }
}

/// What an update makes of an item that is not there.
const NOTHING: LeaseItem = LeaseItem { started_at: 0, expires_at: 0, device: None, ended: None };

/// A start that has not read anything.
pub fn optimistic_start(id: Id, request: &StartRequest, now: Tick) -> Vec<Write> {
    let lease = lease_item(&request.lease(instant(now)));
    vec![
        Write::AddMember {
            id,
            limit: request.limit(None).get(),
            bumps: true,
            minds_limit: request.token_limit.is_none(),
        },
        Write::PutLease { id, lease, or_expired_at: None, conditional: true },
    ]
}

/// The product's decision, taken apart.
pub fn commit(commit: &Commit) -> Vec<Write> {
    let now = tick(commit.now);
    let mut writes = vec![Write::SetMembers {
        revision: commit.guard.revision.map(|revision| revision as u8),
        stream_limit: commit.guard.own_limit.map(StreamLimit::get),
        streams: commit.members.iter().fold(0, |all, id| all | bit(id_of(*id))),
        minds_revision: true,
        minds_limit: true,
    }];
    let dead = commit.dead.iter().map(|id| Write::DeleteDead { id: id_of(*id), now, conditional: true });
    let ended = commit.ended.iter().map(|ended| Write::MarkEnded {
        id: id_of(ended.stream_id),
        end: end(&ended.termination),
        conditional: true,
    });
    let pruned = commit.pruned.iter().map(|id| Write::Forget { id: id_of(*id) });
    writes.extend(dead.chain(ended).chain(pruned));
    let (id, lease) = (id_of(commit.lease.stream_id), lease_item(&commit.lease));
    writes.push(Write::PutLease { id, lease, or_expired_at: Some(now), conditional: true });
    writes
}

pub fn stop(id: Id) -> Vec<Write> {
    vec![Write::RemoveMember { id }, Write::DeleteLease { id }]
}

pub fn evict(id: Id) -> Vec<Write> {
    let end = End { replaced: false, by: None };
    vec![Write::RemoveMember { id }, Write::MarkEnded { id, end, conditional: true }]
}

pub fn heartbeat(id: Id, now: Tick, duration: Tick) -> Write {
    let new = now + duration;
    Write::Renew { id, now, new, if_stored: true, unless_ended: true, unless_expired: true, forward: true }
}

impl Items {
    /// Hands the product's decision what was read.
    pub fn with_snapshot<T>(&self, duration: Tick, look: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let members: Vec<StreamId> = ids(self.counter.streams).map(stream_id).collect();
        let stored = (0..IDS).filter_map(|id| Some((id as Id, self.leases[id]?)));
        let leases: Vec<Lease> = stored.map(|(id, lease)| lease.lease(id, duration)).collect();
        let own_limit = self.counter.stream_limit.and_then(|limit| StreamLimit::new(limit.into()));
        let guard = Guard { revision: self.counter.revision.map(u64::from), own_limit };
        look(&Snapshot { guard, members: &members, leases: &leases })
    }
}

impl LeaseItem {
    pub fn lease(&self, id: Id, duration: Tick) -> Lease {
        let request = request(id, self.device, &[], AtLimit::Reject, 1, duration);
        let termination = self.ended.map(|end| {
            let reason = if end.replaced { EndReason::Replaced } else { EndReason::Evicted };
            let ended_by = end.by.map(|by| EndedBy { stream_id: stream_id(by), device_name: None });
            Box::new(Termination { reason, ended_by })
        });
        let expires_at = instant(self.expires_at);
        let ttl_s = request.terms.ttl_s(expires_at);
        Lease { expires_at, ttl_s, termination, ..request.lease(instant(self.started_at)) }
    }
}

pub fn lease_item(lease: &Lease) -> LeaseItem {
    LeaseItem {
        started_at: tick(lease.started_at),
        expires_at: tick(lease.expires_at),
        device: lease.device_id.as_ref().and_then(|device| device.as_str().parse().ok()),
        ended: lease.termination.as_deref().map(end),
    }
}

fn end(termination: &Termination) -> End {
    let by = termination.ended_by.as_ref().map(|by| id_of(by.stream_id));
    End { replaced: termination.reason == EndReason::Replaced, by }
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
        device_id: device.map(|device| Label::parse(&device.to_string()).expect("a name")),
        device_name: None,
        content_id: None,
        replaces: replaces.iter().map(|id| stream_id(*id)).collect(),
        at_limit,
        token_limit: None,
        default_limit: StreamLimit::new(limit.into()).expect("a limit"),
        terms: LeaseTerms { duration_s: duration.into(), retention_s: RETENTION_S },
    }
}

/// Longer than a run of the model: there, TTL is a step of its own.
pub const RETENTION_S: u32 = 1000;

pub fn bit(id: Id) -> Ids {
    1 << id
}

pub fn ids(set: Ids) -> impl Iterator<Item = Id> {
    (0..IDS as Id).filter(move |id| set & bit(*id) != 0)
}

/// The first byte of an id is its place in the model.
pub fn stream_id(id: Id) -> StreamId {
    StreamId::random([id; 16])
}

pub fn id_of(stream_id: StreamId) -> Id {
    stream_id.uuid().as_bytes()[0]
}

pub fn instant(tick: Tick) -> Timestamp {
    Timestamp::from_epoch_ms(i64::from(tick) * 1000)
}

pub fn tick(at: Timestamp) -> Tick {
    Tick::try_from(at.epoch_ms() / 1000).expect("within a run")
}
