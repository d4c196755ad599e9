//! Tests the response check with responses that were not true at any moment of their call.

use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Denial, EndedStream, OverLimit, StartOutcome, Started};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{
    EndReason, Lease, LeaseTerms, LimitSource, StreamLimit, Termination, Timestamp, UserLimit,
};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::domain::rules::LimitMode;
use stream_manager::limiter::{Policy, StartOptions, Timestamped, Usage};
use stream_manager::store::{Stop, StreamState};

use super::responses::ResponseCheck;
use super::violation::ViolationKind;
use crate::simulation::api::{ApiRequest, ApiResponse, Operation};
use crate::simulation::state::{CounterState, UserState};

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 8, heartbeat_interval_s: 2, retention_s: 10 };

fn lease(n: u8) -> Lease {
    let expires_at = TERMS.expires_at(NOW);
    Lease {
        stream_id: StreamId::random([n; 16]),
        device_id: None,
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        fingerprint: None,
        started_at: NOW,
        expires_at,
        ttl_s: TERMS.ttl_s(expires_at),
        termination: None,
    }
}

fn state_with<const N: usize>(leases: [Lease; N]) -> Arc<UserState> {
    let members = leases.iter().map(|lease| lease.stream_id).collect();
    let leases = leases.into_iter().map(|lease| (lease.stream_id, lease)).collect();
    Arc::new(UserState { members, leases, ..UserState::default() })
}

fn evicted(n: u8) -> Lease {
    let termination = Termination { reason: EndReason::Evicted, ended_by: None };
    Lease { termination: Some(Box::new(termination)), ..lease(n) }
}

/// The state with these leases and no members.
fn without_members<const N: usize>(leases: [Lease; N]) -> Arc<UserState> {
    let state = state_with(leases);
    Arc::new(UserState { members: Default::default(), ..(*state).clone() })
}

fn violation(states: &[Arc<UserState>], operation: Operation, response: ApiResponse) -> Option<ViolationKind> {
    violation_under(&Policy::default(), states, operation, response)
}

fn violation_under(
    settings: &Policy,
    states: &[Arc<UserState>],
    operation: Operation,
    response: ApiResponse,
) -> Option<ViolationKind> {
    let policy = Policy { default_limit: StreamLimit::new(2).unwrap(), terms: TERMS, ..settings.clone() };
    let check = ResponseCheck { states, policy: &policy, ended_at: NOW.plus_s(1) };
    let request = ApiRequest { user: UserName::parse("ann").unwrap(), operation };
    check.run(&request, &response).err().map(|violation| violation.kind)
}

fn at_now<T>(value: T) -> Timestamped<T> {
    Timestamped { now: NOW, value }
}

#[test]
fn reporting_a_live_stream_as_ended_is_detected() {
    let (empty, one, id) = (state_with([]), state_with([lease(1)]), lease(1).stream_id);
    for state in [StreamState::NotFound, StreamState::Inactive(lease(1))] {
        let response = ApiResponse::Heartbeat(at_now(state));
        let violation = violation(&[Arc::clone(&one)], Operation::Heartbeat(id, None), response);
        assert_eq!(violation, Some(ViolationKind::UnfoundedEnd));
    }
    let not_found = ApiResponse::Heartbeat(at_now(StreamState::NotFound));
    assert_eq!(violation(&[one, empty], Operation::Heartbeat(id, None), not_found), None);
}

#[test]
fn success_without_a_stored_change_is_detected() {
    let (empty, one, id) = (state_with([]), state_with([lease(1)]), lease(1).stream_id);
    let live = || ApiResponse::Heartbeat(at_now(StreamState::Live(lease(1))));
    let heartbeat = || Operation::Heartbeat(id, None);
    assert_eq!(violation(&[Arc::clone(&empty)], heartbeat(), live()), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(violation(&[Arc::clone(&one)], heartbeat(), live()), None);
    let (stop, freed) = (|| Operation::Stop(id), || ApiResponse::Stop(Stop::Freed));
    assert_eq!(violation(&[Arc::clone(&one)], stop(), freed()), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(violation(&[one, empty], stop(), freed()), None);
}

/// The outcome of a start of stream `n` with a limit of 2.
fn started(n: u8) -> Started {
    Started {
        lease: lease(n),
        limit: UserLimit { limit: StreamLimit::new(2).unwrap(), source: LimitSource::Default },
        live_before: None,
        ended: Vec::new(),
        reaped: 0,
        expired: Vec::new(),
        over_limit: Vec::new(),
    }
}

#[test]
fn start_response_with_wrong_ended_streams_is_detected() {
    let response = |ended: &[u8]| {
        let ended = ended.iter().map(|n| EndedStream { lease: lease(*n), reason: EndReason::Replaced }).collect();
        let started = Started { ended, ..started(1) };
        ApiResponse::Start(at_now(StartOutcome::Started(started)))
    };
    let states = [state_with([]), state_with([lease(1)])];
    let start = || Operation::Start(StartOptions::default(), None);
    assert_eq!(violation(&states, start(), response(&[])), None);
    assert_eq!(violation(&states, start(), response(&[2])), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(violation(&states[1..], start(), response(&[])), Some(ViolationKind::UnfoundedSuccess));
}

#[test]
fn wrong_report_of_observed_limits_is_detected() {
    let limit = StreamLimit::new(2).unwrap();
    let observing = Policy { limit_mode: LimitMode::Observe, ..Policy::default() };
    let states = [state_with([lease(1), lease(2)]), state_with([lease(1), lease(2), lease(3)])];
    let check = |policy: &Policy, over_limit: &[usize]| {
        let over_limit = over_limit.iter().map(|count| OverLimit { rule: None, limit, count: *count }).collect();
        let started = Started { over_limit, ..started(3) };
        let response = ApiResponse::Start(at_now(StartOutcome::Started(started)));
        violation_under(policy, &states, Operation::Start(StartOptions::default(), None), response)
    };
    assert_eq!(check(&observing, &[2]), None);
    for over_limit in [&[][..], &[1], &[2, 2]] {
        assert_eq!(check(&observing, over_limit), Some(ViolationKind::WrongReport), "{over_limit:?}");
    }
    assert_eq!(check(&Policy::default(), &[2]), Some(ViolationKind::WrongReport));
}

#[test]
fn denial_below_the_hard_limit_is_detected() {
    let hard_limit = StreamLimit::new(3).unwrap();
    let observing = Policy { limit_mode: LimitMode::Observe, hard_limit, ..Policy::default() };
    let leases = [lease(1), lease(2), lease(3)];
    let denied = |count: usize, limit: u64| {
        let streams = leases[..count].to_vec();
        let limit = StreamLimit::new(limit).unwrap();
        let user_limit = UserLimit { limit: StreamLimit::DEFAULT, source: LimitSource::Default };
        let denial =
            Denial { rule: None, limit, count, streams, slot_frees_at: None, user_limit, live_before: leases.len() };
        let response = ApiResponse::Start(at_now(StartOutcome::Denied(denial)));
        let options = StartOptions { at_limit: Some(AtLimit::EvictOldest), ..StartOptions::default() };
        violation_under(&observing, &[state_with(leases.clone())], Operation::Start(options, None), response)
    };
    assert_eq!(denied(3, 3), None, "the hard limit evicts nobody");
    assert_eq!([denied(3, 2), denied(2, 3)], [Some(ViolationKind::UnfoundedDenial); 2]);
}

#[test]
fn list_that_differs_from_the_members_is_detected() {
    let response = |leases: &[Lease]| {
        let limit = StreamLimit::new(2).unwrap();
        ApiResponse::List(at_now(Usage { limit, streams: leases.to_vec() }))
    };
    let states = [state_with([lease(1)])];
    let two_leases = response(&[lease(1), lease(2)]);
    assert_eq!(violation(&states, Operation::List, response(&[lease(1)])), None);
    assert_eq!(violation(&states, Operation::List, two_leases), Some(ViolationKind::UnfoundedList));
    assert_eq!(violation(&states, Operation::List, response(&[])), Some(ViolationKind::UnfoundedList));
}

#[test]
fn eviction_that_ended_other_streams_than_reported_is_detected() {
    let (one, two) = (lease(1).stream_id, lease(2).stream_id);
    let both = state_with([lease(1), lease(2)]);
    let all_ended = [Arc::clone(&both), without_members([evicted(1), evicted(2)])];
    let all = || Operation::Evict(None, None);
    assert_eq!(violation(&all_ended, all(), ApiResponse::Ended(vec![one, two])), None);
    for (states, ended) in [(&all_ended[..], &[one][..]), (&all_ended[..1], &[]), (&all_ended[..1], &[one, two])] {
        let response = ApiResponse::Ended(ended.to_vec());
        assert_eq!(violation(states, all(), response), Some(ViolationKind::UnfoundedSuccess));
    }
    let listed = Operation::Evict(Some(vec![one]), None);
    assert_eq!(violation(&[both], listed, ApiResponse::Ended(vec![])), Some(ViolationKind::UnfoundedSuccess));
}

#[test]
fn limit_that_was_never_stored_or_held_is_detected() {
    let limit = StreamLimit::new(1).unwrap();
    let with_limit = |state: &UserState| Arc::new(UserState { stored_limit: Some(limit), ..state.clone() });
    let (one, two) = (state_with([lease(1)]), state_with([lease(1), lease(2)]));
    let excess =
        |states: &[Arc<UserState>]| violation(states, Operation::EndExcess(limit), ApiResponse::Ended(vec![]));
    assert_eq!(excess(&[with_limit(&one)]), None);
    assert_eq!(excess(&[Arc::clone(&one)]), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(excess(&[with_limit(&two)]), Some(ViolationKind::UnfoundedSuccess));
}

#[test]
fn erasure_that_left_data_is_detected() {
    let with_counter = |state: Arc<UserState>, ttl_s: Option<i64>, limit: Option<u64>| {
        let counter = Some(CounterState { revision: Some(1), ttl_s });
        Arc::new(UserState { counter, stored_limit: limit.and_then(StreamLimit::new), ..(*state).clone() })
    };
    let erasure = |states: &[Arc<UserState>]| violation(states, Operation::Erase, ApiResponse::Erased);
    let before = || with_counter(state_with([lease(1)]), None, Some(2));
    let tombstone = || with_counter(state_with([]), Some(2_000), None);
    let after_start = with_counter(state_with([lease(2)]), None, None);
    assert_eq!(erasure(&[before(), tombstone()]), None);
    assert_eq!(erasure(&[tombstone()]), None);
    assert_eq!(erasure(&[before(), after_start]), None, "a stream may start during the erasure");
    for after in [
        with_counter(without_members([evicted(1)]), Some(2_000), None),
        with_counter(state_with([]), None, None),
        with_counter(state_with([]), Some(2_000), Some(2)),
        with_counter(state_with([lease(1)]), None, None),
    ] {
        assert_eq!(erasure(&[before(), Arc::clone(&after)]), Some(ViolationKind::NotErased), "{after:?}");
    }
}
