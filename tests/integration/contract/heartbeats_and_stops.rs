//! Contract clauses for heartbeats, stops, evictions and deletion by TTL.

use stream_manager::domain::admission::MAX_ENDED_LEASES;
use stream_manager::domain::lease::EndReason;
use stream_manager::domain::names::ContentId;
use stream_manager::store::{HeartbeatRequest, Stop, StreamState};

use super::{User, inactive, live};
use crate::support::{Backing, TERMS, on_device, renewal, retry_on_contention, start, stream};

pub async fn a_heartbeat_renews_the_lease_from_now(user: User) {
    let started = user.started(on_device(1, "tv")).await.lease;
    user.fixture.advance_s(89);
    let renewed = live(user.heartbeat(1).await);
    assert_eq!(renewed.expires_at, user.fixture.now().plus_s(90));
    assert_eq!(renewed.ttl_s, TERMS.ttl_s(renewed.expires_at));
    assert_eq!((renewed.started_at, &renewed.device_id), (started.started_at, &started.device_id));
    assert_eq!(live(user.state(1).await), renewed);
    assert_eq!(live(user.heartbeat(1).await), renewed, "a second heartbeat at the same time");
}

pub async fn a_late_duplicate_heartbeat_never_shortens_a_lease(user: User) {
    let started = user.started(start(1)).await.lease;
    user.fixture.advance_s(20);
    let sent_first = user.fixture.now();
    user.fixture.advance_s(10);
    let store = &user.fixture.store;
    let request = renewal(1);
    let newer = retry_on_contention(|| store.heartbeat(&user.name, &request, user.fixture.now())).await;
    assert_eq!(newer.previous_expiry, Some(started.expires_at));
    let newer = live(newer.state);
    let late = store.heartbeat(&user.name, &renewal(1), sent_first).await.unwrap();
    assert_eq!((live(late.state), late.previous_expiry), (newer.clone(), None), "no renewal");
    assert_eq!(live(user.state(1).await), newer);
}

pub async fn a_heartbeat_stores_the_content(user: User) {
    let with_content = |text| HeartbeatRequest { content_id: ContentId::clean(text), ..renewal(1) };
    let movie_1 = ContentId::clean("movie-1");
    user.started(start(1)).await;
    user.fixture.advance_s(1);
    assert_eq!(live(user.heartbeat_with(with_content("movie-1")).await).content_id, movie_1);
    let unrenewed = live(user.heartbeat_with(with_content("movie-2")).await);
    assert_eq!(unrenewed.content_id, movie_1, "no renewal, so the content stays");
    user.fixture.advance_s(1);
    assert_eq!(live(user.heartbeat(1).await).content_id, movie_1);
    assert_eq!(live(user.state(1).await).content_id, movie_1);
}

pub async fn a_heartbeat_never_revives_an_expired_lease(user: User) {
    user.started(start(1)).await;
    user.fixture.advance_s(90);
    assert_eq!(inactive(user.heartbeat(1).await).termination, None);
    assert_eq!(user.live().await, []);
    for n in 2..=4 {
        user.started(start(n)).await;
    }
    assert_eq!(user.heartbeat(1).await, StreamState::NotFound, "a later start deleted it");
}

pub async fn a_heartbeat_of_an_unknown_stream_returns_not_found(user: User) {
    assert_eq!(user.heartbeat(1).await, StreamState::NotFound);
    assert_eq!(user.state(1).await, StreamState::NotFound);
    user.started(start(2)).await;
    assert_eq!(user.heartbeat(1).await, StreamState::NotFound);
    assert_eq!(user.live().await, [stream(2)]);
}

pub async fn a_repeated_stop_frees_one_slot(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    assert_eq!(user.stop(1).await, Stop::Freed);
    assert_eq!(user.stop(1).await, Stop::AlreadyGone);
    assert_eq!(user.evict(1).await, []);
    assert_eq!(user.stop(1).await, Stop::AlreadyGone);
    assert_eq!(user.stop(77).await, Stop::AlreadyGone);
    assert_eq!(user.live().await, [stream(2), stream(3)]);
    user.started(start(4)).await;
    assert_eq!(user.denied(start(5)).await.len(), 3);
}

pub async fn a_stop_of_an_unknown_user_stores_nothing(user: User) {
    assert_eq!(user.stop(1).await, Stop::AlreadyGone);
    assert_eq!(user.evict(1).await, []);
    user.set_limit(None).await;
    match &user.fixture.backing {
        Backing::Memory(store) => assert_eq!(store.size(), (0, 0)),
        Backing::Embedded(..) | Backing::Endpoint(_) => assert_eq!(user.fixture.items(&user.name).await, []),
    }
}

pub async fn a_stopped_stream_is_not_found(user: User) {
    user.started(start(1)).await;
    user.stop(1).await;
    assert_eq!(user.heartbeat(1).await, StreamState::NotFound);
    assert_eq!(user.state(1).await, StreamState::NotFound);
}

pub async fn an_evicted_stream_stays_inactive_for_the_retention(user: User) {
    user.started(start(1)).await;
    assert_eq!(user.evict(1).await, [stream(1)]);
    assert_eq!(user.live().await, []);
    let evicted = inactive(user.heartbeat(1).await);
    let termination = evicted.termination.as_ref().unwrap();
    assert_eq!((termination.reason, &termination.ended_by), (EndReason::Evicted, &None));
    assert_eq!(evicted.ttl_s, TERMS.ttl_s(user.fixture.now()));
    assert_eq!(inactive(user.state(1).await), evicted);
    user.fixture.advance_s(61);
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.heartbeat(1).await, StreamState::NotFound);
}

pub async fn a_stop_after_an_eviction_keeps_the_termination(user: User) {
    user.started(start(1)).await;
    user.evict(1).await;
    assert_eq!(user.stop(1).await, Stop::AlreadyGone);
    assert!(inactive(user.heartbeat(1).await).termination.is_some());
}

pub async fn ttl_deletion_frees_no_slot_twice(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.fixture.advance_s(91);
    user.fixture.sweep(&user.name).await;
    inactive(user.state(1).await);
    user.fixture.advance_s(60);
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.state(1).await, StreamState::NotFound, "TTL has deleted it");
    user.stop(1).await;
    user.stop(1).await;
    for n in 4..=6 {
        user.started(start(n)).await;
    }
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.denied(start(7)).await, [stream(4), stream(5), stream(6)]);
}

pub async fn evicting_a_stream_deleted_by_ttl_does_nothing(user: User) {
    user.started(start(1)).await;
    user.fixture.advance_s(151);
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.evict(1).await, []);
    assert_eq!(user.heartbeat(1).await, StreamState::NotFound);
    for n in 2..=4 {
        user.started(start(n)).await;
    }
}

pub async fn evictions_keep_a_bounded_number_of_ended_leases(user: User) {
    const FIRST: u8 = 10;
    const LAST: u8 = FIRST + MAX_ENDED_LEASES as u8;
    user.started(start(200)).await;
    for n in 0..LAST {
        user.started(start(n)).await;
        assert_eq!(user.evict(n).await, [stream(n)]);
        assert_eq!(user.stored_leases().await, 1 + MAX_ENDED_LEASES.min(usize::from(n) + 1));
        user.fixture.advance_s(1);
    }
    for n in 0..FIRST {
        assert_eq!(user.heartbeat(n).await, StreamState::NotFound, "{n}");
    }
    for n in FIRST..LAST {
        assert!(inactive(user.heartbeat(n).await).termination.is_some(), "{n}");
    }
    assert_eq!(user.live().await, [stream(200)]);
}
