//! Tests the write check with changes that the write does not explain. A simulation stops at its first violation. Some of
//! these violations never come first with any mutant, so the mutants do not test their checks.

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{EndReason, EndedBy, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::{DeviceId, Message, StreamId};
use stream_manager::limiter::{Policy, StartOptions};

use super::violation::ViolationKind;
use super::writes::WriteCheck;
use crate::simulation::api::Operation;
use crate::simulation::state::{CounterState, StoreWrite, UserState};

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 8, heartbeat_interval_s: 2, retention_s: 10 };

fn id(n: u8) -> StreamId {
    StreamId::random([n; 16])
}

fn lease(n: u8, age_s: u32) -> Lease {
    Lease {
        stream_id: id(n),
        device_id: DeviceId::parse(&format!("tv-{n}")).ok(),
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        fingerprint: None,
        started_at: NOW.plus_ms(-1000 * i64::from(age_s)),
        expires_at: NOW.plus_s(8),
        ttl_s: 2_000,
        termination: None,
    }
}

fn state_with(leases: impl IntoIterator<Item = Lease>) -> UserState {
    let leases: Vec<Lease> = leases.into_iter().collect();
    let members = leases.iter().filter(|lease| lease.termination.is_none()).map(|lease| lease.stream_id).collect();
    let leases = leases.into_iter().map(|lease| (lease.stream_id, lease)).collect();
    UserState { members, leases, ..UserState::default() }
}

fn evicted(lease: Lease, by: u8) -> Lease {
    let ended_by = Some(EndedBy { stream_id: Some(id(by)), ..EndedBy::default() });
    Lease { termination: Some(Box::new(Termination { reason: EndReason::Evicted, ended_by })), ..lease }
}

/// The lease after an eviction that no start requested.
fn ended(lease: Lease) -> Lease {
    let termination = Termination { reason: EndReason::Evicted, ended_by: None };
    Lease { termination: Some(Box::new(termination)), ttl_s: TERMS.ttl_s(NOW), ..lease }
}

fn violation(
    before: &UserState,
    after: &UserState,
    write: StoreWrite,
    options: StartOptions,
) -> Option<ViolationKind> {
    violation_of(before, after, write, &Operation::Start(options, None))
}

fn violation_of(
    before: &UserState,
    after: &UserState,
    write: StoreWrite,
    operation: &Operation,
) -> Option<ViolationKind> {
    let policy = Policy { default_limit: StreamLimit::new(2).unwrap(), terms: TERMS, ..Policy::default() };
    let check =
        WriteCheck { before, after, write: &write, operation: Some(operation), during_call: &[], policy: &policy };
    check.run().err().map(|violation| violation.kind)
}

fn end(new_limit: Option<u64>) -> StoreWrite {
    StoreWrite::End { now: None, new_limit: new_limit.and_then(StreamLimit::new) }
}

fn start(n: u8) -> StoreWrite {
    StoreWrite::Start { stream_id: id(n), now: NOW }
}

#[test]
fn start_beyond_the_limit_is_detected() {
    let before = state_with([lease(1, 2), lease(2, 1)]);
    let after = state_with([lease(1, 2), lease(2, 1), lease(3, 0)]);
    let options = StartOptions::default;
    assert_eq!(violation(&before, &after, start(3), options()), Some(ViolationKind::OverLimit));
    let limited = UserState { stored_limit: StreamLimit::new(1), ..before.clone() };
    let after = UserState { stored_limit: StreamLimit::new(1), ..state_with([lease(1, 2), lease(3, 0)]) };
    assert_eq!(violation(&limited, &after, start(3), options()), Some(ViolationKind::TakenEarly));
    assert_eq!(violation(&before, &before, start(3), options()), None);
}

#[test]
fn eviction_of_too_many_or_not_the_oldest_is_detected() {
    let evicting = || StartOptions { at_limit: Some(AtLimit::EvictOldest), ..StartOptions::default() };
    let before = state_with([lease(1, 2), lease(2, 1)]);
    for (after, expected) in [
        ([evicted(lease(1, 2), 3), lease(2, 1), lease(3, 0)], None),
        ([lease(1, 2), evicted(lease(2, 1), 3), lease(3, 0)], Some(ViolationKind::UnneededEviction)),
        ([evicted(lease(1, 2), 3), evicted(lease(2, 1), 3), lease(3, 0)], Some(ViolationKind::UnneededEviction)),
    ] {
        assert_eq!(violation(&before, &state_with(after), start(3), evicting()), expected);
    }
}

#[test]
fn second_live_stream_of_a_device_is_detected() {
    let (before, after) = (state_with([lease(1, 1)]), state_with([lease(1, 1), lease(2, 0)]));
    let same_device = StartOptions { device_id: DeviceId::parse("tv-1").ok(), ..StartOptions::default() };
    assert_eq!(violation(&before, &after, start(2), same_device), Some(ViolationKind::NotReplaced));
    assert_eq!(violation(&before, &after, start(2), StartOptions::default()), None);
}

#[test]
fn unexplained_change_is_detected() {
    let (empty, one) = (UserState::default(), state_with([lease(1, 1)]));
    let limited = UserState { stored_limit: StreamLimit::new(1), ..one.clone() };
    let not_counted = UserState { members: Default::default(), ..one.clone() };
    let heartbeat = || StoreWrite::Heartbeat { stream_id: id(1), now: NOW, content: None };
    for (before, after, write, expected) in [
        (&empty, &one, heartbeat(), ViolationKind::UnexplainedLease),
        (&one, &empty, heartbeat(), ViolationKind::TakenEarly),
        (&one, &empty, StoreWrite::Stop { stream_id: id(2) }, ViolationKind::TakenEarly),
        (&one, &empty, StoreWrite::Sweep { now: NOW }, ViolationKind::TakenEarly),
        (&one, &limited, heartbeat(), ViolationKind::UnexplainedMembership),
        (&one, &not_counted, StoreWrite::Stop { stream_id: id(1) }, ViolationKind::NotCounted),
    ] {
        assert_eq!(violation(before, after, write, StartOptions::default()), Some(expected));
    }
}

#[test]
fn pruning_below_the_cap_is_detected() {
    let ended = |ids: std::ops::Range<u8>| state_with(ids.map(|n| evicted(lease(n, 1), 99)));
    let cap = MAX_ENDED_LEASES as u8;
    let operations = || {
        let start = (start(100), Operation::Start(StartOptions::default(), None));
        [start, (end(None), Operation::Evict(Some(vec![id(1)]), None))]
    };
    for (write, operation) in operations() {
        let after = ended(1..cap + 1);
        assert_eq!(violation_of(&ended(0..cap + 1), &after, write, &operation), None);
    }
    for (write, operation) in operations() {
        let violation = violation_of(&ended(0..cap), &ended(1..cap), write, &operation);
        assert_eq!(violation, Some(ViolationKind::TakenEarly));
    }
}

#[test]
fn eviction_of_streams_that_were_not_selected_is_detected() {
    let before = state_with([lease(1, 2), lease(2, 1)]);
    let one = state_with([ended(lease(1, 2)), lease(2, 1)]);
    let both = state_with([ended(lease(1, 2)), ended(lease(2, 1))]);
    let listed = |ids: &[u8]| Operation::Evict(Some(ids.iter().map(|n| id(*n)).collect()), None);
    for (after, operation, expected) in [
        (&one, listed(&[1]), None),
        (&both, listed(&[1, 2]), None),
        (&both, Operation::Evict(None, None), None),
        (&both, listed(&[1]), Some(ViolationKind::TakenEarly)),
        (&one, listed(&[1, 2]), Some(ViolationKind::NotEnded)),
        (&one, Operation::Evict(None, None), Some(ViolationKind::NotEnded)),
        (&UserState::default(), Operation::Erase, None),
        (&state_with([lease(2, 1)]), Operation::Erase, Some(ViolationKind::NotEnded)),
        (&both, Operation::Erase, Some(ViolationKind::TakenEarly)),
        (&one, Operation::List, Some(ViolationKind::TakenEarly)),
        (&one, Operation::Evict(None, Message::clean("bye")), Some(ViolationKind::TakenEarly)),
    ] {
        assert_eq!(violation_of(&before, after, end(None), &operation), expected, "{operation:?}");
    }
}

#[test]
fn limit_that_ends_other_streams_than_the_excess_is_detected() {
    // Stream 2 is overdue: its lease of 8 s expires in 1 s, so the last heartbeat was 7 s ago.
    let overdue = Lease { expires_at: NOW.plus_s(1), ..lease(2, 9) };
    let (oldest, youngest) = (lease(1, 10), lease(3, 0));
    let limited = |leases: [Lease; 3]| UserState { stored_limit: StreamLimit::new(2), ..state_with(leases) };
    let before = state_with([oldest.clone(), overdue.clone(), youngest.clone()]);
    for (after, expected) in [
        ([oldest.clone(), ended(overdue.clone()), youngest.clone()], None),
        ([ended(oldest.clone()), overdue.clone(), youngest.clone()], Some(ViolationKind::UnneededEviction)),
        ([oldest.clone(), ended(overdue.clone()), ended(youngest.clone())], Some(ViolationKind::UnneededEviction)),
        ([oldest, overdue, youngest], Some(ViolationKind::OverLimit)),
    ] {
        let operation = Operation::EndExcess(StreamLimit::new(2).unwrap());
        assert_eq!(violation_of(&before, &limited(after.clone()), end(Some(2)), &operation), expected, "{after:?}");
    }
}

#[test]
fn erasure_that_deletes_a_live_lease_is_detected() {
    let (live, empty) = (state_with([lease(1, 1)]), UserState::default());
    let ended = state_with([ended(lease(1, 1))]);
    let delete = |before, operation| violation_of(before, &empty, StoreWrite::DeleteEnded, &operation);
    assert_eq!(delete(&ended, Operation::Erase), None);
    assert_eq!(delete(&ended, Operation::List), Some(ViolationKind::TakenEarly));
    assert_eq!(delete(&live, Operation::Erase), Some(ViolationKind::TakenEarly));
    let first_step = violation_of(&ended, &empty, end(None), &Operation::Erase);
    assert_eq!(first_step, Some(ViolationKind::TakenEarly), "the first step must keep ended leases");
}

#[test]
fn lost_or_temporary_counter_is_detected() {
    let counter = |ttl_s| Some(CounterState { revision: Some(3), ttl_s });
    let (permanent, deleted) = (UserState { counter: counter(None), ..UserState::default() }, UserState::default());
    let tombstone = UserState { counter: counter(Some(1_000)), ..UserState::default() };
    let in_use = UserState { counter: counter(Some(1_000)), ..state_with([lease(1, 0)]) };
    let limited = UserState { stored_limit: StreamLimit::new(1), ..tombstone.clone() };
    let sweep = |now| StoreWrite::Sweep { now };
    let set_limit = StoreWrite::SetLimit { limit: StreamLimit::new(1) };
    for (before, after, write, expected) in [
        (&permanent, &tombstone, StoreWrite::Bury, None),
        (&tombstone, &deleted, sweep(NOW), None),
        (&tombstone, &deleted, sweep(NOW.plus_ms(-1)), Some(ViolationKind::CounterLost)),
        (&permanent, &deleted, sweep(NOW), Some(ViolationKind::CounterLost)),
        (&permanent, &deleted, StoreWrite::Bury, Some(ViolationKind::CounterLost)),
        (&tombstone, &in_use, start(1), Some(ViolationKind::NotPermanent)),
        (&tombstone, &limited, set_limit, Some(ViolationKind::NotPermanent)),
    ] {
        let operation = Operation::Start(StartOptions::default(), None);
        assert_eq!(violation_of(before, after, write.clone(), &operation), expected, "{write}");
    }
}
