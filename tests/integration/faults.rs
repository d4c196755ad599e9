//! A failing store is never a limit or an ended stream (promise G5), and a repetition after a failure never takes a
//! second slot (G4). The real SDK, with a transport that does harm.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use stream_manager::domain::admission::{MAX_ENDED_LEASES, StartOutcome};
use stream_manager::domain::names::{IdempotencyKey, Label, UserName};
use stream_manager::limiter::{Limiter, Policy, StartOptions};
use stream_manager::store::{LeaseStore, Refusal, StartHint, Stop, StoppedBy, StoreError, StreamState};
use stream_manager::telemetry::metrics::Metrics;

use crate::support::{Backing, Fault, Fixture, TERMS, Tap, someone, start, stream};

const CONFLICT: &str = "TransactionConflictException";

async fn tapped(max_attempts: u32) -> (Tap, Arc<dyn LeaseStore>, Fixture) {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let tap = Tap::before(engine.http_client());
    let store = Arc::new(tap.store(max_attempts));
    (tap, store, fixture)
}

fn limiter(store: &Arc<dyn LeaseStore>, fixture: &Fixture) -> Limiter {
    let metrics = Arc::new(Metrics::new());
    Limiter::new(Arc::clone(store), fixture.clock.clone(), StdRng::seed_from_u64(1), metrics, Policy::default())
}

/// What every verb says while `fault` reigns, for a user who is at the limit.
async fn errors_under(fault: Fault) -> Vec<StoreError> {
    let (tap, store, fixture) = tapped(2).await;
    let (user, now) = (someone(), fixture.now());
    for n in 1..=3 {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.expect("a start");
    }
    tap.set(fault);
    let device = crate::support::on_device(5, "tv");
    let errors = [
        store.start(&user, &start(4), StartHint::Optimistic, now).await.map(|_| ()),
        store.start(&user, &start(4), StartHint::ReadFirst, now).await.map(|_| ()),
        store.start(&user, &device, StartHint::Optimistic, now).await.map(|_| ()),
        store.heartbeat(&user, stream(1), TERMS, now.plus_s(1)).await.map(|_| ()),
        store.stop(&user, stream(2), StoppedBy::Player, TERMS, now).await.map(|_| ()),
        store.stop(&user, stream(3), StoppedBy::Evictor, TERMS, now).await.map(|_| ()),
        store.streams(&user, now).await.map(|_| ()),
        store.stream(&user, stream(1), now).await.map(|_| ()),
        store.limit(&user).await.map(|_| ()),
        store.set_limit(&user, None).await,
    ];
    errors.into_iter().map(|result| result.expect_err("an error, never an answer")).collect()
}

#[tokio::test]
async fn what_may_have_happened_is_unknown() {
    let faults = [Fault::Lost, Fault::Hangs, Fault::Refused(500, "InternalServerError"), Fault::Refused(503, "Odd")];
    for fault in faults {
        for error in errors_under(fault).await {
            assert!(matches!(error, StoreError::Unknown(_)), "{fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_stops_in_its_middle_is_unknown_once_the_attempt_has_timed_out() {
    let (tap, store, fixture) = tapped(1).await;
    let (user, now) = (someone(), fixture.now());
    store.start(&user, &start(1), StartHint::Optimistic, now).await.expect("a start");
    tap.set(Fault::Stalls);
    let beat = store.heartbeat(&user, stream(1), TERMS, now.plus_s(1));
    // Longer than the attempt's timeout, and shorter than the SDK's own patience with a body that stalls.
    let beat = tokio::time::timeout(Duration::from_secs(3), beat).await.expect("in time");
    assert!(matches!(beat, Err(StoreError::Unknown(_))), "{beat:?}");
    tap.set(Fault::None);
    let again = store.heartbeat(&user, stream(1), TERMS, now.plus_s(1)).await.expect("an answer");
    assert!(matches!(again.state, StreamState::Live(_)), "{again:?}");
}

#[tokio::test]
async fn what_was_refused_is_not_applied() {
    for (fault, expected) in [
        (Fault::Refused(400, "ProvisionedThroughputExceededException"), Refusal::Throttled),
        (Fault::Refused(400, "ThrottlingException"), Refusal::Throttled),
        (Fault::Refused(400, "ResourceNotFoundException"), Refusal::Rejected),
        (Fault::Refused(400, "AccessDeniedException"), Refusal::Rejected),
        (Fault::Refused(400, "ValidationException"), Refusal::Rejected),
        (Fault::Refused(400, CONFLICT), Refusal::Contention),
    ] {
        for error in errors_under(fault).await {
            let refused = matches!(&error, StoreError::NotApplied { refusal, .. } if *refusal == expected);
            assert!(refused, "{fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn errors_that_are_not_known_count_as_unknown() {
    for error in errors_under(Fault::Refused(400, "SomethingNewException")).await {
        assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    }
}

#[tokio::test]
async fn a_verb_whose_answer_was_lost_is_found_done_by_the_sdks_own_retry() {
    let (tap, store, fixture) = tapped(1).await;
    let (user, now) = (someone(), fixture.now());
    for fault in [Fault::AnswerLost, Fault::AppliedThen500] {
        tap.set(fault);
        assert!(matches!(
            store.start(&user, &start(1), StartHint::Optimistic, now).await,
            Err(StoreError::Unknown(_))
        ));
        tap.set(Fault::None);
        let again = store.start(&user, &start(1), StartHint::Optimistic, now).await.expect("an answer");
        assert!(matches!(again, StartOutcome::Existing(_)), "{again:?}");
        assert_eq!(store.streams(&user, now).await.expect("a list").live.len(), 1);

        let later = now.plus_s(1);
        tap.set(fault);
        assert!(store.heartbeat(&user, stream(1), TERMS, later).await.is_err());
        tap.set(Fault::None);
        let again = store.heartbeat(&user, stream(1), TERMS, later).await.expect("an answer");
        assert!(matches!(again.state, StreamState::Live(lease) if lease.expires_at == TERMS.expires_at(later)));

        tap.set(fault);
        assert!(store.stop(&user, stream(1), StoppedBy::Player, TERMS, now).await.is_err());
        tap.set(Fault::None);
        let again = store.stop(&user, stream(1), StoppedBy::Player, TERMS, now).await.expect("an answer");
        assert_eq!(again, Stop::AlreadyGone);
    }
}

#[tokio::test]
async fn an_eviction_is_done_whatever_becomes_of_what_it_forgets_and_the_next_one_makes_up_for_it() {
    let (tap, store, fixture) = tapped(1).await;
    let Backing::Embedded(_, client) = &fixture.backing else { panic!("embedded") };
    let user = someone();
    let evicted = async |n: u8| {
        let now = fixture.now().plus_s(n.into());
        store.start(&user, &start(n), StartHint::Optimistic, now).await.expect("a start");
        let stop = store.stop(&user, stream(n), StoppedBy::Evictor, TERMS, now).await.expect("an eviction");
        assert_eq!(stop, Stop::Freed);
        assert!(matches!(store.stream(&user, stream(n), now).await, Ok(StreamState::Inactive(_))));
        crate::support::items(client, &user).await.len() - 1
    };
    let faults =
        [Fault::Lost, Fault::Refused(400, "AccessDeniedException"), Fault::Refused(400, CONFLICT), Fault::Hangs];
    for (n, fault) in (0..MAX_ENDED_LEASES as u8).map(|n| (n, Fault::Lost)).chain((100..).zip(faults)) {
        tap.set_on("Query", fault);
        evicted(n).await;
    }
    assert_eq!(evicted(120).await, MAX_ENDED_LEASES + 5, "none was pruned");
    tap.set(Fault::None);
    assert_eq!(evicted(121).await, MAX_ENDED_LEASES);
}

#[tokio::test]
async fn a_keyed_start_whose_answer_was_lost_holds_one_slot() {
    let (tap, store, fixture) = tapped(1).await;
    let (user, limiter) = (someone(), limiter(&store, &fixture));
    let options =
        || StartOptions { idempotency_key: IdempotencyKey::parse(b"play-1").ok(), ..StartOptions::default() };
    tap.set(Fault::AnswerLost);
    limiter.start(&user, options()).await.expect_err("no answer");
    tap.set(Fault::None);
    for _ in 0..3 {
        let again = limiter.start(&user, options()).await.expect("an answer").value;
        assert!(matches!(again, StartOutcome::Existing(_)), "{again:?}");
    }
    assert_eq!(limiter.streams(&user, None).await.expect("a list").value.streams.len(), 1);
}

#[tokio::test]
async fn a_device_whose_starts_answer_was_lost_holds_one_slot() {
    let (tap, store, fixture) = tapped(1).await;
    let (user, limiter): (UserName, _) = (someone(), limiter(&store, &fixture));
    let options = || StartOptions { device_id: Label::parse("tv").ok(), ..StartOptions::default() };
    limiter.start(&user, options()).await.expect("a start");
    tap.set(Fault::AppliedThen500);
    limiter.start(&user, options()).await.expect_err("no answer");
    tap.set(Fault::None);
    limiter.start(&user, options()).await.expect("a start");
    assert_eq!(limiter.streams(&user, None).await.expect("a list").value.streams.len(), 1);
}

#[tokio::test]
async fn the_limiter_tries_again_on_conflicts_within_bounds_and_never_calls_them_a_denial() {
    let (tap, store, fixture) = tapped(1).await;
    let (user, limiter) = (someone(), limiter(&store, &fixture));
    let started = limiter.start(&user, StartOptions::default()).await.expect("a start").value;
    let StartOutcome::Started(started) = started else { panic!("{started:?}") };
    tap.set(Fault::Refused(400, CONFLICT));
    tokio::time::pause();
    let error = limiter.heartbeat(&user, started.lease.stream_id).await.expect_err("conflicts without end");
    assert!(matches!(error, StoreError::NotApplied { refusal: Refusal::Contention, .. }), "{error}");
    limiter.stop(&user, started.lease.stream_id, StoppedBy::Player).await.expect_err("conflicts without end");
    limiter.start(&user, StartOptions::default()).await.expect_err("conflicts without end");
}

#[tokio::test]
async fn a_stored_item_that_is_not_ours_is_an_error_for_that_user_only() {
    use stream_manager::store::dynamodb::codec;
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(_, client) = &fixture.backing else { panic!("embedded") };
    let (broken, well, now) = (someone(), someone(), fixture.now());
    let mut item = codec::encode_lease(&broken, &start(1).lease(now));
    item.insert(codec::EXPIRES_AT.to_owned(), codec::text("soon"));
    client.put_item().table_name(crate::support::TABLE).set_item(Some(item)).send().await.expect("a put");
    let error = fixture.store.streams(&broken, now).await.expect_err("not a lease");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(&stream(1).to_string()), "the log names the item: {error}");
    fixture.store.start(&well, &start(1), StartHint::Optimistic, now).await.expect("a start");
}
