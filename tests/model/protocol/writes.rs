//! The writes of the model. Each one has a condition and an effect, like the expressions of one DynamoDB action.

use std::sync::Arc;

use stream_manager::domain::admission::end::EndCommit;
use stream_manager::domain::admission::{Commit, MembershipChange, StartRequest};
use stream_manager::domain::lease::StreamLimit;

use super::{
    CounterItem, Id, IdSet, ItemKey, Items, LeaseItem, Revision, StreamLabels, TerminationMark, Tick, bit, id_of,
    lease_item, termination_mark, tick,
};

/// How much an erasure adds to the revision in the model. As in the service, all other requests together add less.
pub const REVISION_STEP: Revision = 1000;

/// One write, alone or as an action of a transaction. Each flag enables one check or effect. A mutant clears one flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Optimistic start: if the stored limit passes the check and there are fewer than `limit` members, adds the id and
    /// increments the revision.
    AddMember { id: Id, limit: u8, increments_revision: bool, limit_check: LimitCheck, removes_ttl: bool },
    /// Read-then-start, and requests that end streams: if the revision and the stored limit are unchanged, replaces the
    /// members, increments the revision, and stores `new_limit` if it is present.
    SetMembers {
        revision: Option<Revision>,
        stream_limit: Option<u8>,
        members: IdSet,
        new_limit: Option<u8>,
        checks_revision: bool,
        checks_limit: bool,
        removes_ttl: bool,
    },
    /// Stop: if the id is a member, removes it and increments the revision.
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
    /// Deletes a lease without a condition, for the player's own stop, for TTL, and for the streams that an erasure ends.
    DeleteLease { id: Id },
    /// Heartbeat: if the lease is stored, not ended, not expired at `now`, and expires before `new`, moves its expiry to
    /// `new`, and stores the content if it is present.
    Renew {
        id: Id,
        now: Tick,
        new: Tick,
        content: Option<u8>,
        requires_stored: bool,
        rejects_ended: bool,
        rejects_expired: bool,
        only_forward: bool,
    },
    /// Stores the user's limit, and removes the TTL of a tombstone. `None` only deletes the limit, if one is stored.
    SetLimit { limit: Option<u8> },
    /// Last step of an erasure: if the revision and the stored limit are unchanged, removes the limit and increases the
    /// revision. If there were no members, also sets the TTL.
    BuryCounter {
        revision: Option<Revision>,
        stream_limit: Option<u8>,
        sets_ttl: bool,
        adds_to_revision: Revision,
        checks_revision: bool,
        checks_limit: bool,
    },
    /// Deletes the counter. TTL deletes it without a condition. A mutant deletes it only if it has no members.
    DeleteCounter { conditional: bool },
}

/// What an optimistic start requires of the stored limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitCheck {
    NoLimit,
    /// For a start with a limit in its token.
    NotBlocked,
    /// For mutants.
    Unchecked,
}

/// One transaction: either all writes are applied, or none.
pub type Writes = Arc<[Write]>;

impl Write {
    pub fn key(&self) -> ItemKey {
        match *self {
            Self::AddMember { .. }
            | Self::SetMembers { .. }
            | Self::RemoveMember { .. }
            | Self::SetLimit { .. }
            | Self::BuryCounter { .. }
            | Self::DeleteCounter { .. } => ItemKey::Counter,
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
            Self::AddMember { limit, limit_check, .. } => {
                let has_room = counter.members == 0 || counter.members.count_ones() < u32::from(limit);
                has_room
                    && match limit_check {
                        LimitCheck::NoLimit => counter.stream_limit.is_none(),
                        LimitCheck::NotBlocked => counter.stream_limit != Some(0),
                        LimitCheck::Unchecked => true,
                    }
            }
            Self::SetMembers { revision, stream_limit, checks_revision, checks_limit, .. } => {
                (!checks_revision || counter.revision == revision)
                    && (!checks_limit || counter.stream_limit == stream_limit)
            }
            Self::SetLimit { limit } => limit.is_some() || counter.stream_limit.is_some(),
            Self::BuryCounter { revision, stream_limit, sets_ttl, checks_revision, checks_limit, .. } => {
                counter.is_stored
                    && (!checks_revision || counter.revision == revision)
                    && (!checks_limit || counter.stream_limit == stream_limit)
                    && (!sets_ttl || counter.members == 0)
            }
            Self::DeleteCounter { conditional: true } => counter.is_stored && counter.members == 0,
            Self::DeleteCounter { conditional: false } => true,
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
            Self::Renew { id, now, new, requires_stored, rejects_ended, rejects_expired, only_forward, .. } => {
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
        counter.is_stored |= self.key() == ItemKey::Counter;
        match *self {
            Self::AddMember { id, increments_revision, removes_ttl, .. } => {
                counter.members |= bit(id);
                if increments_revision {
                    counter.revision = Some(counter.revision.unwrap_or(0) + 1);
                }
                counter.has_ttl &= !removes_ttl;
            }
            Self::SetMembers { revision, members, new_limit, removes_ttl, .. } => {
                counter.members = members;
                counter.revision = Some(revision.unwrap_or(0) + 1);
                counter.stream_limit = new_limit.or(counter.stream_limit);
                counter.has_ttl &= !removes_ttl;
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
                // A request that contains neither a stream nor a message does not change the stored `endedBy`.
                let by = match stored.termination {
                    Some(stored) if termination.by.is_none() && !termination.message => stored,
                    _ => termination,
                };
                let termination = Some(TerminationMark { replaced: termination.replaced, ..by });
                items.leases[id as usize] = Some(LeaseItem { termination, ..stored });
            }
            Self::Renew { id, new, content, .. } => {
                let lease = items.leases[id as usize].get_or_insert(EMPTY_LEASE);
                (lease.expires_at, lease.content) = (new, content.or(lease.content));
            }
            Self::SetLimit { limit } => {
                counter.stream_limit = limit;
                counter.has_ttl &= limit.is_none();
            }
            Self::BuryCounter { sets_ttl, adds_to_revision, .. } => {
                counter.stream_limit = None;
                counter.has_ttl |= sets_ttl;
                counter.revision = Some(counter.revision.unwrap_or(0) + adds_to_revision);
            }
            Self::DeleteCounter { .. } => *counter = Default::default(),
        }
    }
}

/// The initial value of a lease item that an update creates.
const EMPTY_LEASE: LeaseItem = LeaseItem {
    started_at: 0,
    expires_at: 0,
    device: None,
    content: None,
    labels: StreamLabels { uhd: false, channel: None },
    termination: None,
};

/// The writes of a start that does not read first.
pub fn optimistic_start(id: Id, request: &StartRequest, now: Tick) -> Vec<Write> {
    let lease = lease_item(&request.lease(super::timestamp(now)));
    let limit_check = if request.token_limit.is_some() { LimitCheck::NotBlocked } else { LimitCheck::NoLimit };
    vec![
        Write::AddMember {
            id,
            limit: request.limit(None).get(),
            increments_revision: true,
            limit_check,
            removes_ttl: true,
        },
        Write::PutLease { id, lease, replaces_expired_at: None, conditional: true },
    ]
}

/// The writes of a production [`Commit`].
pub fn commit(commit: &Commit) -> Vec<Write> {
    let mut writes = change_membership(&commit.change, None);
    let (id, lease) = (id_of(commit.lease.stream_id), lease_item(&commit.lease));
    let replaces_expired_at = Some(tick(commit.change.now));
    writes.push(Write::PutLease { id, lease, replaces_expired_at, conditional: true });
    writes
}

/// The writes of a production [`EndCommit`].
pub fn end(commit: &EndCommit) -> Vec<Write> {
    let mut writes = change_membership(&commit.change, commit.new_limit);
    writes.extend(commit.erased.iter().map(|id| Write::DeleteLease { id: id_of(*id) }));
    writes
}

fn change_membership(change: &MembershipChange, new_limit: Option<StreamLimit>) -> Vec<Write> {
    let now = tick(change.now);
    let mut writes = vec![Write::SetMembers {
        revision: change.guard.revision.map(|revision| revision as Revision),
        stream_limit: change.guard.stored_limit.map(StreamLimit::get),
        members: change.members.iter().fold(0, |all, id| all | bit(id_of(*id))),
        new_limit: new_limit.map(StreamLimit::get),
        checks_revision: true,
        checks_limit: true,
        removes_ttl: true,
    }];
    let dead = change.dead.iter().map(|id| Write::DeleteDead { id: id_of(*id), now, conditional: true });
    let ended = change.ended.iter().map(|ended| Write::MarkEnded {
        id: id_of(ended.stream_id),
        termination: termination_mark(&ended.termination),
        conditional: true,
    });
    writes.extend(dead.chain(ended).chain(prune(change.pruned.iter().map(|id| id_of(*id)))));
    writes
}

pub fn prune(ids: impl IntoIterator<Item = Id>) -> impl Iterator<Item = Write> {
    ids.into_iter().map(|id| Write::Prune { id })
}

pub fn stop(id: Id) -> Vec<Write> {
    vec![Write::RemoveMember { id }, Write::DeleteLease { id }]
}

/// The last write of an erasure that has read this counter. `None` if there is nothing to write.
pub fn bury(counter: &CounterItem) -> Option<Write> {
    let CounterItem { is_stored, members, revision, stream_limit, .. } = *counter;
    let sets_ttl = members == 0;
    let adds_to_revision = if sets_ttl { REVISION_STEP } else { 1 };
    let write = Write::BuryCounter {
        revision,
        stream_limit,
        sets_ttl,
        adds_to_revision,
        checks_revision: true,
        checks_limit: true,
    };
    (is_stored && (sets_ttl || stream_limit.is_some())).then_some(write)
}

pub fn heartbeat(id: Id, content: Option<u8>, now: Tick, duration: Tick) -> Write {
    Write::Renew {
        id,
        now,
        new: now + duration,
        content,
        requires_stored: true,
        rejects_ended: true,
        rejects_expired: true,
        only_forward: true,
    }
}
