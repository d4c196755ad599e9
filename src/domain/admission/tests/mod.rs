//! Examples of the admission rules.

mod end;
mod observe;
mod properties;
mod rule_properties;
mod rules;

use std::sync::Arc;

use super::*;
use crate::domain::labels::Labels;
use crate::domain::lease::{Fingerprint, LimitSource};
use crate::domain::names::{DeviceId, DisplayText};
use crate::domain::rules::{LimitMode, Rule};

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 3600 };

fn id(n: u8) -> StreamId {
    StreamId::random([n; 16])
}

/// A live lease that started `n` seconds before [`NOW`].
fn lease(n: u8) -> Lease {
    let mut lease = request(n).lease(NOW.plus_ms(-1000 * i64::from(n)));
    lease.expires_at = NOW.plus_s(u32::from(n));
    lease
}

fn request(n: u8) -> StartRequest {
    StartRequest {
        stream_id: id(n),
        fingerprint: None,
        device_id: None,
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        token_limit: None,
        default_limit: StreamLimit::DEFAULT,
        limit_mode: LimitMode::Enforce,
        hard_limit: StreamLimit::HIGHEST,
        rules: Arc::default(),
        terms: TERMS,
    }
}

fn decide_on(members: &[StreamId], leases: &[Lease], request: &StartRequest) -> Decision {
    let guard = Guard { revision: Some(7), stored_limit: None };
    decide(&Snapshot { guard, members, leases }, request, NOW)
}

fn admitted(decision: Decision) -> Commit {
    match decision {
        Decision::Admit(commit) => commit,
        Decision::NoWrite(outcome) => panic!("not admitted: {outcome:?}"),
    }
}

fn without_write(decision: Decision) -> StartOutcome {
    match decision {
        Decision::NoWrite(outcome) => outcome,
        Decision::Admit(commit) => panic!("admitted: {commit:?}"),
    }
}

fn ended(commit: &Commit) -> Vec<(StreamId, EndReason)> {
    commit.change.ended.iter().map(|ended| (ended.stream_id, ended.termination.reason)).collect()
}

#[test]
fn first_start_gets_a_lease_of_the_configured_duration() {
    let commit = admitted(decide_on(&[], &[], &request(1)));
    assert_eq!(commit.change.members, BTreeSet::from([id(1)]));
    assert_eq!(commit.lease.expires_at, NOW.plus_s(90));
    assert_eq!(commit.lease.ttl_s, 1000 + 90 + 3600);
    assert_eq!(commit.change.guard.revision, Some(7));
}

#[test]
fn denial_lists_live_streams_oldest_first() {
    let leases = [lease(1), lease(2), lease(3)];
    let denial = without_write(decide_on(&[id(1), id(2), id(3)], &leases, &request(9)));
    let streams = vec![lease(3), lease(2), lease(1)];
    let slot_frees_at = Some(lease(1).expires_at);
    let user_limit = UserLimit { limit: StreamLimit::DEFAULT, source: LimitSource::Default };
    let (rule, limit) = (None, user_limit.limit);
    let denied = Denial { rule, limit, count: 3, streams, slot_frees_at, user_limit, live_before: 3 };
    assert_eq!(denial, StartOutcome::Denied(denied));
}

#[test]
fn streams_of_equal_age_are_ordered_by_id() {
    let mut leases = [lease(1), lease(2), lease(3)];
    leases.iter_mut().for_each(|lease| lease.started_at = NOW);
    leases.reverse();
    let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..request(9) };
    let commit = admitted(decide_on(&[id(3), id(2), id(1)], &leases, &evicting));
    assert_eq!(ended(&commit), [(id(1), EndReason::Evicted)]);
}

#[test]
fn expired_lease_frees_its_slot_at_expiry() {
    let mut crashed = lease(1);
    crashed.expires_at = NOW;
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[crashed.clone(), lease(2), lease(3)], &request(9)));
    assert_eq!((commit.change.dead, commit.change.members), (vec![id(1)], BTreeSet::from([id(2), id(3), id(9)])));
    assert_eq!((commit.expired, commit.live_before), (vec![crashed.clone()], 2));

    crashed.expires_at = NOW.plus_ms(1);
    let denied = without_write(decide_on(&[id(1), id(2), id(3)], &[crashed, lease(2), lease(3)], &request(9)));
    assert!(matches!(denied, StartOutcome::Denied(_)), "live until 1 ms before the expiry");
}

#[test]
fn member_without_lease_is_dead() {
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[lease(2), lease(3)], &request(9)));
    assert_eq!((commit.change.dead, commit.expired), (vec![id(1)], vec![]));
}

#[test]
fn leases_of_non_members_are_unchanged() {
    let mut expired = lease(5);
    expired.expires_at = NOW.plus_ms(-1);
    let commit = admitted(decide_on(&[id(2)], &[expired, lease(2), lease(6)], &request(9)));
    assert_eq!((commit.change.dead, commit.change.ended), (vec![], vec![]));
}

#[test]
fn restarted_device_replaces_its_own_stream_at_the_limit() {
    let device_id = DeviceId::parse("tv").ok();
    let mut own = lease(1);
    own.device_id = device_id.clone();
    let restart = StartRequest { device_id, device_name: DisplayText::clean("TV"), ..request(9) };
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[own, lease(2), lease(3)], &restart));
    assert_eq!(ended(&commit), [(id(1), EndReason::Replaced)]);
    let by = commit.change.ended[0].termination.ended_by.clone();
    assert_eq!(by, Some(EndedBy { stream_id: Some(id(9)), device_name: DisplayText::clean("TV"), message: None }));
    assert_eq!(commit.change.ended[0].ttl_s, 1000 + 3600, "the retention begins now, not at the expiry");
}

#[test]
fn replaces_ends_listed_streams_and_ignores_unknown_ids() {
    let replacing = StartRequest { replaces: vec![id(2), id(77), id(9)], ..request(9) };
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[lease(1), lease(2), lease(3)], &replacing));
    assert_eq!(ended(&commit), [(id(2), EndReason::Replaced)]);
}

#[test]
fn denied_start_ends_no_streams() {
    let one = StreamLimit::new(1).unwrap();
    let replacing = StartRequest { replaces: vec![id(1)], default_limit: one, ..request(9) };
    let denied = without_write(decide_on(&[id(1), id(2)], &[lease(1), lease(2)], &replacing));
    assert_eq!(
        denied,
        StartOutcome::Denied(Denial {
            rule: None,
            limit: one,
            count: 1,
            streams: vec![lease(2), lease(1)],
            slot_frees_at: Some(lease(2).expires_at),
            user_limit: UserLimit { limit: one, source: LimitSource::Default },
            live_before: 2,
        })
    );
}

#[test]
fn evict_oldest_ends_no_more_streams_than_needed() {
    let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..request(9) };
    let members = [id(1), id(2), id(3)];
    let commit = admitted(decide_on(&members, &[lease(1), lease(2), lease(3)], &evicting));
    assert_eq!(ended(&commit), [(id(3), EndReason::Evicted)]);
    let commit = admitted(decide_on(&members[..2], &[lease(1), lease(2)], &evicting));
    assert_eq!(ended(&commit), []);
}

#[test]
fn evict_oldest_prefers_streams_with_an_overdue_heartbeat() {
    let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..request(9) };
    // Renewed 75, 46 and 45 s ago: the first two leases are overdue (more than 45 s). The second one is older than the first.
    let renewed = |n: u8, seconds_ago: i64, started_ago: i64| Lease {
        started_at: NOW.plus_ms(-1000 * started_ago),
        expires_at: NOW.plus_ms(1000 * (90 - seconds_ago)),
        ..lease(n)
    };
    let leases = [renewed(1, 75, 80), renewed(2, 46, 90), renewed(3, 45, 600)];
    let members = [id(1), id(2), id(3)];
    assert_eq!(ended(&admitted(decide_on(&members, &leases, &evicting))), [(id(2), EndReason::Evicted)]);
    let renewed_all = [renewed(1, 10, 80), renewed(2, 10, 90), renewed(3, 10, 600)];
    assert_eq!(ended(&admitted(decide_on(&members, &renewed_all, &evicting))), [(id(3), EndReason::Evicted)]);
}

#[test]
fn blocked_user_is_denied_and_loses_no_stream() {
    for at_limit in [AtLimit::Reject, AtLimit::EvictOldest] {
        for (stored_limit, token_limit) in [(0, Some(5)), (0, None), (5, Some(0))] {
            let guard = Guard { revision: Some(7), stored_limit: StreamLimit::new(stored_limit) };
            let token_limit = token_limit.and_then(StreamLimit::new);
            let blocked = StartRequest { at_limit, token_limit, ..request(9) };
            let snapshot = Snapshot { guard, members: &[id(1)], leases: &[lease(1)] };
            let outcome = without_write(decide(&snapshot, &blocked, NOW));
            let StartOutcome::Denied(denial) = outcome else { panic!("not denied: {outcome:?}") };
            assert_eq!((denial.limit.get(), denial.streams.len(), denial.slot_frees_at), (0, 1, None));
        }
    }
    let blocked_by_token = StartRequest { token_limit: StreamLimit::new(0), ..request(9) };
    assert!(blocked_by_token.needs_read(), "an optimistic start would admit the first stream");
}

#[test]
fn slot_frees_when_enough_streams_have_expired() {
    let frees_at = |limit: u64, replaces: &[u8]| {
        let guard = Guard { revision: Some(7), stored_limit: StreamLimit::new(limit) };
        let (members, leases) = ([1, 2, 3].map(id), [1, 2, 3].map(lease));
        let start = StartRequest { replaces: replaces.iter().map(|n| id(*n)).collect(), ..request(9) };
        let outcome = without_write(decide(&Snapshot { guard, members: &members, leases: &leases }, &start, NOW));
        let StartOutcome::Denied(denial) = outcome else { panic!("not denied: {outcome:?}") };
        denial.slot_frees_at
    };
    assert_eq!([1, 2, 3].map(|limit| frees_at(limit, &[])), [3, 2, 1].map(|n| Some(NOW.plus_s(n))));
    assert_eq!(frees_at(1, &[2, 3]), Some(NOW.plus_s(1)), "only the stream that is not replaced must expire");
}

#[test]
fn evict_oldest_counts_replaced_streams_as_free_slots() {
    let both = StartRequest { at_limit: AtLimit::EvictOldest, replaces: vec![id(1)], ..request(9) };
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[lease(1), lease(2), lease(3)], &both));
    assert_eq!(ended(&commit), [(id(1), EndReason::Replaced)]);
}

#[test]
fn lowered_limit_ends_no_streams_and_denies_new_starts() {
    let members = [id(1), id(2), id(3)];
    let leases = [lease(1), lease(2), lease(3)];
    let guard = Guard { revision: Some(7), stored_limit: StreamLimit::new(2) };
    let decide = |members: &[StreamId]| decide(&Snapshot { guard, members, leases: &leases }, &request(9), NOW);
    assert!(matches!(without_write(decide(&members)), StartOutcome::Denied(denial) if denial.streams.len() == 3));
    assert!(matches!(without_write(decide(&members[..2])), StartOutcome::Denied(_)));
    assert_eq!(admitted(decide(&members[..1])).limit.limit.get(), 2);
}

#[test]
fn token_limit_overrides_stored_and_default_limit() {
    let members = [id(1), id(2), id(3)];
    let leases = [lease(1), lease(2), lease(3)];
    for stored_limit in [None, StreamLimit::new(1), StreamLimit::new(9)] {
        let guard = Guard { revision: Some(7), stored_limit };
        let decide = |token: u64| {
            let by_token = StartRequest { token_limit: StreamLimit::new(token), ..request(9) };
            decide(&Snapshot { guard, members: &members, leases: &leases }, &by_token, NOW)
        };
        let commit = admitted(decide(4));
        assert_eq!(
            (commit.limit.limit.get(), commit.change.guard),
            (4, guard),
            "the guard still contains the stored limit"
        );
        assert!(matches!(without_write(decide(3)), StartOutcome::Denied(denial) if denial.limit.get() == 3));
    }
}

#[test]
fn repeated_start_returns_its_existing_lease() {
    let mut own = lease(1);
    own.fingerprint = Some(Fingerprint(uuid::Uuid::from_u128(1)));
    let mut evicted = lease(4);
    evicted.termination = Some(Box::new(Termination {
        reason: EndReason::Evicted,
        ended_by: Some(EndedBy { stream_id: Some(id(1)), ..EndedBy::default() }),
    }));
    let leases = [own.clone(), lease(2), lease(3), evicted];
    let repeated = StartRequest { fingerprint: own.fingerprint, ..request(1) };
    let outcome = without_write(decide_on(&[id(1), id(2), id(3)], &leases, &repeated));
    let StartOutcome::Existing(existing) = outcome else { panic!("{outcome:?}") };
    let limit = UserLimit { limit: StreamLimit::DEFAULT, source: LimitSource::Default };
    assert_eq!((&existing.lease, existing.limit, existing.ended_ids()), (&own, limit, vec![id(4)]));
    assert_eq!((existing.evicted(), existing.reaped), (1, 0));

    let other_body = StartRequest { fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(2))), ..request(1) };
    assert_eq!(without_write(decide_on(&[id(1), id(2), id(3)], &leases, &other_body)), StartOutcome::KeyReused);
}

#[test]
fn repeated_start_reports_that_its_stream_ended() {
    let mut own = lease(1);
    own.termination = Some(Box::new(Termination { reason: EndReason::Replaced, ended_by: None }));
    assert_eq!(without_write(decide_on(&[], &[own.clone()], &request(1))), StartOutcome::Ended(own));
}

#[test]
fn repeated_start_with_expired_lease_is_admitted_again() {
    let mut own = lease(1);
    own.expires_at = NOW;
    let commit = admitted(decide_on(&[id(1)], &[own], &request(1)));
    assert_eq!((commit.change.dead, commit.change.members), (vec![], BTreeSet::from([id(1)])));
}

fn ended_lease(n: u8) -> Lease {
    let termination = Termination { reason: EndReason::Replaced, ended_by: None };
    Lease { ttl_s: 1000 + i64::from(n), termination: Some(Box::new(termination)), ..lease(n) }
}

#[test]
fn start_prunes_oldest_ended_leases() {
    let mut leases: Vec<Lease> = (10..70).map(ended_lease).collect();
    let commit = admitted(decide_on(&[], &leases[..MAX_ENDED_LEASES], &request(9)));
    assert_eq!(commit.change.pruned, []);
    let commit = admitted(decide_on(&[], &leases, &request(9)));
    assert_eq!(commit.change.pruned, (10..20).map(id).collect::<Vec<_>>());

    leases.push(lease(1));
    let replacing = StartRequest { replaces: vec![id(1)], ..request(9) };
    let commit = admitted(decide_on(&[id(1)], &leases, &replacing));
    assert_eq!(commit.change.pruned.len(), 11, "the lease that this start ends counts towards the cap");

    let many: Vec<Lease> = (10..200).map(ended_lease).collect();
    assert_eq!(admitted(decide_on(&[], &many, &request(9))).change.pruned.len(), MAX_OTHER_LEASES);
}

#[test]
fn commit_fits_one_dynamodb_transaction() {
    let members: Vec<StreamId> = (0..=200).map(id).collect();
    let commit = admitted(decide_on(&members, &[], &request(250)));
    assert_eq!(commit.change.dead.len(), MAX_OTHER_LEASES);
    assert_eq!(commit.change.members.len(), 201 - MAX_OTHER_LEASES + 1);
}
