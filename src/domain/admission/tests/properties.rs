//! Properties of the admission rules on random snapshots.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Few ids, so that random members, leases and requests often use the same id.
const IDS: u8 = 6;

pub(super) fn any_lease(n: u8) -> impl Strategy<Value = Lease> {
    let termination =
        prop_oneof![Just(None), Just(None), Just(Some(EndReason::Evicted)), Just(Some(EndReason::Replaced))];
    let started = prop_oneof![-5i64..5, -45_003i64..-44_997];
    (started, -3i64..3, option::of(0u8..2), termination).prop_map(move |(started, expires, device, reason)| Lease {
        started_at: NOW.plus_ms(started),
        expires_at: NOW.plus_ms(expires),
        device_id: device.map(device_id),
        termination: reason.map(|reason| Box::new(Termination { reason, ended_by: None })),
        ..lease(n)
    })
}

fn device_id(n: u8) -> DeviceId {
    DeviceId::parse(&format!("device-{n}")).unwrap()
}

prop_compose! {
    pub(super) fn any_request()(
        own in 0..IDS,
        device in option::of(0u8..2),
        replaces in vec(0..IDS, 0..3),
        evict in any::<bool>(),
        token_limit in option::of(0u64..5),
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

/// Random leases, and random members that are independent of them. A torn read can return such a state.
pub(super) fn any_state() -> impl Strategy<Value = (Vec<StreamId>, Vec<Lease>, u64)> {
    let leases: Vec<_> = (0..IDS).map(|n| option::of(any_lease(n))).collect();
    let members = proptest::sample::subsequence((0..IDS).map(id).collect::<Vec<_>>(), 0..=usize::from(IDS));
    (members, leases, 0u64..5)
        .prop_map(|(members, leases, limit)| (members, leases.into_iter().flatten().collect(), limit))
}

/// A second implementation of the rule that a token's limit overrides the stored limit, unless the stored limit is 0.
pub(super) fn effective_limit(stored: u64, request: &StartRequest) -> u64 {
    if stored == 0 { 0 } else { request.token_limit.map_or(stored, |limit| limit.get().into()) }
}

/// A second implementation of the eviction order. Leases that compare lower are evicted first.
pub(super) fn eviction_rank(lease: &Lease) -> (bool, Timestamp, StreamId) {
    let renewed_ms = lease.started_at.epoch_ms().max(lease.expires_at.epoch_ms() - 90_000);
    let overdue = NOW.epoch_ms() - renewed_ms > 45_000;
    (!overdue, lease.started_at, lease.stream_id)
}

fn decide_in(members: &[StreamId], leases: &[Lease], limit: u64, request: &StartRequest) -> Decision {
    let guard = Guard { revision: Some(1), stored_limit: StreamLimit::new(limit) };
    decide(&Snapshot { guard, members, leases }, request, NOW)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commit_respects_the_limit_and_accounts_for_every_member(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        let live = |id: &StreamId| leases.iter().any(|lease| lease.stream_id == *id && lease.is_live_at(NOW));
        let effective_limit = effective_limit(limit, &request);
        if let Decision::Admit(commit) = decide_in(&members, &leases, limit, &request) {
            prop_assert!(commit.change.members.len() as u64 <= effective_limit);
            prop_assert_eq!(u64::from(commit.limit.limit.get()), effective_limit);
            prop_assert!(commit.change.members.contains(&request.stream_id));
            prop_assert!(commit.change.dead.iter().all(|id| !live(id) && members.contains(id) && *id != request.stream_id));
            prop_assert!(commit.change.ended.iter().all(|ended| live(&ended.stream_id) && members.contains(&ended.stream_id)));
            let mut after: Vec<StreamId> = commit.change.members.iter().copied().collect();
            after.extend(&commit.change.dead);
            after.extend(commit.change.ended.iter().map(|ended| ended.stream_id));
            let mut before = members.clone();
            before.push(request.stream_id);
            after.sort();
            before.sort();
            before.dedup();
            prop_assert_eq!(after, before, "every member is kept, dead or ended, exactly once");
        }
    }

    #[test]
    fn denial_lists_live_members_and_evict_oldest_is_denied_only_if_blocked(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        if let Decision::NoWrite(StartOutcome::Denied(denial)) = decide_in(&members, &leases, limit, &request) {
            prop_assert!(request.at_limit == AtLimit::Reject || denial.limit.is_blocked());
            prop_assert!(denial.streams.len() as u64 >= effective_limit(limit, &request));
            prop_assert_eq!(u64::from(denial.limit.get()), effective_limit(limit, &request));
            prop_assert!(denial.streams.iter().all(|lease| lease.is_live_at(NOW) && members.contains(&lease.stream_id)));
            prop_assert!(denial.streams.is_sorted_by_key(|lease| (lease.started_at, lease.stream_id)));
        }
    }

    #[test]
    fn evicted_streams_precede_all_kept_streams_in_eviction_order(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        if let Decision::Admit(commit) = decide_in(&members, &leases, limit, &request) {
            let rank = |id: StreamId| leases.iter().find(|lease| lease.stream_id == id).map(eviction_rank);
            let others = commit.change.members.iter().filter(|id| **id != request.stream_id);
            let kept = others.filter_map(|id| rank(*id)).min();
            let evicted = commit.change.ended.iter().filter(|ended| ended.termination.reason == EndReason::Evicted);
            for ended in evicted {
                prop_assert!(kept.is_none_or(|kept| rank(ended.stream_id).unwrap() < kept));
                let members = commit.change.members.len() as u64;
                prop_assert_eq!(members, effective_limit(limit, &request), "no more evictions than necessary");
            }
        }
    }

    #[test]
    fn start_repeated_after_its_commit_returns_the_same_result(
        (members, leases, limit) in any_state(), request in any_request(),
    ) {
        if let Decision::Admit(commit) = decide_in(&members, &leases, limit, &request) {
            let mut after: Vec<Lease> = leases;
            after.retain(|lease| lease.stream_id != request.stream_id && !commit.change.dead.contains(&lease.stream_id));
            for ended in &commit.change.ended {
                let lease = after.iter_mut().find(|lease| lease.stream_id == ended.stream_id).unwrap();
                lease.termination = Some(Box::new(ended.termination.clone()));
            }
            after.push(commit.lease.clone());
            let members: Vec<StreamId> = commit.change.members.iter().copied().collect();
            let again = without_write(decide_in(&members, &after, limit, &request));
            let StartOutcome::Existing(again) = again else { panic!("{again:?}") };
            let first = commit.into_started();
            prop_assert_eq!((again.ended_ids(), again.evicted()), (first.ended_ids(), first.evicted()));
            prop_assert_eq!((again.lease, again.limit, again.reaped), (first.lease, first.limit, 0));
        }
    }
}
