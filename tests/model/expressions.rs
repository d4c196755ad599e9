//! Tests that the DynamoDB expressions match the model. For every kind of write and every combination of stored items,
//! the embedded engine and `protocol.rs` must end in the same state.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use stream_manager::clock::ManualClock;
use stream_manager::domain::admission::{AtLimit, Commit, EndedLease, Guard, StartRequest};
use stream_manager::domain::lease::{EndReason, EndedBy, LeaseTerms, StreamLimit, Termination};
use stream_manager::domain::names::UserName;
use stream_manager::migrate;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::store::dynamodb::{DynamoStore, codec, expressions};
use stream_manager::store::embedded::Embedded;
use stream_manager::store::{LeaseStore, StreamState};

use crate::protocol::{
    self, CounterItem, Id, IdSet, Items, LeaseItem, RETENTION_S, STREAMS, TerminationMark, Tick, Write, bit,
    lease_item, stream_id, timestamp,
};

const TABLE: &str = "expressions";
const NOW: Tick = 10;
const DURATION: Tick = 5;
const TERMS: LeaseTerms = LeaseTerms { duration_s: DURATION as u32, retention_s: RETENTION_S };
/// The revision that a start has read.
const READ_REVISION: u8 = 4;
const OWN: Id = 0;
const DEAD: Id = 1;
const ENDED: Id = 2;
const PRUNED: Id = 3;

/// An embedded engine, and the number of test cases that ran on it. Every case has a new user.
struct Fixture {
    client: Client,
    store: DynamoStore,
    cases: u32,
    applied: u32,
}

#[tokio::test]
async fn commit_matches_the_model_for_every_lease_combination() {
    let mut fixture = Fixture::new().await;
    for commit in commits(Guard { revision: Some(READ_REVISION.into()), stored_limit: None }) {
        for leases in combinations(&written_ids(&commit)) {
            for revision in [READ_REVISION, READ_REVISION + 1] {
                let counter = CounterItem { members: 0b0110, revision: Some(revision), stream_limit: None };
                fixture.commit(&Items { counter, leases }, &commit).await;
            }
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn commit_matches_the_model_for_every_counter() {
    let mut fixture = Fixture::new().await;
    for revision in [None, Some(u64::from(READ_REVISION))] {
        for stored_limit in [None, StreamLimit::new(2)] {
            for commit in commits(Guard { revision, stored_limit }) {
                let mut leases = [None; STREAMS];
                if written_ids(&commit).contains(&ENDED) {
                    leases[ENDED as usize] = lease(12);
                }
                for counter in counters(&[0, 0b0110]) {
                    fixture.commit(&Items { counter, leases }, &commit).await;
                }
            }
        }
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn optimistic_start_matches_the_model() {
    let request = protocol::request(OWN, Some(1), &[], AtLimit::Reject, 2, DURATION);
    let with_token_limit = StartRequest { token_limit: StreamLimit::new(3), ..request.clone() };
    let mut fixture = Fixture::new().await;
    for items in counter_and_own_lease_combinations() {
        for request in [&request, &with_token_limit] {
            let user = fixture.insert(&items).await;
            let actions = expressions::optimistic_start(TABLE, &user, request, timestamp(NOW)).unwrap();
            fixture.transact(&user, &items, actions, &protocol::optimistic_start(OWN, request, NOW)).await;
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
async fn eviction_matches_the_model() {
    let mut fixture = Fixture::new().await;
    for items in counter_and_own_lease_combinations() {
        let user = fixture.insert(&items).await;
        let actions = expressions::evict(TABLE, &user, stream_id(OWN), TERMS, timestamp(NOW)).unwrap();
        fixture.transact(&user, &items, actions, &protocol::evict(OWN)).await;
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn pruning_matches_the_model() {
    let mut fixture = Fixture::new().await;
    for items in counter_and_own_lease_combinations() {
        let user = fixture.insert(&items).await;
        let actions = expressions::prune(TABLE, &user, &[stream_id(OWN)]).unwrap();
        fixture.transact(&user, &items, actions, &[Write::Prune { id: OWN }]).await;
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn heartbeat_matches_the_model_for_every_lease() {
    let mut fixture = Fixture::new().await;
    let (new, write) = (NOW + DURATION, protocol::heartbeat(OWN, NOW, DURATION));
    let expiries = [NOW - 1, NOW, NOW + 1, new - 1, new, new + 1];
    let stored = expiries.into_iter().flat_map(|expires_at| [lease(expires_at), ended(expires_at)]);
    for stored in stored.chain([None]) {
        let mut items = Items::default();
        items.leases[OWN as usize] = stored;
        let user = fixture.insert(&items).await;
        let renewed = fixture.renew(&user).await;
        fixture.assert_matches(&user, &items, renewed, &[write]).await;

        let user = fixture.insert(&items).await;
        let response = fixture.store.heartbeat(&user, stream_id(OWN), TERMS, timestamp(NOW)).await.unwrap();
        let correct = match (&response.state, stored) {
            (StreamState::NotFound, stored) => stored.is_none(),
            (StreamState::Inactive(_), stored) => {
                stored.is_some_and(|lease| lease.termination.is_some() || lease.expires_at <= NOW)
            }
            (StreamState::Live(lease), Some(stored)) => lease.expires_at == timestamp(stored.expires_at.max(new)),
            (StreamState::Live(_), None) => false,
        };
        assert!(correct, "{response:?} for {stored:?}");
        let previous_expiry = stored.filter(|_| renewed).map(|lease| timestamp(lease.expires_at));
        assert_eq!(response.previous_expiry, previous_expiry, "set only if the lease was renewed");
        fixture.assert_matches(&user, &items, renewed, &[write]).await;
    }
    fixture.assert_covers_both_outcomes();
}

#[tokio::test]
async fn set_limit_matches_the_model_for_every_counter() {
    let mut fixture = Fixture::new().await;
    for counter in counters(&[0, bit(OWN)]) {
        for limit in [None, Some(2)] {
            let items = Items { counter, ..Items::default() };
            let user = fixture.insert(&items).await;
            let stored_limit = limit.and_then(|limit: u8| StreamLimit::new(limit.into()));
            fixture.store.set_limit(&user, stored_limit).await.unwrap();
            let write = Write::SetLimit { limit };
            fixture.assert_matches(&user, &items, write.condition_holds(&items), &[write]).await;
        }
    }
    fixture.assert_covers_both_outcomes();
}

impl Fixture {
    async fn new() -> Self {
        let engine = Embedded::in_memory(Arc::new(ManualClock::default())).unwrap();
        let settings = ClientSettings {
            endpoint_url: None,
            region: None,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(20),
            max_attempts: 1,
        };
        let client = client::in_process(&settings, engine.http_client());
        migrate::migrate(&client, TABLE).await.unwrap();
        let store = DynamoStore::new(client.clone(), TABLE);
        Self { client, store, cases: 0, applied: 0 }
    }

    /// Inserts the items for a new user.
    async fn insert(&mut self, items: &Items) -> UserName {
        self.cases += 1;
        let user = UserName::parse(&format!("user-{}", self.cases)).unwrap();
        let mut stored = Vec::new();
        let CounterItem { members, revision, stream_limit } = items.counter;
        let mut counter = codec::counter_key(&user);
        if members != 0 {
            let ids: Vec<_> = protocol::ids(members).map(stream_id).collect();
            counter.insert(codec::STREAMS.to_owned(), codec::ids(&ids));
        }
        for (name, value) in [(codec::REVISION, revision), (codec::STREAM_LIMIT, stream_limit)] {
            counter.extend(value.map(|value| (name.to_owned(), codec::number(value))));
        }
        if items.counter != CounterItem::default() {
            stored.push(counter);
        }
        let leases = items.leases.iter().enumerate().filter_map(|(id, lease)| Some((id as Id, (*lease)?)));
        stored.extend(leases.map(|(id, lease)| codec::encode_lease(&user, &lease.to_lease(id, DURATION))));
        let puts = stored.into_iter().map(|item| {
            let put = Put::builder().table_name(TABLE).set_item(Some(item)).build().unwrap();
            TransactWriteItem::builder().put(put).build()
        });
        let puts: Vec<_> = puts.collect();
        if !puts.is_empty() {
            self.client.transact_write_items().set_transact_items(Some(puts)).send().await.unwrap();
        }
        user
    }

    async fn commit(&mut self, items: &Items, commit: &Commit) {
        let user = self.insert(items).await;
        let actions = expressions::commit(TABLE, &user, commit).unwrap();
        self.transact(&user, items, actions, &protocol::commit(commit)).await;
    }

    async fn transact(
        &mut self,
        user: &UserName,
        before: &Items,
        actions: Vec<TransactWriteItem>,
        expected: &[Write],
    ) {
        let outcome = self.client.transact_write_items().set_transact_items(Some(actions)).send().await;
        if let Err(error) = &outcome {
            let cancelled = error.as_service_error().is_some_and(|error| error.is_transaction_canceled_exception());
            assert!(cancelled, "{error:?}");
        }
        self.assert_matches(user, before, outcome.is_ok(), expected).await;
    }

    /// Sends the store's heartbeat expressions. Returns whether the condition held.
    async fn renew(&self, user: &UserName) -> bool {
        let expires_at = TERMS.expires_at(timestamp(NOW));
        let values = [
            (":now", codec::timestamp(timestamp(NOW))),
            (":new", codec::timestamp(expires_at)),
            (":ttl", codec::number(TERMS.ttl_s(expires_at))),
        ];
        let expressions = [expressions::HEARTBEAT_UPDATE, expressions::HEARTBEAT_CONDITION];
        let update =
            self.client.update_item().table_name(TABLE).set_key(Some(codec::lease_key(user, stream_id(OWN))));
        let update = update.update_expression(expressions[0]).condition_expression(expressions[1]);
        let update = update.set_expression_attribute_names(expressions::names(expressions));
        match update.set_expression_attribute_values(expressions::values(values)).send().await {
            Ok(_) => true,
            Err(error) => {
                let condition_failed =
                    error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception());
                assert!(condition_failed, "{error:?}");
                false
            }
        }
    }

    /// Asserts that the engine applied the writes if and only if the model applies them, and that both end in the same
    /// state.
    async fn assert_matches(&mut self, user: &UserName, before: &Items, applied: bool, expected: &[Write]) {
        let holds = expected.iter().all(|write| write.condition_holds(before));
        assert_eq!(applied, holds, "{expected:?} on {before:?}");
        let mut after = *before;
        if holds {
            expected.iter().for_each(|write| write.apply(&mut after));
            self.applied += 1;
        }
        assert_eq!(self.stored(user).await, after, "{expected:?} on {before:?}");
    }

    async fn stored(&self, user: &UserName) -> Items {
        let query = self.client.query().table_name(TABLE).key_condition_expression("userName = :user");
        let query = query.expression_attribute_values(":user", codec::text(user.as_str())).send().await;
        let stored = query.unwrap().items.unwrap_or_default();
        let partition = codec::decode_partition(&stored).unwrap();
        let mut leases = [None; STREAMS];
        for lease in &partition.leases {
            let ttl_matches = lease.termination.is_some() || lease.ttl_s == TERMS.ttl_s(lease.expires_at);
            assert!(ttl_matches, "wrong TTL for the expiry: {lease:?}");
            leases[protocol::id_of(lease.stream_id) as usize] = Some(lease_item(lease));
        }
        let members = partition.counter.streams.iter().fold(0, |all, id| all | bit(protocol::id_of(*id)));
        let revision = partition.counter.revision.map(|revision| revision as u8);
        let stream_limit = partition.counter.stream_limit.map(StreamLimit::get);
        Items { counter: CounterItem { members, revision, stream_limit }, leases }
    }

    fn assert_covers_both_outcomes(&self) {
        assert!(self.applied > 0 && self.applied < self.cases, "{} of {} applied", self.applied, self.cases);
    }
}

/// Every kind of commit: with and without dead, ended and pruned leases.
fn commits(guard: Guard) -> Vec<Commit> {
    let mut commits = Vec::new();
    for dead in [vec![], vec![stream_id(DEAD)]] {
        for reason in [None, Some(EndReason::Evicted), Some(EndReason::Replaced)] {
            for pruned in [vec![], vec![stream_id(PRUNED)]] {
                let ended_by = Some(EndedBy { stream_id: stream_id(OWN), device_name: None });
                let ended = reason.map(|reason| EndedLease {
                    stream_id: stream_id(ENDED),
                    termination: Termination { reason, ended_by },
                    ttl_s: i64::from(RETENTION_S),
                });
                let request = protocol::request(OWN, Some(1), &[], AtLimit::Reject, 2, DURATION);
                commits.push(Commit {
                    now: timestamp(NOW),
                    guard,
                    limit: StreamLimit::DEFAULT,
                    members: [stream_id(OWN)].into(),
                    dead: dead.clone(),
                    ended: ended.into_iter().collect(),
                    pruned,
                    lease: request.lease(timestamp(NOW)),
                });
            }
        }
    }
    commits
}

/// The streams whose leases the commit writes.
fn written_ids(commit: &Commit) -> Vec<Id> {
    let ended = commit.ended.iter().map(|ended| ended.stream_id);
    let others = commit.dead.iter().copied().chain(ended).chain(commit.pruned.iter().copied());
    others.map(protocol::id_of).chain([OWN]).collect()
}

/// Every combination of states of these leases: missing, live, expired or ended.
fn combinations(ids: &[Id]) -> Vec<[Option<LeaseItem>; STREAMS]> {
    let states = [None, lease(NOW + 2), lease(NOW), lease(NOW - 2), ended(NOW + 2), ended(NOW - 2)];
    ids.iter().fold(vec![[None; STREAMS]], |all, id| {
        let with = |leases: [Option<LeaseItem>; STREAMS]| {
            states.map(|state| {
                let mut leases = leases;
                leases[*id as usize] = state;
                leases
            })
        };
        all.into_iter().flat_map(with).collect()
    })
}

fn counters(members: &[IdSet]) -> Vec<CounterItem> {
    let mut counters = Vec::new();
    for members in members.iter().copied() {
        for revision in [None, Some(READ_REVISION), Some(READ_REVISION + 1)] {
            for stream_limit in [None, Some(2), Some(3)] {
                counters.push(CounterItem { members, revision, stream_limit });
            }
        }
    }
    counters
}

fn counter_and_own_lease_combinations() -> Vec<Items> {
    let counters = counters(&[0, bit(OWN), bit(DEAD), bit(DEAD) | bit(ENDED), 0b1110]);
    let with_leases =
        |counter| combinations(&[OWN]).into_iter().map(move |leases| Items { counter, leases }).collect::<Vec<_>>();
    counters.into_iter().flat_map(with_leases).collect()
}

fn lease(expires_at: Tick) -> Option<LeaseItem> {
    Some(LeaseItem { started_at: NOW - 5, expires_at, device: None, termination: None })
}

fn ended(expires_at: Tick) -> Option<LeaseItem> {
    let mark = TerminationMark { replaced: true, by: Some(DEAD) };
    lease(expires_at).map(|lease| LeaseItem { termination: Some(mark), ..lease })
}
