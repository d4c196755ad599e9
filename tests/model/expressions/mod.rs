//! Tests that the DynamoDB expressions match the model. For every kind of write and every combination of stored items,
//! the embedded engine and `protocol` must end in the same state.

mod cases;
mod fixture;

use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::domain::admission::{AtLimit, Guard, MembershipChange, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::StreamId;
use stream_manager::store::dynamodb::expressions;
use stream_manager::store::{HeartbeatRequest, LeaseStore, StreamState};

use self::cases::{
    DEAD, DURATION, ENDED, NOW, OWN, READ_REVISION, TERMS, combinations, commits, counter_and_own_lease_combinations,
    counters, end_commits, ended, ids_written_by_end, lease, partitions, written_ids,
};
use self::fixture::{Fixture, TABLE};
use crate::protocol::{
    self, CounterItem, Id, IdSet, Items, REVISION_STEP, STREAMS, Write, bit, content, ids, stream_id, timestamp,
};

#[tokio::test]
async fn commit_matches_the_model_for_every_lease_combination() {
    let mut fixture = Fixture::new().await;
    for commit in commits(Guard { revision: Some(READ_REVISION.into()), stored_limit: None }) {
        let mut written = written_ids(&commit.change);
        written.push(OWN);
        for leases in combinations(&written) {
            fixture.commit(&Items { counter: unchanged_counter(0b0110), leases }, &commit).await;
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn commit_matches_the_model_for_every_counter() {
    let mut fixture = Fixture::new().await;
    for guard in guards() {
        for commit in commits(guard).into_iter().filter(|commit| writes_all_or_no_leases(&commit.change)) {
            let leases = leases_to_end(!commit.change.ended.is_empty());
            for counter in counters(&[0, 0b0110]) {
                fixture.commit(&Items { counter, leases }, &commit).await;
            }
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn end_matches_the_model_for_every_lease_combination() {
    let mut fixture = Fixture::new().await;
    let guard = Guard { revision: Some(READ_REVISION.into()), stored_limit: None };
    for commit in end_commits(guard).into_iter().filter(|commit| commit.new_limit.is_none()) {
        for leases in combinations(&ids_written_by_end(&commit)) {
            fixture.end(&Items { counter: unchanged_counter(0b0111), leases }, &commit).await;
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn end_matches_the_model_for_every_counter() {
    let mut fixture = Fixture::new().await;
    for guard in guards() {
        for commit in end_commits(guard).into_iter().filter(|commit| writes_all_or_no_leases(&commit.change)) {
            let leases = leases_to_end(!commit.change.ended.is_empty());
            for counter in counters(&[0, 0b0111]) {
                fixture.end(&Items { counter, leases }, &commit).await;
            }
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn optimistic_start_matches_the_model() {
    let default_limit = |limit| protocol::request(OWN, Some(1), &[], AtLimit::Reject, limit, DURATION);
    let token_limit = |limit| StartRequest { token_limit: StreamLimit::new(limit), ..default_limit(2) };
    let mut fixture = Fixture::new().await;
    for items in counter_and_own_lease_combinations() {
        for request in [default_limit(2), default_limit(0), token_limit(3), token_limit(0)] {
            let user = fixture.insert(&items).await;
            let actions = expressions::optimistic_start(TABLE, &user, &request, timestamp(NOW)).unwrap();
            fixture.transact(&user, &items, actions, &protocol::optimistic_start(OWN, &request, NOW)).await;
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn stop_matches_the_model() {
    let mut fixture = Fixture::new().await;
    for items in counter_and_own_lease_combinations() {
        let user = fixture.insert(&items).await;
        let actions = expressions::stop(TABLE, &user, stream_id(OWN)).unwrap();
        fixture.transact(&user, &items, actions, &protocol::stop(OWN)).await;
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn pruning_matches_the_model() {
    let mut fixture = Fixture::new().await;
    for leases in combinations(&[OWN, DEAD]) {
        let items = Items { counter: CounterItem::default(), leases };
        let user = fixture.insert(&items).await;
        let actions = expressions::prune(TABLE, &user, &[stream_id(OWN), stream_id(DEAD)]).unwrap();
        let writes: Vec<Write> = protocol::prune([OWN, DEAD]).collect();
        fixture.transact(&user, &items, actions, &writes).await;
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn heartbeat_matches_the_model_for_every_lease() {
    let mut fixture = Fixture::new().await;
    let new = NOW + DURATION;
    let expiries = [NOW - 1, NOW, NOW + 1, new - 1, new, new + 1];
    let stored = expiries.into_iter().flat_map(|expires_at| [lease(expires_at), ended(expires_at)]);
    for stored in stored.chain([None]) {
        for new_content in [None, Some(7)] {
            let mut items = Items::default();
            items.leases[OWN as usize] = stored;
            let write = protocol::heartbeat(OWN, new_content, NOW, DURATION);
            let renewed = write.condition_holds(&items);
            let user = fixture.insert(&items).await;
            let request = HeartbeatRequest {
                stream_id: stream_id(OWN),
                content_id: new_content.and_then(content),
                terms: TERMS,
            };
            let response = fixture.store.heartbeat(&user, &request, timestamp(NOW)).await.unwrap();
            let after = fixture.assert_matches(&user, &items, renewed, &[write]).await;
            let after = after.leases[OWN as usize].map(|lease| lease.to_lease(OWN, DURATION));
            match (&response.state, after) {
                (StreamState::NotFound, None) => {}
                (StreamState::Inactive(lease), Some(after)) => {
                    assert!(!after.is_live_at(timestamp(NOW)) && *lease == after, "{lease:?}");
                }
                (StreamState::Live(lease), Some(after)) => {
                    assert!(after.is_live_at(timestamp(NOW)) && *lease == after, "{lease:?}");
                }
                (state, after) => panic!("{state:?} for {after:?}"),
            }
            let previous_expiry = stored.filter(|_| renewed).map(|lease| timestamp(lease.expires_at));
            assert_eq!(response.previous_expiry, previous_expiry, "set only if the lease was renewed");
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn set_limit_matches_the_model_for_every_counter() {
    let mut fixture = Fixture::new().await;
    for counter in counters(&[0, bit(OWN)]) {
        for limit in [None, Some(0), Some(2)] {
            let items = Items { counter, ..Items::default() };
            let user = fixture.insert(&items).await;
            fixture.store.set_limit(&user, limit.map(protocol::limit)).await.unwrap();
            let write = Write::SetLimit { limit };
            fixture.assert_matches(&user, &items, write.condition_holds(&items), &[write]).await;
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn tombstone_matches_the_model_for_every_counter() {
    let mut fixture = Fixture::new().await;
    let all = counters(&[0, bit(OWN), bit(OWN) | bit(DEAD)]);
    for read in &all {
        for counter in all.iter().copied() {
            fixture.bury(read, &Items { counter, ..Items::default() }).await;
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn erasure_leaves_only_a_tombstone_of_every_user() {
    let mut fixture = Fixture::new().await;
    for items in partitions() {
        let user = fixture.insert(&items).await;
        let mut expected: Vec<Id> = ids(items.counter.members).collect();
        expected.retain(|id| items.leases[*id as usize].is_some_and(|lease| lease.expires_at > NOW));
        let expected: Vec<StreamId> = expected.into_iter().map(stream_id).collect();
        let request = EndRequest { selection: Selection::Erase, message: None, terms: TERMS };
        let ended = fixture.store.end(&user, &request, timestamp(NOW)).await.unwrap();
        fixture.store.purge(&user, timestamp(NOW)).await.unwrap();
        assert_eq!(ended.ids(), expected, "{items:?}");
        let Items { counter, leases } = fixture.stored(&user).await;
        assert_eq!(leases, [None; STREAMS], "{items:?}");
        let revision = counter.revision;
        let tombstone = CounterItem { is_stored: true, has_ttl: true, revision, ..CounterItem::default() };
        assert_eq!(counter, if items.counter.is_stored { tombstone } else { CounterItem::default() }, "{items:?}");
        assert!(revision >= items.counter.revision.map(|revision| revision + REVISION_STEP), "{items:?}");
    }
}

/// A counter that has not changed since a request read it.
fn unchanged_counter(members: IdSet) -> CounterItem {
    CounterItem { is_stored: true, members, revision: Some(READ_REVISION), ..CounterItem::default() }
}

/// Whether a change has either all kinds of lease actions or none. The tests that use every counter skip other changes,
/// because the tests that use every lease combination cover them.
fn writes_all_or_no_leases(change: &MembershipChange) -> bool {
    [change.dead.len(), change.pruned.len()] == [change.ended.len(); 2]
}

/// Every kind of guard: with or without a revision, and with or without a stored limit.
fn guards() -> Vec<Guard> {
    let mut guards = Vec::new();
    for revision in [None, Some(u64::from(READ_REVISION))] {
        guards.extend(
            [None, Some(0), Some(2)]
                .map(|limit: Option<u8>| Guard { revision, stored_limit: limit.map(protocol::limit) }),
        );
    }
    guards
}

fn leases_to_end(ends: bool) -> [Option<protocol::LeaseItem>; STREAMS] {
    let mut leases = [None; STREAMS];
    if ends {
        leases[ENDED as usize] = lease(12);
    }
    leases
}
