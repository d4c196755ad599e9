//! Contract clauses for starts: admission, replacement, eviction, repetition and limits.

use std::collections::BTreeSet;

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES, StartOutcome, StartRequest};
use stream_manager::domain::lease::{EndReason, StreamLimit};
use stream_manager::domain::names::{DisplayText, StreamId};
use stream_manager::store::{StartHint, Stop, StreamState};

use super::{User, evicting, inactive, keyed, live};
use crate::support::{on_device, start, stream, unique_user, user};

pub async fn a_start_stores_its_details_and_expires_after_the_duration(user: User) {
    let request = StartRequest { content_id: DisplayText::clean("movie \"7\" é"), ..on_device(1, "tv") };
    let started = user.started(request.clone()).await;
    assert_eq!(started.lease, request.lease(user.fixture.now()));
    assert_eq!(started.lease.expires_at, user.fixture.now().plus_s(90));
    assert_eq!((started.limit.limit, started.ended_ids()), (StreamLimit::DEFAULT, vec![]));
    assert_eq!(live(user.state(1).await), started.lease);
}

pub async fn a_denial_lists_live_streams_oldest_first(user: User) {
    for n in [3, 1, 2] {
        user.started(start(n)).await;
        user.fixture.advance_s(1);
    }
    let oldest_first = [stream(3), stream(1), stream(2)];
    assert_eq!(user.denied(start(4)).await, oldest_first);
    assert_eq!(user.denied(on_device(5, "tv")).await, oldest_first);
    assert_eq!(user.live().await, oldest_first);
}

pub async fn racing_starts_grant_exactly_the_limit(user: User) {
    let starts = (0..24)
        .map(|n| user.start_with(start(n), if n % 2 == 0 { StartHint::Optimistic } else { StartHint::ReadFirst }));
    let outcomes = futures_util::future::join_all(starts).await;
    let granted = outcomes.iter().filter(|start| matches!(start, StartOutcome::Started(_))).count();
    let denied = outcomes.iter().filter(|start| matches!(start, StartOutcome::Denied(_))).count();
    assert_eq!((granted, denied), (3, 21));
    assert_eq!(user.live().await.len(), 3);
}

pub async fn racing_evictions_never_exceed_the_limit(user: User) {
    let user = &user;
    let starts = (0..12).map(|n| async move {
        let started = user.start(evicting(n)).await;
        assert!(user.live().await.len() <= 3);
        started
    });
    let outcomes = futures_util::future::join_all(starts).await;
    assert!(outcomes.iter().all(|start| matches!(start, StartOutcome::Started(_))));
    let ended: Vec<StreamId> = outcomes
        .iter()
        .flat_map(|start| if let StartOutcome::Started(started) = start { started.ended_ids() } else { vec![] })
        .collect();
    let distinct: BTreeSet<StreamId> = ended.iter().copied().collect();
    assert_eq!((ended.len(), distinct.len()), (9, 9), "each stream was ended once, except the last three");
    assert_eq!(user.live().await.len(), 3);
}

pub async fn a_repeated_start_returns_the_first_lease(user: User) {
    let first = user.started(keyed(1, 1)).await;
    for device in [2, 3] {
        user.started(start(device)).await;
    }
    user.fixture.advance_s(5);
    for hint in [StartHint::Optimistic, StartHint::ReadFirst] {
        match user.start_with(keyed(1, 1), hint).await {
            StartOutcome::Existing(existing) => {
                assert_eq!((existing.lease, existing.limit), (first.lease.clone(), first.limit))
            }
            other => panic!("not existing: {other:?}"),
        }
    }
    assert_eq!(user.live().await.len(), 3);
}

pub async fn a_repeated_start_with_another_body_is_refused(user: User) {
    user.started(keyed(1, 1)).await;
    for hint in [StartHint::Optimistic, StartHint::ReadFirst] {
        assert_eq!(user.start_with(keyed(1, 2), hint).await, StartOutcome::KeyReused);
        assert_eq!(user.start_with(start(1), hint).await, StartOutcome::KeyReused);
    }
    assert_eq!(user.live().await, [stream(1)]);
}

pub async fn a_repeated_start_of_an_evicted_stream_returns_ended(user: User) {
    user.started(keyed(1, 1)).await;
    user.evict(1).await;
    for hint in [StartHint::Optimistic, StartHint::ReadFirst] {
        match user.start_with(keyed(1, 1), hint).await {
            StartOutcome::Ended(lease) => {
                assert_eq!(lease.termination.map(|termination| termination.reason), Some(EndReason::Evicted))
            }
            other => panic!("not ended: {other:?}"),
        }
    }
    assert_eq!(user.live().await, []);
}

pub async fn a_repeated_start_after_expiry_starts_again(user: User) {
    for hint in [StartHint::Optimistic, StartHint::ReadFirst] {
        user.start_with(keyed(1, 1), hint).await;
        user.fixture.advance_s(90);
        match user.start_with(keyed(1, 1), hint).await {
            StartOutcome::Started(started) => assert_eq!(started.lease.started_at, user.fixture.now()),
            other => panic!("not started: {other:?}"),
        }
        assert_eq!(user.live().await, [stream(1)]);
        user.fixture.advance_s(90);
    }
}

pub async fn a_slot_is_free_exactly_at_expiry(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.fixture.clock.advance_ms(89_999);
    assert_eq!(user.denied(start(4)).await.len(), 3);
    assert_eq!(user.live().await.len(), 3);
    user.fixture.clock.advance_ms(1);
    assert_eq!(user.live().await, []);
    let started = user.started(start(4)).await;
    assert_eq!((started.reaped, started.ended_ids()), (3, vec![]));
    assert_eq!(user.live().await, [stream(4)]);
    assert_eq!(user.state(1).await, StreamState::NotFound, "the start deleted it");
}

pub async fn a_restarted_device_reuses_its_slot(user: User) {
    for (n, device) in [(1, "tv"), (2, "phone"), (3, "tablet")] {
        user.started(on_device(n, device)).await;
        user.fixture.advance_s(1);
    }
    let restarted = user.started(on_device(4, "phone")).await;
    assert_eq!(restarted.ended_ids(), [stream(2)]);
    assert_eq!(user.live().await, [stream(1), stream(3), stream(4)]);
    assert_eq!(user.denied(on_device(5, "console")).await.len(), 3);
}

pub async fn a_replaced_stream_names_its_replacement(user: User) {
    user.started(on_device(1, "tv")).await;
    user.started(on_device(2, "tv")).await;
    let termination = inactive(user.heartbeat(1).await).termination.unwrap();
    let by = termination.ended_by.unwrap();
    assert_eq!(
        (termination.reason, by.stream_id, by.device_name),
        (EndReason::Replaced, Some(stream(2)), DisplayText::clean("tv"))
    );
}

pub async fn a_denied_start_replaces_nothing(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
        user.fixture.advance_s(1);
    }
    let replacing =
        |n, replaced: &[u8]| StartRequest { replaces: replaced.iter().copied().map(stream).collect(), ..start(n) };
    assert_eq!(user.started(replacing(4, &[1, 2, 99])).await.ended_ids(), [stream(1), stream(2)]);
    assert_eq!(user.live().await, [stream(3), stream(4)]);
    user.set_limit(Some(1)).await;
    assert_eq!(user.denied(replacing(5, &[4])).await, [stream(3), stream(4)]);
    assert_eq!(user.live().await, [stream(3), stream(4)]);
}

pub async fn evict_oldest_ends_only_the_oldest_stream(user: User) {
    for n in 1..=3 {
        assert_eq!(user.started(evicting(n)).await.ended_ids(), [], "below the limit");
        user.fixture.advance_s(1);
    }
    assert_eq!(user.started(evicting(4)).await.ended_ids(), [stream(1)]);
    assert_eq!(user.live().await, [stream(2), stream(3), stream(4)]);
    let termination = inactive(user.heartbeat(1).await).termination.unwrap();
    assert_eq!(
        (termination.reason, termination.ended_by.map(|by| by.stream_id)),
        (EndReason::Evicted, Some(Some(stream(4))))
    );
}

pub async fn evict_oldest_prefers_an_overdue_stream(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
        user.fixture.advance_s(1);
    }
    user.fixture.advance_s(44);
    user.heartbeat(1).await;
    user.heartbeat(3).await;
    user.fixture.advance_s(1);
    assert_eq!(user.started(evicting(4)).await.ended_ids(), [stream(2)], "stream 1 is older, but not overdue");
}

pub async fn a_start_returns_the_leases_that_it_ends(user: User) {
    let expired = user.started(start(1)).await.lease;
    user.fixture.advance_s(60);
    let replaced = user.started(on_device(2, "tv")).await.lease;
    user.fixture.advance_s(30);
    let evicted = user.started(start(3)).await.lease;
    let one = StreamLimit::new(1).unwrap();
    let last = StartRequest { at_limit: AtLimit::EvictOldest, default_limit: one, ..on_device(4, "tv") };
    let started = user.started(last).await;
    let (replaced, evicted) = ((replaced, EndReason::Replaced), (evicted, EndReason::Evicted));
    let ended: Vec<_> = started.ended.into_iter().map(|ended| (ended.lease, ended.reason)).collect();
    assert_eq!((ended, started.live_before), (vec![replaced, evicted], Some(2)));
    assert_eq!(started.expired.len(), started.reaped);
    assert!(started.expired.iter().all(|lease| *lease == expired));
}

pub async fn a_repeated_start_lists_the_streams_it_ended(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
        user.fixture.advance_s(1);
    }
    let request = StartRequest { at_limit: AtLimit::EvictOldest, ..keyed(4, 1) };
    user.started(request.clone()).await;
    for hint in [StartHint::Optimistic, StartHint::ReadFirst] {
        match user.start_with(request.clone(), hint).await {
            StartOutcome::Existing(existing) => assert_eq!(existing.ended_ids(), [stream(1)]),
            other => panic!("not existing: {other:?}"),
        }
    }
}

pub async fn device_restarts_keep_a_bounded_number_of_ended_leases(user: User) {
    for n in 0..60 {
        user.started(on_device(n, "tv")).await;
    }
    assert_eq!(user.live().await, [stream(59)]);
    assert!(matches!(user.state(58).await, StreamState::Inactive(_)));
    assert_eq!(user.state(1).await, StreamState::NotFound);
    let states = futures_util::future::join_all((0..59).map(|n| user.state(n))).await;
    let kept = states.iter().filter(|state| matches!(state, StreamState::Inactive(_))).count();
    assert_eq!(kept, MAX_ENDED_LEASES);
}

pub async fn a_stored_limit_applies_until_it_is_removed(user: User) {
    let store = &user.fixture.store;
    assert_eq!(store.limit(&user.name).await.unwrap(), None);
    assert_eq!(user.set_limit(Some(1)).await, None, "the previous limit");
    assert_eq!(user.set_limit(Some(1)).await, Some(1));
    assert_eq!(store.limit(&user.name).await.unwrap(), StreamLimit::new(1));
    assert_eq!(user.started(start(1)).await.limit.limit.get(), 1);
    assert_eq!(user.denied(start(2)).await, [stream(1)]);
    user.set_limit(Some(4)).await;
    for n in 2..=4 {
        assert_eq!(user.started(start(n)).await.limit.limit.get(), 4);
    }
    assert_eq!(user.denied(start(5)).await.len(), 4);
    assert_eq!(user.set_limit(None).await, Some(4));
    assert_eq!(user.set_limit(None).await, None);
    assert_eq!(store.limit(&user.name).await.unwrap(), None);
    user.stop(4).await;
    assert_eq!(user.denied(start(6)).await.len(), 3, "the default applies again");
}

pub async fn a_lowered_limit_ends_no_streams(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.set_limit(Some(2)).await;
    assert_eq!(user.live().await.len(), 3);
    live(user.heartbeat(1).await);
    assert_eq!(user.denied(start(4)).await.len(), 3);
    user.stop(1).await;
    assert_eq!(user.denied(start(4)).await.len(), 2);
    user.stop(2).await;
    user.started(start(4)).await;
}

pub async fn a_token_limit_overrides_the_stored_and_the_default_limit(user: User) {
    let with_token_limit = |n, limit| StartRequest { token_limit: StreamLimit::new(limit), ..start(n) };
    let mut n = 0;
    for stored in [None, Some(1), Some(5)] {
        user.set_limit(stored).await;
        for hint in [StartHint::Optimistic, StartHint::ReadFirst] {
            for _ in 0..2 {
                n += 1;
                match user.start_with(with_token_limit(n, 2), hint).await {
                    StartOutcome::Started(started) => assert_eq!(started.limit.limit.get(), 2),
                    other => panic!("not started: {other:?}"),
                }
            }
            match user.start_with(with_token_limit(99, 2), hint).await {
                StartOutcome::Denied(denial) => assert_eq!((denial.limit.get(), denial.streams.len()), (2, 2)),
                other => panic!("not denied: {other:?}"),
            }
            n += 1;
            let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..with_token_limit(n, 1) };
            assert_eq!(user.started(evicting).await.ended_ids(), [stream(n - 2), stream(n - 1)]);
            assert_eq!(user.live().await, [stream(n)]);
            user.stop(n).await;
        }
    }
    let stored = user.fixture.store.limit(&user.name).await.unwrap();
    assert_eq!(stored, StreamLimit::new(5), "token limits do not change the stored limit");
}

pub async fn users_with_similar_names_are_independent(first: User) {
    let base = unique_user().to_string();
    let names = [base.clone(), base.to_uppercase(), format!("{base}/"), format!("{base}#"), format!("{base}é")];
    let users = names.map(|name| User { fixture: first.fixture.clone(), name: user(&name) });
    for user in &users {
        for n in 1..=3 {
            user.started(start(n)).await;
        }
    }
    for user in &users {
        assert_eq!(user.denied(start(4)).await.len(), 3);
    }
    assert_eq!(users[0].stop(1).await, Stop::Freed);
    assert_eq!(users[1].live().await.len(), 3);
}
