//! Tests the response check with responses that were not true at any moment of their call.

use std::sync::Arc;

use stream_manager::domain::admission::{StartOutcome, Started};
use stream_manager::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::limiter::{StartOptions, Timestamped, Usage};
use stream_manager::store::{Stop, StoppedBy, StreamState};

use super::responses::ResponseCheck;
use super::violation::ViolationKind;
use crate::simulation::api::{ApiRequest, ApiResponse, Operation};
use crate::simulation::state::UserState;

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);
const TERMS: LeaseTerms = LeaseTerms { duration_s: 8, retention_s: 10 };

fn lease(n: u8) -> Lease {
    let expires_at = TERMS.expires_at(NOW);
    Lease {
        stream_id: StreamId::random([n; 16]),
        device_id: None,
        device_name: None,
        content_id: None,
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
    Arc::new(UserState { stored_limit: None, members, leases })
}

fn violation(states: &[Arc<UserState>], operation: Operation, response: ApiResponse) -> Option<ViolationKind> {
    let check = ResponseCheck { states, default_limit: StreamLimit::new(2).unwrap(), terms: TERMS };
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
        let violation = violation(&[Arc::clone(&one)], Operation::Heartbeat(id), response);
        assert_eq!(violation, Some(ViolationKind::UnfoundedEnd));
    }
    let not_found = ApiResponse::Heartbeat(at_now(StreamState::NotFound));
    assert_eq!(violation(&[one, empty], Operation::Heartbeat(id), not_found), None);
}

#[test]
fn success_without_a_stored_change_is_detected() {
    let (empty, one, id) = (state_with([]), state_with([lease(1)]), lease(1).stream_id);
    let live = || ApiResponse::Heartbeat(at_now(StreamState::Live(lease(1))));
    let heartbeat = || Operation::Heartbeat(id);
    assert_eq!(violation(&[Arc::clone(&empty)], heartbeat(), live()), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(violation(&[Arc::clone(&one)], heartbeat(), live()), None);
    let (stop, freed) = (|| Operation::Stop(id, StoppedBy::Player), || ApiResponse::Stop(Stop::Freed));
    assert_eq!(violation(&[Arc::clone(&one)], stop(), freed()), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(violation(&[one, empty], stop(), freed()), None);
}

#[test]
fn start_response_with_wrong_ended_streams_is_detected() {
    let response = |ended: &[u8]| {
        let limit = StreamLimit::new(2).unwrap();
        let ended = ended.iter().map(|n| lease(*n).stream_id).collect();
        let started = Started { lease: lease(1), limit, ended, evicted: 0, reaped: 0 };
        ApiResponse::Start(at_now(StartOutcome::Started(started)))
    };
    let states = [state_with([]), state_with([lease(1)])];
    let start = || Operation::Start(StartOptions::default(), None);
    assert_eq!(violation(&states, start(), response(&[])), None);
    assert_eq!(violation(&states, start(), response(&[2])), Some(ViolationKind::UnfoundedSuccess));
    assert_eq!(violation(&states[1..], start(), response(&[])), Some(ViolationKind::UnfoundedSuccess));
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
