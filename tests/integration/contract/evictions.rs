//! Contract clauses for evictions, limits that end streams, and erasure.

use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::domain::lease::{EndReason, StreamLimit};
use stream_manager::domain::names::Message;
use stream_manager::store::{StreamState, TOMBSTONE_S};

use super::{User, evicting, inactive};
use crate::support::{Backing, TERMS, erasure, start, stream};

fn request(selection: Selection) -> EndRequest {
    EndRequest { selection, message: None, terms: TERMS }
}

fn excess_over(limit: u64) -> EndRequest {
    request(Selection::ExcessOver(StreamLimit::new(limit).unwrap()))
}

pub async fn an_eviction_of_all_ends_every_live_stream(user: User) {
    user.started(start(9)).await;
    user.fixture.advance_s(90);
    for n in [3, 1, 2] {
        user.started(start(n)).await;
        user.fixture.advance_s(1);
    }
    let ended = user.end(request(Selection::All)).await;
    assert_eq!(ended, [stream(3), stream(1), stream(2)], "oldest first, without the expired stream");
    assert_eq!(user.live().await, []);
    for n in 1..=3 {
        assert_eq!(inactive(user.heartbeat(n).await).termination.unwrap().reason, EndReason::Evicted);
    }
    assert_eq!(user.end(request(Selection::All)).await, []);
    user.started(start(4)).await;
}

pub async fn an_eviction_of_listed_streams_ignores_other_ids(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.stop(3).await;
    let listed = |ids: &[u8]| request(Selection::Listed(ids.iter().map(|n| stream(*n)).collect()));
    assert_eq!(user.end(listed(&[])).await, []);
    assert_eq!(user.end(listed(&[77, 3, 2, 2])).await, [stream(2)]);
    assert_eq!(user.live().await, [stream(1)]);
    assert_eq!(user.state(3).await, StreamState::NotFound);
}

pub async fn an_eviction_message_is_stored_with_the_ended_lease(user: User) {
    user.started(start(1)).await;
    let message = Message::clean("Your subscription has ended.");
    user.end(EndRequest { message: message.clone(), ..request(Selection::All) }).await;
    let ended_by = inactive(user.heartbeat(1).await).termination.unwrap().ended_by.unwrap();
    assert_eq!((ended_by.message, ended_by.stream_id), (message, None));
}

pub async fn a_new_limit_can_end_the_excess(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
        user.fixture.advance_s(1);
    }
    user.fixture.advance_s(46);
    user.heartbeat(1).await;
    assert_eq!(user.end(excess_over(1)).await, [stream(2), stream(3)], "overdue streams first");
    assert_eq!(user.live().await, [stream(1)]);
    assert_eq!(user.fixture.store.limit(&user.name).await.unwrap(), StreamLimit::new(1));
    assert_eq!(user.denied(start(4)).await, [stream(1)]);
    assert_eq!(user.end(excess_over(5)).await, []);
    user.started(start(4)).await;
}

pub async fn ending_streams_returns_their_leases_and_the_previous_limit(user: User) {
    user.set_limit(Some(4)).await;
    let lease = user.started(start(1)).await.lease;
    let ended = user.ended(excess_over(0)).await;
    assert_eq!((ended.leases, ended.previous_limit), (vec![lease], StreamLimit::new(4)));
    assert_eq!(user.ended(request(Selection::All)).await.previous_limit, StreamLimit::new(0));
}

pub async fn a_new_limit_of_an_unknown_user_is_stored(user: User) {
    assert_eq!(user.end(excess_over(1)).await, []);
    user.started(start(1)).await;
    assert_eq!(user.denied(start(2)).await, [stream(1)]);
}

pub async fn a_limit_of_zero_blocks_every_start(user: User) {
    user.set_limit(Some(0)).await;
    assert_eq!(user.denied(start(1)).await, []);
    assert_eq!(user.denied(evicting(1)).await, []);
    let mut with_token_limit = start(1);
    with_token_limit.token_limit = StreamLimit::new(5);
    assert_eq!(user.denied(with_token_limit.clone()).await, [], "a stored 0 overrides the token");
    user.set_limit(None).await;
    with_token_limit.token_limit = StreamLimit::new(0);
    assert_eq!(user.denied(with_token_limit).await, []);
    user.started(start(1)).await;
}

pub async fn an_erased_user_leaves_no_data(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.evict(2).await;
    user.fixture.advance_s(89);
    user.heartbeat(1).await;
    user.fixture.advance_s(2);
    user.set_limit(Some(5)).await;
    assert_eq!(user.erase().await, [stream(1)], "stream 3 has expired");
    match &user.fixture.backing {
        Backing::Memory(store) => assert_eq!(store.size(), (0, 0)),
        Backing::Embedded(..) | Backing::Endpoint(_) => {
            let items = user.fixture.items(&user.name).await;
            let mut names: Vec<&str> = items[0].keys().map(String::as_str).collect();
            names.sort();
            assert_eq!((items.len(), names), (1, vec!["record", "revision", "ttl", "userName"]));
            let ttl_s = (user.fixture.now().epoch_ms() / 1000 + i64::from(TOMBSTONE_S)).to_string();
            assert_eq!(items[0]["ttl"].as_n().unwrap(), &ttl_s);
        }
    }
    for n in 1..=3 {
        assert_eq!(user.heartbeat(n).await, StreamState::NotFound);
    }
    assert_eq!(user.erase().await, [], "a repeated erasure ends no stream");
}

pub async fn streams_are_not_found_after_the_first_step_of_an_erasure(user: User) {
    for n in 1..=3 {
        user.started(start(n)).await;
    }
    user.evict(3).await;
    assert_eq!(user.end(erasure()).await, [stream(1), stream(2)]);
    for n in 1..=2 {
        assert_eq!(user.heartbeat(n).await, StreamState::NotFound);
    }
    assert_eq!(inactive(user.heartbeat(3).await).termination.unwrap().reason, EndReason::Evicted);
    assert_eq!(user.end(erasure()).await, [], "a repeated erasure ends no stream");
}

pub async fn a_stream_started_during_an_erasure_survives(user: User) {
    user.set_limit(Some(2)).await;
    user.started(start(1)).await;
    user.started(start(2)).await;
    user.evict(2).await;
    user.end(erasure()).await;
    user.started(start(3)).await;
    user.purge().await;
    assert_eq!((user.live().await, user.stored_leases().await), (vec![stream(3)], 1));
    assert_eq!(user.fixture.store.limit(&user.name).await.unwrap(), None);
    user.fixture.advance_s(i64::from(TOMBSTONE_S) + 1);
    user.started(start(4)).await;
    user.fixture.sweep(&user.name).await;
    assert_eq!(user.live().await, [stream(4)], "the counter must have no TTL");
}

pub async fn a_purge_alone_ends_no_stream(user: User) {
    user.set_limit(Some(5)).await;
    user.started(start(1)).await;
    user.purge().await;
    user.purge().await;
    assert_eq!(user.live().await, [stream(1)]);
    assert_eq!(user.fixture.store.limit(&user.name).await.unwrap(), None);
}

pub async fn a_user_can_return_after_an_erasure(user: User) {
    user.started(start(1)).await;
    user.erase().await;
    user.started(start(2)).await;
    user.fixture.advance_s(i64::from(TOMBSTONE_S) + 1);
    user.fixture.sweep(&user.name).await;
    user.started(start(3)).await;
    user.erase().await;
    user.set_limit(Some(1)).await;
    user.fixture.advance_s(i64::from(TOMBSTONE_S) + 1);
    user.fixture.sweep(&user.name).await;
    user.started(start(4)).await;
    assert_eq!(user.denied(start(5)).await, [stream(4)], "setting the limit removed the TTL of the counter");
}

pub async fn an_erasure_of_an_unknown_user_stores_nothing(user: User) {
    assert_eq!(user.erase().await, []);
    match &user.fixture.backing {
        Backing::Memory(store) => assert_eq!(store.size(), (0, 0)),
        Backing::Embedded(..) | Backing::Endpoint(_) => assert_eq!(user.fixture.items(&user.name).await, []),
    }
}
