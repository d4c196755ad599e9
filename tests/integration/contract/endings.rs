//! Clauses on heartbeats, stops, evictions and deletion by TTL.

use stream_manager::domain::admission::MAX_ENDED_LEASES;
use stream_manager::domain::lease::EndReason;
use stream_manager::store::{Stop, StoppedBy, StreamState};

use super::{User, live, over};
use crate::support::{TERMS, on_device, persistently, start, stream};

pub async fn a_heartbeat_renews_for_the_duration_from_now(user: User) {
    let started = user.started(on_device(1, "tv")).await.lease;
    user.fixture.advance_s(89);
    let renewed = live(user.beat(1).await);
    assert_eq!(renewed.expires_at, user.fixture.now().plus_s(90));
    assert_eq!(renewed.ttl_s, TERMS.ttl_s(renewed.expires_at));
    assert_eq!((renewed.started_at, &renewed.device_id), (started.started_at, &started.device_id));
    assert_eq!(live(user.state(1).await), renewed);
    assert_eq!(live(user.beat(1).await), renewed, "again at the same instant");
}

pub async fn a_late_duplicate_of_a_heartbeat_never_shortens_a_lease(user: User) {
    let started = user.started(start(1)).await.lease;
    user.fixture.advance_s(20);
    let sent_first = user.fixture.now();
    user.fixture.advance_s(10);
    let store = &user.fixture.store;
    let beat = || store.heartbeat(&user.name, stream(1), TERMS, user.fixture.now());
    let newer = persistently(beat).await;
    assert_eq!(newer.previous_expiry, Some(started.expires_at), "when it would have run out");
    let newer = live(newer.state);
    let late = store.heartbeat(&user.name, stream(1), TERMS, sent_first).await.expect("a heartbeat");
    assert_eq!((live(late.state), late.previous_expiry), (newer.clone(), None), "it renewed nothing");
    assert_eq!(live(user.state(1).await), newer);
}

pub async fn a_heartbeat_never_revives_a_lease_that_ran_out(user: User) {
    user.started(start(1)).await;
    user.fixture.advance_s(90);
    assert_eq!(over(user.beat(1).await).termination, None);
    assert_eq!(user.live().await, []);
    for n in 2..=4 {
        user.started(start(n)).await;
    }
    assert_eq!(user.beat(1).await, StreamState::NotFound, "the next start that looked has reaped it");
}

pub async fn a_heartbeat_of_an_unknown_stream_finds_nothing(user: User) {
    assert_eq!(user.beat(1).await, StreamState::NotFound);
    assert_eq!(user.state(1).await, StreamState::NotFound);
    user.started(start(2)).await;
    assert_eq!(user.beat(1).await, StreamState::NotFound);
    assert_eq!(user.live().await, [stream(2)]);
}

pub async fn a_stop_frees_one_slot_however_often_it_is_repeated(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    assert_eq!(user.stop(1, StoppedBy::Player).await, Stop::Freed);
    for by in [StoppedBy::Player, StoppedBy::Evictor, StoppedBy::Player] {
        assert_eq!(user.stop(1, by).await, Stop::AlreadyGone);
    }
    assert_eq!(user.stop(77, StoppedBy::Player).await, Stop::AlreadyGone);
    assert_eq!(user.live().await, [stream(2), stream(3)]);
    user.started(start(4)).await;
    assert_eq!(user.denied(start(5)).await.len(), 3);
}

pub async fn a_stop_of_an_unknown_user_leaves_nothing_behind(user: User) {
    assert_eq!(user.stop(1, StoppedBy::Player).await, Stop::AlreadyGone);
    assert_eq!(user.stop(1, StoppedBy::Evictor).await, Stop::AlreadyGone);
    user.limit(None).await;
    match &user.fixture.backing {
        crate::support::Backing::Memory(store) => assert_eq!(store.size(), (0, 0)),
        crate::support::Backing::Embedded(_, client) | crate::support::Backing::Endpoint(client) => {
            assert_eq!(crate::support::items(client, &user.name).await, []);
        }
    }
}

pub async fn a_stopped_stream_is_forgotten(user: User) {
    user.started(start(1)).await;
    user.stop(1, StoppedBy::Player).await;
    assert_eq!(user.beat(1).await, StreamState::NotFound);
    assert_eq!(user.state(1).await, StreamState::NotFound);
}

pub async fn an_evicted_stream_is_over_and_remembered_for_the_retention(user: User) {
    user.started(start(1)).await;
    assert_eq!(user.stop(1, StoppedBy::Evictor).await, Stop::Freed);
    assert_eq!(user.live().await, []);
    let evicted = over(user.beat(1).await);
    let termination = evicted.termination.as_ref().expect("a mark");
    assert_eq!((termination.reason, &termination.ended_by), (EndReason::Evicted, &None));
    assert_eq!(evicted.ttl_s, TERMS.ttl_s(user.fixture.now()));
    assert_eq!(over(user.state(1).await), evicted);
    user.fixture.advance_s(61);
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.beat(1).await, StreamState::NotFound);
}

pub async fn a_stop_after_an_eviction_leaves_the_mark(user: User) {
    user.started(start(1)).await;
    user.stop(1, StoppedBy::Evictor).await;
    assert_eq!(user.stop(1, StoppedBy::Player).await, Stop::AlreadyGone);
    assert!(over(user.beat(1).await).termination.is_some());
}

pub async fn deletion_by_ttl_frees_nothing_twice_and_blocks_nothing(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.fixture.advance_s(91);
    user.fixture.sweep(&user.name).await;
    over(user.state(1).await);
    user.fixture.advance_s(60);
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.state(1).await, StreamState::NotFound, "TTL has deleted it");
    user.stop(1, StoppedBy::Player).await;
    user.stop(1, StoppedBy::Player).await;
    for n in 4..=6 {
        user.started(start(n)).await;
    }
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.denied(start(7)).await, [stream(4), stream(5), stream(6)]);
}

pub async fn an_eviction_of_a_stream_that_ttl_deleted_is_done_already(user: User) {
    user.started(start(1)).await;
    user.fixture.advance_s(151);
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.stop(1, StoppedBy::Evictor).await, Stop::AlreadyGone);
    assert_eq!(user.beat(1).await, StreamState::NotFound);
    for n in 2..=4 {
        user.started(start(n)).await;
    }
}

pub async fn evictions_without_end_leave_no_more_than_the_latest_to_remember(user: User) {
    const FIRST: u8 = 10;
    const LAST: u8 = FIRST + MAX_ENDED_LEASES as u8;
    user.started(start(200)).await;
    for n in 0..LAST {
        user.started(start(n)).await;
        assert_eq!(user.stop(n, StoppedBy::Evictor).await, Stop::Freed);
        assert_eq!(user.stored().await, 1 + MAX_ENDED_LEASES.min(usize::from(n) + 1));
        user.fixture.advance_s(1);
    }
    for n in 0..FIRST {
        assert_eq!(user.beat(n).await, StreamState::NotFound, "{n}");
    }
    for n in FIRST..LAST {
        assert!(over(user.beat(n).await).termination.is_some(), "{n}");
    }
    assert_eq!(user.live().await, [stream(200)]);
}
