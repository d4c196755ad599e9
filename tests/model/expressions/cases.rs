//! The commits and the stored items that the tests combine.

use std::collections::BTreeSet;

use stream_manager::domain::admission::end::EndCommit;
use stream_manager::domain::admission::{AtLimit, Commit, EndedLease, Guard, MembershipChange, StartRequest};
use stream_manager::domain::lease::{EndReason, EndedBy, LeaseTerms, Termination};

use crate::protocol::{
    self, CounterItem, Id, IdSet, Items, LeaseItem, RETENTION_S, Revision, STREAMS, StreamLabels, TerminationMark,
    Tick, bit, stream_id, timestamp,
};

pub const NOW: Tick = 10;
pub const DURATION: Tick = 5;
pub const TERMS: LeaseTerms = protocol::terms(DURATION);
/// The revision that a request has read.
pub const READ_REVISION: Revision = 4;
pub const OWN: Id = 0;
pub const DEAD: Id = 1;
pub const ENDED: Id = 2;
const PRUNED: Id = 3;

/// Every kind of commit of a start.
pub fn commits(guard: Guard) -> Vec<Commit> {
    let by_start = |reason| Termination {
        reason,
        ended_by: Some(EndedBy { stream_id: Some(stream_id(OWN)), ..EndedBy::default() }),
    };
    let terminations = [None, Some(by_start(EndReason::Evicted)), Some(by_start(EndReason::Replaced))];
    let changes = changes(guard, bit(OWN), &terminations).into_iter();
    let request = protocol::request(OWN, Some(1), &[], AtLimit::Reject, 2, DURATION);
    let request = StartRequest { labels: StreamLabels { uhd: true, channel: Some(2) }.to_labels(), ..request };
    changes
        .map(|change| Commit {
            change,
            lease: request.lease(timestamp(NOW)),
            limit: request.user_limit(None),
            live_before: 0,
            ended: Vec::new(),
            expired: Vec::new(),
            over_limit: Vec::new(),
        })
        .collect()
}

/// Every kind of commit for requests that end streams without starting one.
pub fn end_commits(guard: Guard) -> Vec<EndCommit> {
    let with = |message| Termination {
        reason: EndReason::Evicted,
        ended_by: Option::map(message, |message| EndedBy { message: Some(message), ..EndedBy::default() }),
    };
    let terminations = [None, Some(with(None)), Some(with(protocol::message()))];
    let mut commits = Vec::new();
    for members in [0, bit(OWN)] {
        for change in changes(guard, members, &terminations) {
            commits.extend([None, Some(0), Some(3)].map(|limit: Option<u8>| EndCommit {
                change: change.clone(),
                erased: Vec::new(),
                new_limit: limit.map(protocol::limit),
                ended: Vec::new(),
            }));
        }
    }
    let change = MembershipChange {
        now: timestamp(NOW),
        guard,
        members: BTreeSet::new(),
        dead: Vec::new(),
        ended: Vec::new(),
        pruned: Vec::new(),
    };
    let erased = vec![stream_id(DEAD), stream_id(ENDED)];
    commits.push(EndCommit { change, erased, new_limit: None, ended: Vec::new() });
    commits
}

/// Changes with and without dead, ended and pruned leases.
fn changes(guard: Guard, members: IdSet, terminations: &[Option<Termination>]) -> Vec<MembershipChange> {
    let mut changes = Vec::new();
    for dead in [vec![], vec![stream_id(DEAD)]] {
        for termination in terminations {
            for pruned in [vec![], vec![stream_id(PRUNED)]] {
                let ended = termination.clone().map(|termination| EndedLease {
                    stream_id: stream_id(ENDED),
                    termination,
                    ttl_s: i64::from(RETENTION_S),
                });
                changes.push(MembershipChange {
                    now: timestamp(NOW),
                    guard,
                    members: protocol::ids(members).map(stream_id).collect(),
                    dead: dead.clone(),
                    ended: ended.into_iter().collect(),
                    pruned,
                });
            }
        }
    }
    changes
}

/// The streams whose leases the commit writes.
pub fn ids_written_by_end(commit: &EndCommit) -> Vec<Id> {
    let erased = commit.erased.iter().copied().map(protocol::id_of);
    written_ids(&commit.change).into_iter().chain(erased).collect()
}

/// The streams whose leases the change writes.
pub fn written_ids(change: &MembershipChange) -> Vec<Id> {
    let ended = change.ended.iter().map(|ended| ended.stream_id);
    let ids = change.dead.iter().copied().chain(ended).chain(change.pruned.iter().copied());
    ids.map(protocol::id_of).collect()
}

/// Every combination of states of these leases: missing, live, expired or ended.
pub fn combinations(ids: &[Id]) -> Vec<[Option<LeaseItem>; STREAMS]> {
    let states = [None, lease(NOW + 2), lease(NOW), lease(NOW - 2), ended(NOW + 2), ended(NOW - 2)];
    ids.iter().fold(vec![[None; STREAMS]], |all, id| {
        let with = |leases: [Option<LeaseItem>; STREAMS]| {
            states.map(|state| {
                let mut leases = leases;
                leases[*id as usize] = state;
                leases
            })
        };
        all.into_iter().flat_map(with).collect()
    })
}

pub fn counters(members: &[IdSet]) -> Vec<CounterItem> {
    let mut counters = vec![CounterItem::default()];
    for members in members.iter().copied() {
        for revision in [None, Some(READ_REVISION), Some(READ_REVISION + 1)] {
            for stream_limit in [None, Some(0), Some(2), Some(3)] {
                for has_ttl in [false, true] {
                    counters.push(CounterItem { is_stored: true, members, revision, stream_limit, has_ttl });
                }
            }
        }
    }
    counters
}

pub fn counter_and_own_lease_combinations() -> Vec<Items> {
    let counters = counters(&[0, bit(OWN), bit(DEAD), bit(DEAD) | bit(ENDED), 0b1110]);
    let with_leases =
        |counter| combinations(&[OWN]).into_iter().map(move |leases| Items { counter, leases }).collect::<Vec<_>>();
    counters.into_iter().flat_map(with_leases).collect()
}

/// Every combination of items that the service can store for a user with at most three streams.
pub fn partitions() -> Vec<Items> {
    let streams =
        [(None, false), (None, true), (lease(NOW + 2), true), (lease(NOW - 2), true), (ended(NOW + 2), false)];
    let mut partitions = Vec::new();
    for combination in 0..5usize.pow(3) {
        let mut items = Items::default();
        for (id, divisor) in [1, 5, 25].into_iter().enumerate() {
            let (lease, is_member) = streams[combination / divisor % 5];
            items.leases[id] = lease;
            items.counter.members |= if is_member { bit(id as Id) } else { 0 };
        }
        let mut counters = vec![];
        for stream_limit in [None, Some(0), Some(2)] {
            let counter = CounterItem { is_stored: true, stream_limit, ..items.counter };
            counters.push(CounterItem { revision: Some(READ_REVISION), ..counter });
            counters.extend((combination == 0).then_some(counter));
        }
        if items.counter.members == 0 {
            let tombstone = CounterItem { has_ttl: true, ..counters[0] };
            counters.extend([CounterItem::default(), tombstone]);
        }
        let leases = items.leases;
        partitions.extend(counters.into_iter().map(|counter| Items { counter, leases }));
    }
    partitions
}

pub fn lease(expires_at: Tick) -> Option<LeaseItem> {
    let labels = StreamLabels { uhd: true, channel: Some(1) };
    Some(LeaseItem { started_at: NOW - 5, expires_at, device: None, content: Some(1), labels, termination: None })
}

pub fn ended(expires_at: Tick) -> Option<LeaseItem> {
    let mark = TerminationMark { replaced: true, by: Some(DEAD), message: false };
    lease(expires_at).map(|lease| LeaseItem { termination: Some(mark), ..lease })
}
