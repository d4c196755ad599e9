//! The rules for requests that end streams of a user without starting one: evictions, lowered limits that end the
//! excess streams, and erasures.

use super::{
    EndedLease, MAX_OTHER_LEASES, MembershipChange, Snapshot, dead_members, eviction_order, member_leases,
    membership_change,
};
use crate::domain::lease::{EndReason, EndedBy, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use crate::domain::names::{Message, StreamId};

/// A request to end streams of a user. Repeating it ends no stream twice.
#[derive(Clone, Debug)]
pub struct EndRequest {
    pub selection: Selection,
    /// A message to the viewers of the ended streams.
    pub message: Option<Message>,
    pub terms: LeaseTerms,
}

/// The streams that a request ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    /// The streams with these ids. Unknown ids are ignored.
    Listed(Vec<StreamId>),
    /// Stores this limit, and ends the streams that exceed it, in eviction order.
    ExcessOver(StreamLimit),
    /// The first step of an erasure: ends all streams, and deletes their leases instead of marking them.
    Erase,
}

/// The changes of one request that ends streams. The store applies them only if the conditions of `change` hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndCommit {
    pub change: MembershipChange,
    /// Members whose leases the commit deletes, live or not. These deletions are unconditional, because the guard ensures
    /// that the members are unchanged.
    pub erased: Vec<StreamId>,
    /// The limit that the commit stores. `None` leaves the stored limit unchanged.
    pub new_limit: Option<StreamLimit>,
    /// The leases of the ended streams that were live, oldest first.
    pub ended: Vec<Lease>,
}

/// Decides which streams a request ends. `snapshot` was read at `now`, and may be torn, as in [`super::decide`]. Returns
/// `None` if there is nothing to write. Whether there is depends only on the members and the stored limit, which were read at the
/// same moment. The leases may be from another moment, so only the conditions of the commit show whether a member is
/// really dead.
///
/// [`Selection::All`] and [`Selection::Listed`] also end expired members that are still stored. Otherwise, their players
/// could renew them on an instance whose clock is behind.
pub fn decide_end(snapshot: &Snapshot<'_>, request: &EndRequest, now: Timestamp) -> Option<EndCommit> {
    if changes_nothing(snapshot, &request.selection) {
        return None;
    }
    let live = member_leases(snapshot, |lease| lease.is_live_at(now));
    let stored = member_leases(snapshot, |lease| lease.termination.is_none());
    let (mut selected, new_limit): (Vec<&Lease>, _) = match &request.selection {
        Selection::All => (stored, None),
        Selection::Listed(ids) => (stored.into_iter().filter(|lease| ids.contains(&lease.stream_id)).collect(), None),
        Selection::ExcessOver(limit) => {
            let mut excess = eviction_order(&live, &request.terms, now);
            excess.truncate(limit.exceeded_by(live.len()));
            (excess, Some(*limit))
        }
        Selection::Erase => return Some(erase(snapshot, now)),
    };
    selected.truncate(MAX_OTHER_LEASES);
    selected.sort_by(|a, b| a.by_age(b));
    let kept: Vec<&Lease> = live.iter().chain(&selected).copied().collect();
    let dead = dead_members(snapshot, &kept);
    let ended_by = request.message.clone().map(|message| EndedBy { message: Some(message), ..EndedBy::default() });
    let termination = Termination { reason: EndReason::Evicted, ended_by };
    let mark = |lease: &&Lease| EndedLease {
        stream_id: lease.stream_id,
        termination: termination.clone(),
        ttl_s: request.terms.ttl_s(now),
    };
    let change = membership_change(snapshot, dead, selected.iter().map(mark).collect(), None, now);
    let ended = selected.into_iter().filter(|lease| lease.is_live_at(now)).cloned().collect();
    Some(EndCommit { change, erased: Vec::new(), new_limit, ended })
}

/// Ends every member, live or not, but at most [`MAX_OTHER_LEASES`]. Prunes nothing, because the next step of the erasure
/// deletes the ended leases.
fn erase(snapshot: &Snapshot<'_>, now: Timestamp) -> EndCommit {
    let live = member_leases(snapshot, |lease| lease.is_live_at(now));
    let ended = live.into_iter().cloned().collect();
    let (erased, members) = snapshot.members.split_at(snapshot.members.len().min(MAX_OTHER_LEASES));
    let change = MembershipChange {
        now,
        guard: snapshot.guard,
        members: members.iter().copied().collect(),
        dead: Vec::new(),
        ended: Vec::new(),
        pruned: Vec::new(),
    };
    EndCommit { change, erased: erased.to_vec(), new_limit: None, ended }
}

fn changes_nothing(snapshot: &Snapshot<'_>, selection: &Selection) -> bool {
    match selection {
        Selection::All | Selection::Erase => snapshot.members.is_empty(),
        Selection::Listed(ids) => !snapshot.members.iter().any(|id| ids.contains(id)),
        Selection::ExcessOver(limit) => {
            snapshot.guard.stored_limit == Some(*limit) && limit.exceeded_by(snapshot.members.len()) == 0
        }
    }
}
