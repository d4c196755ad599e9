//! Store failures with the real SDK. A failure is never reported as a reached limit or an ended stream (promise G5), and a retry
//! never takes a second slot (G4).

use std::sync::Arc;
use std::time::Duration;

use stream_manager::domain::admission::{MAX_ENDED_LEASES, StartOutcome};
use stream_manager::domain::names::{IdempotencyKey, Label};
use stream_manager::limiter::{Limiter, StartOptions};
use stream_manager::store::dynamodb::{DynamoStore, codec};
use stream_manager::store::{LeaseStore, Refusal, StartHint, Stop, StoppedBy, StoreError, StreamState};

use crate::fault_injector::{CONFLICT, Fault, FaultInjector};
use crate::support::{Fixture, TERMS, on_device, start, stream, unique_user};
use crate::test_app::TestApp;

async fn faulty_store(max_attempts: u32) -> (FaultInjector, DynamoStore, Fixture) {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let store = faults.store(max_attempts);
    (faults, store, fixture)
}

async fn faulty_limiter() -> (FaultInjector, Arc<Limiter>) {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let (store, clock) = (Arc::new(faults.store(1)), fixture.clock);
    (faults, TestApp { store, clock, ..TestApp::default() }.build().limiter)
}

/// The error of each operation under `fault`, for a user at the limit.
async fn errors_under(fault: Fault) -> Vec<StoreError> {
    let (faults, store, fixture) = faulty_store(2).await;
    let (user, now) = (unique_user(), fixture.now());
    for n in 1..=3 {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.unwrap();
    }
    faults.set(fault);
    let results = [
        store.start(&user, &start(4), StartHint::Optimistic, now).await.map(|_| ()),
        store.start(&user, &start(4), StartHint::ReadFirst, now).await.map(|_| ()),
        store.start(&user, &on_device(5, "tv"), StartHint::Optimistic, now).await.map(|_| ()),
        store.heartbeat(&user, stream(1), TERMS, now.plus_s(1)).await.map(|_| ()),
        store.stop(&user, stream(2), StoppedBy::Player, TERMS, now).await.map(|_| ()),
        store.stop(&user, stream(3), StoppedBy::Evictor, TERMS, now).await.map(|_| ()),
        store.streams(&user, now).await.map(|_| ()),
        store.stream(&user, stream(1), now).await.map(|_| ()),
        store.limit(&user).await.map(|_| ()),
        store.set_limit(&user, None).await,
    ];
    results.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test]
async fn failures_that_may_have_applied_are_unknown() {
    for fault in [
        Fault::Lost,
        Fault::Hang,
        Fault::Rejected(500, "InternalServerError"),
        Fault::Rejected(503, "Odd"),
        Fault::Rejected(400, "SomethingNewException"),
    ] {
        for error in errors_under(fault).await {
            assert!(matches!(error, StoreError::Unknown(_)), "{fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_stalled_response_is_unknown_after_the_attempt_timeout() {
    let (faults, store, fixture) = faulty_store(1).await;
    let (user, now) = (unique_user(), fixture.now());
    store.start(&user, &start(1), StartHint::Optimistic, now).await.unwrap();
    faults.set(Fault::Stall);
    let heartbeat = store.heartbeat(&user, stream(1), TERMS, now.plus_s(1));
    // This timeout is longer than the attempt timeout, and shorter than the SDK's own timeout for stalled bodies.
    let heartbeat = tokio::time::timeout(Duration::from_secs(3), heartbeat).await.unwrap();
    assert!(matches!(heartbeat, Err(StoreError::Unknown(_))), "{heartbeat:?}");
    faults.set(Fault::None);
    let retried = store.heartbeat(&user, stream(1), TERMS, now.plus_s(1)).await.unwrap();
    assert!(matches!(retried.state, StreamState::Live(_)), "{retried:?}");
}

#[tokio::test]
async fn rejected_requests_are_not_applied() {
    for (fault, expected) in [
        (Fault::Rejected(400, "ProvisionedThroughputExceededException"), Refusal::Throttled),
        (Fault::Rejected(400, "ThrottlingException"), Refusal::Throttled),
        (Fault::Rejected(400, "ResourceNotFoundException"), Refusal::Rejected),
        (Fault::Rejected(400, "AccessDeniedException"), Refusal::Rejected),
        (Fault::Rejected(400, "ValidationException"), Refusal::Rejected),
        (CONFLICT, Refusal::Contention),
    ] {
        for error in errors_under(fault).await {
            let refused = matches!(&error, StoreError::NotApplied { refusal, .. } if *refusal == expected);
            assert!(refused, "{fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn retries_after_a_lost_response_return_the_first_result() {
    let (faults, store, fixture) = faulty_store(1).await;
    let (user, now) = (unique_user(), fixture.now());
    for fault in [Fault::ResponseLost, Fault::AppliedThen500] {
        faults.set(fault);
        let lost = store.start(&user, &start(1), StartHint::Optimistic, now).await;
        assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
        faults.set(Fault::None);
        let retried = store.start(&user, &start(1), StartHint::Optimistic, now).await.unwrap();
        assert!(matches!(retried, StartOutcome::Existing(_)), "{retried:?}");
        assert_eq!(store.streams(&user, now).await.unwrap().live.len(), 1);

        let later = now.plus_s(1);
        faults.set(fault);
        store.heartbeat(&user, stream(1), TERMS, later).await.unwrap_err();
        faults.set(Fault::None);
        let retried = store.heartbeat(&user, stream(1), TERMS, later).await.unwrap();
        assert!(matches!(retried.state, StreamState::Live(lease) if lease.expires_at == TERMS.expires_at(later)));

        faults.set(fault);
        store.stop(&user, stream(1), StoppedBy::Player, TERMS, now).await.unwrap_err();
        faults.set(Fault::None);
        let retried = store.stop(&user, stream(1), StoppedBy::Player, TERMS, now).await.unwrap();
        assert_eq!(retried, Stop::AlreadyGone);
    }
}

#[tokio::test]
async fn an_eviction_succeeds_even_if_its_clean_up_fails() {
    let (faults, store, fixture) = faulty_store(1).await;
    let user = unique_user();
    // Starts and evicts stream `n`, and returns how many leases are stored.
    let evict = async |n: u8| {
        let now = fixture.now().plus_s(n.into());
        store.start(&user, &start(n), StartHint::Optimistic, now).await.unwrap();
        let stop = store.stop(&user, stream(n), StoppedBy::Evictor, TERMS, now).await.unwrap();
        assert_eq!(stop, Stop::Freed);
        assert!(matches!(store.stream(&user, stream(n), now).await, Ok(StreamState::Inactive(_))));
        fixture.items(&user).await.len() - 1
    };
    let other_faults = [Fault::Lost, Fault::Rejected(400, "AccessDeniedException"), CONFLICT, Fault::Hang];
    for (n, fault) in (0..MAX_ENDED_LEASES as u8).map(|n| (n, Fault::Lost)).chain((100..).zip(other_faults)) {
        faults.set_on("Query", fault);
        evict(n).await;
    }
    assert_eq!(evict(120).await, MAX_ENDED_LEASES + 5, "none was pruned");
    faults.set(Fault::None);
    assert_eq!(evict(121).await, MAX_ENDED_LEASES, "the next eviction prunes them");
}

#[tokio::test]
async fn a_keyed_start_with_a_lost_response_holds_one_slot() {
    let (faults, limiter) = faulty_limiter().await;
    let user = unique_user();
    let options =
        || StartOptions { idempotency_key: IdempotencyKey::parse(b"play-1").ok(), ..StartOptions::default() };
    faults.set(Fault::ResponseLost);
    limiter.start(&user, options()).await.unwrap_err();
    faults.set(Fault::None);
    for _ in 0..3 {
        let retried = limiter.start(&user, options()).await.unwrap().value;
        assert!(matches!(retried, StartOutcome::Existing(_)), "{retried:?}");
    }
    assert_eq!(limiter.streams(&user, None).await.unwrap().value.streams.len(), 1);
}

#[tokio::test]
async fn a_device_start_with_a_lost_response_holds_one_slot() {
    let (faults, limiter) = faulty_limiter().await;
    let user = unique_user();
    let options = || StartOptions { device_id: Label::parse("tv").ok(), ..StartOptions::default() };
    limiter.start(&user, options()).await.unwrap();
    faults.set(Fault::AppliedThen500);
    limiter.start(&user, options()).await.unwrap_err();
    faults.set(Fault::None);
    limiter.start(&user, options()).await.unwrap();
    assert_eq!(limiter.streams(&user, None).await.unwrap().value.streams.len(), 1);
}

#[tokio::test]
async fn endless_contention_is_an_error_and_never_a_denial() {
    let (faults, limiter) = faulty_limiter().await;
    let user = unique_user();
    let started = limiter.start(&user, StartOptions::default()).await.unwrap().value;
    let StartOutcome::Started(started) = started else { panic!("{started:?}") };
    faults.set(CONFLICT);
    tokio::time::pause();
    let error = limiter.heartbeat(&user, started.lease.stream_id).await.unwrap_err();
    assert!(matches!(error, StoreError::NotApplied { refusal: Refusal::Contention, .. }), "{error}");
    limiter.stop(&user, started.lease.stream_id, StoppedBy::Player).await.unwrap_err();
    limiter.start(&user, StartOptions::default()).await.unwrap_err();
}

#[tokio::test]
async fn a_corrupt_item_is_an_error_for_its_user_only() {
    let fixture = Fixture::embedded().await;
    let (corrupt, other, now) = (unique_user(), unique_user(), fixture.now());
    let mut item = codec::encode_lease(&corrupt, &start(1).lease(now));
    item.insert(codec::EXPIRES_AT.to_owned(), codec::text("soon"));
    fixture.put(item).await;
    let error = fixture.store.streams(&corrupt, now).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(&stream(1).to_string()), "the error names the item: {error}");
    fixture.store.start(&other, &start(1), StartHint::Optimistic, now).await.unwrap();
}
