//! Store failures with the real SDK. A failure is never reported as a reached limit or an ended stream (promise G5), and a retry
//! never takes a second slot (G4).

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use stream_manager::domain::admission::StartOutcome;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::{DeviceId, IdempotencyKey};
use stream_manager::limiter::{Limiter, StartOptions};
use stream_manager::store::dynamodb::{DynamoStore, codec, expressions};
use stream_manager::store::{LeaseStore, Refusal, StartHint, Stop, StoreError, StreamState};

use crate::fault_injector::{CONFLICT, Fault, FaultInjector};
use crate::metrics::value;
use crate::support::{
    Fixture, TABLE, TERMS, erasure, eventually, eviction, on_device, renewal, start, stream, unique_user,
};
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
        store.heartbeat(&user, &renewal(1), now.plus_s(1)).await.map(|_| ()),
        store.stop(&user, stream(2)).await.map(|_| ()),
        store.end(&user, &eviction(3), now).await.map(|_| ()),
        store.streams(&user, now).await.map(|_| ()),
        store.stream(&user, stream(1), now).await.map(|_| ()),
        store.limit(&user).await.map(|_| ()),
        store.set_limit(&user, None).await.map(|_| ()),
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
    let request = renewal(1);
    let heartbeat = store.heartbeat(&user, &request, now.plus_s(1));
    // This timeout is longer than the attempt timeout, and shorter than the SDK's own timeout for stalled bodies.
    let heartbeat = tokio::time::timeout(Duration::from_secs(3), heartbeat).await.unwrap();
    assert!(matches!(heartbeat, Err(StoreError::Unknown(_))), "{heartbeat:?}");
    faults.set(Fault::None);
    let retried = store.heartbeat(&user, &renewal(1), now.plus_s(1)).await.unwrap();
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
        store.heartbeat(&user, &renewal(1), later).await.unwrap_err();
        faults.set(Fault::None);
        let retried = store.heartbeat(&user, &renewal(1), later).await.unwrap();
        assert!(matches!(retried.state, StreamState::Live(lease) if lease.expires_at == TERMS.expires_at(later)));

        faults.set(fault);
        store.stop(&user, stream(1)).await.unwrap_err();
        faults.set(Fault::None);
        let retried = store.stop(&user, stream(1)).await.unwrap();
        assert_eq!(retried, Stop::AlreadyGone);
    }
}

#[tokio::test]
async fn a_failed_eviction_changes_nothing_and_can_be_repeated() {
    let (faults, store, fixture) = faulty_store(1).await;
    let (user, now) = (unique_user(), fixture.now());
    store.start(&user, &start(1), StartHint::Optimistic, now).await.unwrap();
    let before = fixture.items(&user).await;
    for (operation, fault) in [
        ("Query", Fault::Lost),
        ("Query", Fault::Rejected(400, "AccessDeniedException")),
        ("TransactWriteItems", Fault::Lost),
        ("TransactWriteItems", CONFLICT),
    ] {
        faults.set_on(operation, fault);
        store.end(&user, &eviction(1), now).await.unwrap_err();
        store.end(&user, &erasure(), now).await.unwrap_err();
        assert_eq!(fixture.items(&user).await, before, "{operation} {fault:?}");
    }
    faults.set(Fault::None);
    assert_eq!(store.end(&user, &eviction(1), now).await.unwrap().ids(), [stream(1)]);
}

#[tokio::test]
async fn an_eviction_whose_response_was_lost_is_applied() {
    let (faults, store, fixture) = faulty_store(1).await;
    let (user, now) = (unique_user(), fixture.now());
    for (n, fault) in [(1, Fault::ResponseLost), (2, Fault::AppliedThen500)] {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.unwrap();
        faults.set_on("TransactWriteItems", fault);
        store.end(&user, &eviction(n), now).await.unwrap_err();
        faults.set(Fault::None);
        assert!(matches!(store.stream(&user, stream(n), now).await, Ok(StreamState::Inactive(_))));
        assert_eq!(
            store.end(&user, &eviction(n), now).await.unwrap().ids(),
            [],
            "a repeated eviction ends no stream"
        );
    }
}

#[tokio::test]
async fn an_interrupted_erasure_is_completed_by_its_repetition() {
    let (faults, store, fixture) = faulty_store(1).await;
    let (user, now) = (unique_user(), fixture.now());
    store.start(&user, &start(1), StartHint::Optimistic, now).await.unwrap();
    store.set_limit(&user, StreamLimit::new(5)).await.unwrap();
    assert_eq!(store.end(&user, &erasure(), now).await.unwrap().ids(), [stream(1)]);
    faults.set_on("UpdateItem", Fault::Lost);
    store.purge(&user, now).await.unwrap_err();
    faults.set(Fault::None);
    assert_eq!(fixture.items(&user).await.len(), 1, "the leases are deleted, and the counter still has the limit");
    assert_eq!(store.end(&user, &erasure(), now).await.unwrap().ids(), []);
    store.purge(&user, now).await.unwrap();
    assert!(!fixture.items(&user).await[0].contains_key("streamLimit"));
}

/// Erases a user, sets a limit of 0, and then sends a late duplicate of the erasure's last write. Returns the stored limit.
/// If `started` is true, a stream is started before the second step of the erasure.
async fn limit_after_a_late_erasure(started: bool) -> Option<StreamLimit> {
    let (fixture, user) = (Fixture::embedded().await, unique_user());
    let (store, now, blocked) = (&fixture.store, fixture.now(), StreamLimit::new(0));
    store.start(&user, &start(1), StartHint::Optimistic, now).await.unwrap();
    store.set_limit(&user, blocked).await.unwrap();
    store.end(&user, &erasure(), now).await.unwrap();
    if started {
        store.set_limit(&user, None).await.unwrap();
        store.start(&user, &start(2), StartHint::Optimistic, now).await.unwrap();
        store.set_limit(&user, blocked).await.unwrap();
    }
    let counter = codec::decode_partition(&fixture.items(&user).await).unwrap().counter;
    store.purge(&user, now).await.unwrap();
    store.set_limit(&user, blocked).await.unwrap();
    let late = expressions::bury(TABLE, &user, &counter, 0).unwrap().unwrap();
    let late = TransactWriteItem::builder().update(late).build();
    fixture.client().transact_write_items().transact_items(late).send().await.unwrap_err();
    store.limit(&user).await.unwrap()
}

#[tokio::test]
async fn a_late_erasure_keeps_a_block_that_was_set_later() {
    for started in [false, true] {
        assert_eq!(limit_after_a_late_erasure(started).await, StreamLimit::new(0), "started: {started}");
    }
}

#[tokio::test]
async fn contention_in_an_erasure_ends_no_newer_stream() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let (store, clock) = (Arc::new(faults.store(1)), Arc::clone(&fixture.clock));
    let app = TestApp { store, clock, ..TestApp::default() }.build();
    let (limiter, user) = (app.limiter, unique_user());
    limiter.start(&user, StartOptions::default()).await.unwrap();
    faults.set_on("UpdateItem", CONFLICT);
    let erasure = tokio::spawn({
        let (limiter, user) = (Arc::clone(&limiter), user.clone());
        async move { limiter.erase(&user).await }
    });
    eventually(async || faults.rejected_count() > 0).await;
    limiter.start(&user, StartOptions::default()).await.unwrap();
    faults.set(Fault::None);
    erasure.await.unwrap().unwrap();
    assert_eq!(limiter.streams(&user, None).await.unwrap().value.streams.len(), 1);
    let stops = |outcome| value(&app.metrics, &format!("stops_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((stops("evicted"), stops("already_gone"), stops("failed")), (Some(1.0), Some(0.0), Some(0.0)));
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
    let options = || StartOptions { device_id: DeviceId::parse("tv").ok(), ..StartOptions::default() };
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
    let error = limiter.heartbeat(&user, started.lease.stream_id, None).await.unwrap_err();
    assert!(matches!(error, StoreError::NotApplied { refusal: Refusal::Contention, .. }), "{error}");
    limiter.stop(&user, started.lease.stream_id).await.unwrap_err();
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
