//! Tests the write check with changes that the write does not explain. Some of these violations are never the first
//! violation that a mutant triggers.

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES};
use stream_manager::domain::lease::{EndReason, EndedBy, Lease, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::{DeviceId, StreamId};
use stream_manager::limiter::StartOptions;

use super::violation::ViolationKind;
use super::writes::WriteCheck;
use crate::simulation::state::{StoreWrite, UserState};

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);

fn id(n: u8) -> StreamId {
    StreamId::random([n; 16])
}

fn lease(n: u8, age_s: u32) -> Lease {
    Lease {
        stream_id: id(n),
        device_id: DeviceId::parse(&format!("tv-{n}")).ok(),
        device_name: None,
        content_id: None,
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
    UserState { stored_limit: None, members, leases }
}

fn evicted(lease: Lease, by: u8) -> Lease {
    let ended_by = Some(EndedBy { stream_id: id(by), device_name: None });
    Lease { termination: Some(Box::new(Termination { reason: EndReason::Evicted, ended_by })), ..lease }
}

fn violation(
    before: &UserState,
    after: &UserState,
    write: StoreWrite,
    options: StartOptions,
) -> Option<ViolationKind> {
    let default_limit = StreamLimit::new(2).unwrap();
    let check = WriteCheck { before, after, write: &write, options: Some(&options), default_limit };
    check.run().err().map(|violation| violation.kind)
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
    let heartbeat = || StoreWrite::Heartbeat { stream_id: id(1), now: NOW };
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
    let writes = || [StoreWrite::Prune, StoreWrite::Evict { stream_id: id(1) }, start(100)];
    for write in writes() {
        let after = ended(1..cap + 1);
        assert_eq!(violation(&ended(0..cap + 1), &after, write, StartOptions::default()), None);
    }
    for write in writes() {
        let violation = violation(&ended(0..cap), &ended(1..cap), write, StartOptions::default());
        assert_eq!(violation, Some(ViolationKind::TakenEarly));
    }
    let one = state_with([lease(1, 1)]);
    let violation = violation(&one, &UserState::default(), StoreWrite::Prune, StartOptions::default());
    assert_eq!(violation, Some(ViolationKind::TakenEarly));
}
