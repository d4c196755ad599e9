//! The rules of admission by example, and as properties of any snapshot.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::domain::names::Label;

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, retention_s: 3600 };

fn id(n: u8) -> StreamId {
    StreamId::random([n; 16])
}

/// A live lease that started `n` seconds before now.
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
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        token_limit: None,
        default_limit: StreamLimit::DEFAULT,
        terms: TERMS,
    }
}

fn decide_on(members: &[StreamId], leases: &[Lease], request: &StartRequest) -> Decision {
    let guard = Guard { revision: Some(7), own_limit: None };
    decide(&Snapshot { guard, members, leases }, request, NOW)
}

fn admitted(decision: Decision) -> Commit {
    match decision {
        Decision::Admit(commit) => commit,
        Decision::NoWrite(answer) => panic!("not admitted: {answer:?}"),
    }
}

fn answered(decision: Decision) -> StartOutcome {
    match decision {
        Decision::NoWrite(answer) => answer,
        Decision::Admit(commit) => panic!("admitted: {commit:?}"),
    }
}

fn ended(commit: &Commit) -> Vec<(StreamId, EndReason)> {
    commit.ended.iter().map(|ended| (ended.stream_id, ended.termination.reason)).collect()
}

#[test]
fn the_first_start_is_admitted_for_the_duration_of_a_lease() {
    let commit = admitted(decide_on(&[], &[], &request(1)));
    assert_eq!(commit.members, BTreeSet::from([id(1)]));
    assert_eq!(commit.lease.expires_at, NOW.plus_s(90));
    assert_eq!(commit.lease.ttl_s, 1000 + 90 + 3600);
    assert_eq!(commit.guard.revision, Some(7));
}

#[test]
fn a_start_at_the_limit_is_denied_with_the_live_streams_oldest_first() {
    let leases = [lease(1), lease(2), lease(3)];
    let denial = answered(decide_on(&[id(1), id(2), id(3)], &leases, &request(9)));
    let oldest_first = vec![lease(3), lease(2), lease(1)];
    assert_eq!(denial, StartOutcome::Denied(Denial { limit: StreamLimit::DEFAULT, streams: oldest_first }));
}

#[test]
fn streams_of_the_same_age_are_ordered_by_id() {
    let mut leases = [lease(1), lease(2), lease(3)];
    leases.iter_mut().for_each(|lease| lease.started_at = NOW);
    leases.reverse();
    let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..request(9) };
    let commit = admitted(decide_on(&[id(3), id(2), id(1)], &leases, &evicting));
    assert_eq!(ended(&commit), [(id(1), EndReason::Evicted)]);
}

#[test]
fn a_dead_members_slot_is_free_at_its_expiry_and_its_lease_is_dropped() {
    let mut crashed = lease(1);
    crashed.expires_at = NOW;
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[crashed.clone(), lease(2), lease(3)], &request(9)));
    assert_eq!((commit.dead, commit.members), (vec![id(1)], BTreeSet::from([id(2), id(3), id(9)])));

    crashed.expires_at = NOW.plus_ms(1);
    let denied = answered(decide_on(&[id(1), id(2), id(3)], &[crashed, lease(2), lease(3)], &request(9)));
    assert!(matches!(denied, StartOutcome::Denied(_)), "a millisecond earlier it is live");
}

#[test]
fn a_member_without_a_lease_is_dead_and_is_dropped_under_its_condition() {
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[lease(2), lease(3)], &request(9)));
    assert_eq!(commit.dead, [id(1)]);
}

#[test]
fn leases_that_are_not_members_are_left_alone() {
    let mut expired = lease(5);
    expired.expires_at = NOW.plus_ms(-1);
    let commit = admitted(decide_on(&[id(2)], &[expired, lease(2), lease(6)], &request(9)));
    assert_eq!((commit.dead, commit.ended), (vec![], vec![]));
}

#[test]
fn a_restarted_device_replaces_its_own_stream_even_at_the_limit() {
    let device_id = Label::parse("tv").ok();
    let mut own = lease(1);
    own.device_id = device_id.clone();
    let restart = StartRequest { device_id, device_name: Label::parse("TV").ok(), ..request(9) };
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[own, lease(2), lease(3)], &restart));
    assert_eq!(ended(&commit), [(id(1), EndReason::Replaced)]);
    let by = commit.ended[0].termination.ended_by.clone();
    assert_eq!(by, Some(EndedBy { stream_id: id(9), device_name: Label::parse("TV").ok() }));
    assert_eq!(commit.ended[0].ttl_s, 1000 + 3600, "remembered from now on, not from its expiry");
}

#[test]
fn replaces_ends_the_named_streams_and_ignores_unknown_ones() {
    let replacing = StartRequest { replaces: vec![id(2), id(77), id(9)], ..request(9) };
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[lease(1), lease(2), lease(3)], &replacing));
    assert_eq!(ended(&commit), [(id(2), EndReason::Replaced)]);
}

#[test]
fn a_denied_start_ends_nobody_it_would_have_replaced() {
    let one = StreamLimit::new(1).unwrap();
    let replacing = StartRequest { replaces: vec![id(1)], default_limit: one, ..request(9) };
    let denied = answered(decide_on(&[id(1), id(2)], &[lease(1), lease(2)], &replacing));
    assert_eq!(denied, StartOutcome::Denied(Denial { limit: one, streams: vec![lease(2), lease(1)] }));
}

#[test]
fn evict_oldest_ends_only_as_many_as_are_in_the_way() {
    let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..request(9) };
    let members = [id(1), id(2), id(3)];
    let commit = admitted(decide_on(&members, &[lease(1), lease(2), lease(3)], &evicting));
    assert_eq!(ended(&commit), [(id(3), EndReason::Evicted)]);
    let commit = admitted(decide_on(&members[..2], &[lease(1), lease(2)], &evicting));
    assert_eq!(ended(&commit), []);
}

#[test]
fn evict_oldest_counts_what_it_replaces_as_room() {
    let both = StartRequest { at_limit: AtLimit::EvictOldest, replaces: vec![id(1)], ..request(9) };
    let commit = admitted(decide_on(&[id(1), id(2), id(3)], &[lease(1), lease(2), lease(3)], &both));
    assert_eq!(ended(&commit), [(id(1), EndReason::Replaced)]);
}

#[test]
fn a_lowered_limit_ends_nobody_and_refuses_until_there_is_room() {
    let members = [id(1), id(2), id(3)];
    let leases = [lease(1), lease(2), lease(3)];
    let guard = Guard { revision: Some(7), own_limit: StreamLimit::new(2) };
    let decide = |members: &[StreamId]| decide(&Snapshot { guard, members, leases: &leases }, &request(9), NOW);
    assert!(matches!(answered(decide(&members)), StartOutcome::Denied(denial) if denial.streams.len() == 3));
    assert!(matches!(answered(decide(&members[..2])), StartOutcome::Denied(_)));
    assert_eq!(admitted(decide(&members[..1])).limit.get(), 2);
}

#[test]
fn a_limit_that_a_token_says_goes_before_the_stored_one_and_the_default() {
    let members = [id(1), id(2), id(3)];
    let leases = [lease(1), lease(2), lease(3)];
    for own_limit in [None, StreamLimit::new(1), StreamLimit::new(9)] {
        let guard = Guard { revision: Some(7), own_limit };
        let decide = |token: u64| {
            let by_token = StartRequest { token_limit: StreamLimit::new(token), ..request(9) };
            decide(&Snapshot { guard, members: &members, leases: &leases }, &by_token, NOW)
        };
        let commit = admitted(decide(4));
        assert_eq!((commit.limit.get(), commit.guard), (4, guard), "what is stored is still guarded as it was read");
        assert!(matches!(answered(decide(3)), StartOutcome::Denied(denial) if denial.limit.get() == 3));
    }
}

#[test]
fn a_repeated_start_finds_its_own_lease_before_anything_else() {
    let mut own = lease(1);
    own.fingerprint = Some(Fingerprint(uuid::Uuid::from_u128(1)));
    let mut evicted = lease(4);
    evicted.termination = Some(Box::new(Termination {
        reason: EndReason::Evicted,
        ended_by: Some(EndedBy { stream_id: id(1), device_name: None }),
    }));
    let leases = [own.clone(), lease(2), lease(3), evicted];
    let repeated = StartRequest { fingerprint: own.fingerprint, ..request(1) };
    let answer = answered(decide_on(&[id(1), id(2), id(3)], &leases, &repeated));
    let limit = StreamLimit::DEFAULT;
    assert_eq!(
        answer,
        StartOutcome::Existing(Started { lease: own.clone(), limit, ended: vec![id(4)], evicted: 0, reaped: 0 })
    );

    let other_body = StartRequest { fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(2))), ..request(1) };
    assert_eq!(answered(decide_on(&[id(1), id(2), id(3)], &leases, &other_body)), StartOutcome::KeyReused);
}

#[test]
fn a_repeated_start_learns_that_its_stream_was_ended() {
    let mut own = lease(1);
    own.termination = Some(Box::new(Termination { reason: EndReason::Replaced, ended_by: None }));
    assert_eq!(answered(decide_on(&[], &[own.clone()], &request(1))), StartOutcome::Ended(own));
}

#[test]
fn a_repeated_start_whose_lease_ran_out_is_admitted_anew() {
    let mut own = lease(1);
    own.expires_at = NOW;
    let commit = admitted(decide_on(&[id(1)], &[own], &request(1)));
    assert_eq!((commit.dead, commit.members), (vec![], BTreeSet::from([id(1)])));
}

fn over(n: u8) -> Lease {
    let termination = Termination { reason: EndReason::Replaced, ended_by: None };
    Lease { ttl_s: 1000 + i64::from(n), termination: Some(Box::new(termination)), ..lease(n) }
}

#[test]
fn an_eviction_forgets_all_but_the_latest_and_neither_its_own_nor_a_member() {
    let guard = Guard { revision: Some(1), own_limit: None };
    let forgets =
        |members: &[StreamId], leases: &[Lease]| pruned_by_eviction(&Snapshot { guard, members, leases }, id(10));
    let ids = |ids: std::ops::Range<u8>| ids.map(id).collect::<Vec<_>>();
    let mut leases: Vec<Lease> = (10..70).map(over).collect();
    assert_eq!(forgets(&[], &leases[..MAX_ENDED_LEASES]), []);
    assert_eq!(forgets(&[], &leases), ids(11..21));
    assert_eq!(forgets(&[id(11)], &leases), ids(12..21));
    leases[0] = lease(10);
    assert_eq!(forgets(&[id(10)], &leases), ids(11..21), "also where its end does not show yet");
    assert_eq!(forgets(&[], &(10..200).map(over).collect::<Vec<_>>()).len(), MAX_DROPPED);
}

#[test]
fn a_start_that_looks_forgets_all_but_the_latest_of_the_ended_leases() {
    let mut leases: Vec<Lease> = (10..70).map(over).collect();
    let commit = admitted(decide_on(&[], &leases[..MAX_ENDED_LEASES], &request(9)));
    assert_eq!(commit.pruned, []);
    let commit = admitted(decide_on(&[], &leases, &request(9)));
    assert_eq!(commit.pruned, (10..20).map(id).collect::<Vec<_>>());

    leases.push(lease(1));
    let replacing = StartRequest { replaces: vec![id(1)], ..request(9) };
    let commit = admitted(decide_on(&[id(1)], &leases, &replacing));
    assert_eq!(commit.pruned.len(), 11, "the one that it ends itself is among those to remember");

    let many: Vec<Lease> = (10..200).map(over).collect();
    assert_eq!(admitted(decide_on(&[], &many, &request(9))).pruned.len(), MAX_DROPPED);
}

#[test]
fn a_commit_never_holds_more_than_one_transaction_can() {
    let members: Vec<StreamId> = (0..=200).map(id).collect();
    let commit = admitted(decide_on(&members, &[], &request(250)));
    assert_eq!(commit.dead.len(), MAX_DROPPED);
    assert_eq!(commit.members.len(), 201 - MAX_DROPPED + 1);
}

/// A pool of ids small enough for all kinds of collisions.
const IDS: u8 = 6;

fn any_lease(n: u8) -> impl Strategy<Value = Lease> {
    let termination =
        prop_oneof![Just(None), Just(None), Just(Some(EndReason::Evicted)), Just(Some(EndReason::Replaced))];
    (-5i64..5, -3i64..3, option::of(0u8..2), termination).prop_map(move |(started, expires, device, reason)| Lease {
        started_at: NOW.plus_ms(started),
        expires_at: NOW.plus_ms(expires),
        device_id: device.map(device_id),
        termination: reason.map(|reason| Box::new(Termination { reason, ended_by: None })),
        ..lease(n)
    })
}

fn device_id(n: u8) -> DeviceId {
    Label::parse(&format!("device-{n}")).unwrap()
}

prop_compose! {
    fn any_request()(
        own in 0..IDS,
        device in option::of(0u8..2),
        replaces in vec(0..IDS, 0..3),
        evict in any::<bool>(),
        token_limit in option::of(1u64..5),
    ) -> StartRequest {
        StartRequest {
            device_id: device.map(device_id),
            replaces: replaces.into_iter().map(id).collect(),
            at_limit: if evict { AtLimit::EvictOldest } else { AtLimit::Reject },
            token_limit: token_limit.and_then(StreamLimit::new),
            ..request(own)
        }
    }
}

/// Some leases, and as members any ids whatever: a torn read can show that.
fn any_state() -> impl Strategy<Value = (Vec<StreamId>, Vec<Lease>, u64)> {
    let leases: Vec<_> = (0..IDS).map(|n| option::of(any_lease(n))).collect();
    let members = proptest::sample::subsequence((0..IDS).map(id).collect::<Vec<_>>(), 0..=usize::from(IDS));
    (members, leases, 1u64..5)
        .prop_map(|(members, leases, limit)| (members, leases.into_iter().flatten().collect(), limit))
}

/// The rule once more: the token's limit goes before the stored one.
fn in_force(stored: u64, request: &StartRequest) -> u64 {
    request.token_limit.map_or(stored, |limit| limit.get().into())
}

fn decide_in(members: &[StreamId], leases: &[Lease], limit: u64, request: &StartRequest) -> Decision {
    let guard = Guard { revision: Some(1), own_limit: StreamLimit::new(limit) };
    decide(&Snapshot { guard, members, leases }, request, NOW)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_admission_keeps_to_the_limit_and_accounts_for_every_member(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        let live = |id: &StreamId| leases.iter().any(|lease| lease.stream_id == *id && lease.is_live_at(NOW));
        let in_force = in_force(limit, &request);
        if let Decision::Admit(commit) = decide_in(&members, &leases, limit, &request) {
            prop_assert!(commit.members.len() as u64 <= in_force);
            prop_assert_eq!(u64::from(commit.limit.get()), in_force);
            prop_assert!(commit.members.contains(&request.stream_id));
            prop_assert!(commit.dead.iter().all(|id| !live(id) && members.contains(id) && *id != request.stream_id));
            prop_assert!(commit.ended.iter().all(|ended| live(&ended.stream_id) && members.contains(&ended.stream_id)));
            let mut after: Vec<StreamId> = commit.members.iter().copied().collect();
            after.extend(&commit.dead);
            after.extend(commit.ended.iter().map(|ended| ended.stream_id));
            let mut before = members.clone();
            before.push(request.stream_id);
            after.sort();
            before.sort();
            before.dedup();
            prop_assert_eq!(after, before, "every member is kept, dropped or ended, and only once");
        }
    }

    #[test]
    fn a_denial_is_only_for_live_members_and_never_when_it_may_evict(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        if let Decision::NoWrite(StartOutcome::Denied(denial)) = decide_in(&members, &leases, limit, &request) {
            prop_assert_eq!(request.at_limit, AtLimit::Reject);
            prop_assert!(denial.streams.len() as u64 >= in_force(limit, &request));
            prop_assert_eq!(u64::from(denial.limit.get()), in_force(limit, &request));
            prop_assert!(denial.streams.iter().all(|lease| lease.is_live_at(NOW) && members.contains(&lease.stream_id)));
            prop_assert!(denial.streams.is_sorted_by_key(|lease| (lease.started_at, lease.stream_id)));
        }
    }

    #[test]
    fn only_what_is_older_than_every_kept_stream_is_evicted(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        if let Decision::Admit(commit) = decide_in(&members, &leases, limit, &request) {
            let age = |id: StreamId| leases.iter().find(|lease| lease.stream_id == id).map(|lease| (lease.started_at, id));
            let kept = commit.members.iter().filter(|id| **id != request.stream_id).filter_map(|id| age(*id)).min();
            let evicted = commit.ended.iter().filter(|ended| ended.termination.reason == EndReason::Evicted);
            for ended in evicted {
                prop_assert!(kept.is_none_or(|kept| age(ended.stream_id).unwrap() < kept));
                prop_assert_eq!(commit.members.len() as u64, in_force(limit, &request), "no more than necessary");
            }
        }
    }

    #[test]
    fn a_start_that_is_repeated_after_its_commit_finds_it_and_says_the_same(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        if let Decision::Admit(commit) = decide_in(&members, &leases, limit, &request) {
            let mut after: Vec<Lease> = leases;
            after.retain(|lease| lease.stream_id != request.stream_id && !commit.dead.contains(&lease.stream_id));
            for ended in &commit.ended {
                let lease = after.iter_mut().find(|lease| lease.stream_id == ended.stream_id).unwrap();
                lease.termination = Some(Box::new(ended.termination.clone()));
            }
            after.push(commit.lease.clone());
            let members: Vec<StreamId> = commit.members.iter().copied().collect();
            let again = answered(decide_in(&members, &after, limit, &request));
            prop_assert_eq!(again, StartOutcome::Existing(Started { evicted: 0, reaped: 0, ..commit.into_started() }));
        }
    }
}
