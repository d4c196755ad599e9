//! The expressions that the DynamoDB store renders mean what the model takes them to mean: for every kind of write and
//! every combination of stored items, the embedded engine does what `protocol.rs` says.

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
    self, CounterItem, End, IDS, Id, Ids, Items, LeaseItem, RETENTION_S, Tick, Write, bit, instant, lease_item,
    stream_id,
};

const TABLE: &str = "expressions";
const NOW: Tick = 10;
const DURATION: Tick = 5;
const TERMS: LeaseTerms = LeaseTerms { duration_s: DURATION as u32, retention_s: RETENTION_S };
/// The revision that a start has seen.
const SEEN: u8 = 4;
const OWN: Id = 0;
const DEAD: Id = 1;
const ENDED: Id = 2;
const FORGOTTEN: Id = 3;

/// An engine, and what it was asked.
struct Bench {
    client: Client,
    store: DynamoStore,
    cases: u32,
    applied: u32,
}

#[tokio::test]
async fn a_commit_does_to_every_combination_of_leases_what_the_model_says() {
    let mut bench = Bench::new().await;
    for commit in commits(Guard { revision: Some(SEEN.into()), own_limit: None }) {
        let touched = touched(&commit);
        for leases in combinations(&touched) {
            for revision in [SEEN, SEEN + 1] {
                let counter = CounterItem { streams: 0b0110, revision: Some(revision), stream_limit: None };
                bench.commit(&Items { counter, leases }, &commit).await;
            }
        }
    }
    bench.must_have_applied_and_refused();
}

#[tokio::test]
async fn a_commit_does_to_every_counter_what_the_model_says() {
    let mut bench = Bench::new().await;
    for revision in [None, Some(u64::from(SEEN))] {
        for own_limit in [None, StreamLimit::new(2)] {
            for commit in commits(Guard { revision, own_limit }) {
                let mut leases = [None; IDS];
                touched(&commit).into_iter().filter(|id| *id == ENDED).for_each(|id| leases[id as usize] = lease(12));
                for counter in counters(&[0, 0b0110]) {
                    bench.commit(&Items { counter, leases }, &commit).await;
                }
            }
        }
    }
    bench.must_have_applied_and_refused();
}

#[tokio::test]
async fn plain_starts_stops_evictions_and_what_those_forget_do_what_the_model_says() {
    let mut bench = Bench::new().await;
    let request = protocol::request(OWN, Some(1), &[], AtLimit::Reject, 2, DURATION);
    for counter in counters(&[0, bit(OWN), bit(DEAD), bit(DEAD) | bit(ENDED), 0b1110]) {
        for leases in combinations(&[OWN]) {
            let items = Items { counter, leases };
            let (user, now) = (bench.plant(&items).await, instant(NOW));
            let rendered = expressions::optimistic_start(TABLE, &user, &request, now).expect("it renders");
            bench.run(&user, &items, rendered, &protocol::optimistic_start(OWN, &request, NOW)).await;

            let user = bench.plant(&items).await;
            let by_token = StartRequest { token_limit: StreamLimit::new(3), ..request.clone() };
            let rendered = expressions::optimistic_start(TABLE, &user, &by_token, now).expect("it renders");
            bench.run(&user, &items, rendered, &protocol::optimistic_start(OWN, &by_token, NOW)).await;

            let user = bench.plant(&items).await;
            let rendered = expressions::stop(TABLE, &user, stream_id(OWN)).expect("it renders");
            bench.run(&user, &items, rendered, &protocol::stop(OWN)).await;

            let user = bench.plant(&items).await;
            let rendered = expressions::evict(TABLE, &user, stream_id(OWN), TERMS, now).expect("it renders");
            bench.run(&user, &items, rendered, &protocol::evict(OWN)).await;

            let user = bench.plant(&items).await;
            let rendered = expressions::forget(TABLE, &user, &[stream_id(OWN)]).expect("it renders");
            bench.run(&user, &items, rendered, &[Write::Forget { id: OWN }]).await;
        }
    }
    bench.must_have_applied_and_refused();
}

#[tokio::test]
async fn a_heartbeat_does_to_every_lease_what_the_model_says() {
    let mut bench = Bench::new().await;
    let (new, write) = (NOW + DURATION, protocol::heartbeat(OWN, NOW, DURATION));
    let expiries = [NOW - 1, NOW, NOW + 1, new - 1, new, new + 1];
    let stored = expiries.into_iter().flat_map(|expires_at| [lease(expires_at), ended(expires_at)]);
    for stored in stored.chain([None]) {
        let mut items = Items::default();
        items.leases[OWN as usize] = stored;
        let user = bench.plant(&items).await;
        let renewed = bench.renew(&user).await;
        bench.holds(&user, &items, renewed, &[write]).await;

        let user = bench.plant(&items).await;
        let answer = bench.store.heartbeat(&user, stream_id(OWN), TERMS, instant(NOW)).await.expect("an answer");
        let right = match (&answer.state, stored) {
            (StreamState::NotFound, stored) => stored.is_none(),
            (StreamState::Inactive(_), stored) => {
                stored.is_some_and(|lease| lease.ended.is_some() || lease.expires_at <= NOW)
            }
            (StreamState::Live(lease), Some(stored)) => lease.expires_at == instant(stored.expires_at.max(new)),
            (StreamState::Live(_), None) => false,
        };
        assert!(right, "{answer:?} for {stored:?}");
        let previous_expiry = stored.filter(|_| renewed).map(|lease| instant(lease.expires_at));
        assert_eq!(answer.previous_expiry, previous_expiry, "of what was renewed, and of nothing else");
        bench.holds(&user, &items, renewed, &[write]).await;
    }
    bench.must_have_applied_and_refused();
}

#[tokio::test]
async fn a_limit_is_set_and_removed_as_the_model_says() {
    let mut bench = Bench::new().await;
    for counter in counters(&[0, bit(OWN)]) {
        for limit in [None, Some(2)] {
            let items = Items { counter, ..Items::default() };
            let user = bench.plant(&items).await;
            let own_limit = limit.and_then(|limit: u8| StreamLimit::new(limit.into()));
            bench.store.set_limit(&user, own_limit).await.expect("it is set");
            let write = Write::SetLimit { limit };
            bench.holds(&user, &items, write.holds(&items), &[write]).await;
        }
    }
    bench.must_have_applied_and_refused();
}

impl Bench {
    async fn new() -> Self {
        let engine = Embedded::in_memory(Arc::new(ManualClock::default())).expect("an engine");
        let settings = ClientSettings {
            endpoint_url: None,
            region: None,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(20),
            max_attempts: 1,
        };
        let client = client::in_process(&settings, engine.http_client());
        migrate::migrate(&client, TABLE).await.expect("a table");
        let store = DynamoStore::new(client.clone(), TABLE);
        Self { client, store, cases: 0, applied: 0 }
    }

    /// The store's own expressions. Whether the condition held.
    async fn renew(&self, user: &UserName) -> bool {
        let expires_at = TERMS.expires_at(instant(NOW));
        let values = [
            (":now", codec::instant(instant(NOW))),
            (":new", codec::instant(expires_at)),
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
                let refused =
                    error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception());
                assert!(refused, "{error:?}");
                false
            }
        }
    }

    async fn commit(&mut self, items: &Items, commit: &Commit) {
        let user = self.plant(items).await;
        let rendered = expressions::commit(TABLE, &user, commit).expect("it renders");
        self.run(&user, items, rendered, &protocol::commit(commit)).await;
    }

    /// Stores the items for a user whom no other case has.
    async fn plant(&mut self, items: &Items) -> UserName {
        self.cases += 1;
        let user = UserName::parse(&format!("user-{}", self.cases)).expect("a name");
        let mut stored = Vec::new();
        let CounterItem { streams, revision, stream_limit } = items.counter;
        let mut counter = codec::counter_key(&user);
        if streams != 0 {
            let ids: Vec<_> = protocol::ids(streams).map(stream_id).collect();
            counter.insert(codec::STREAMS.to_owned(), codec::ids(&ids));
        }
        for (name, value) in [(codec::REVISION, revision), (codec::STREAM_LIMIT, stream_limit)] {
            counter.extend(value.map(|value| (name.to_owned(), codec::number(value))));
        }
        if items.counter != CounterItem::default() {
            stored.push(counter);
        }
        let leases = items.leases.iter().enumerate().filter_map(|(id, lease)| Some((id as Id, (*lease)?)));
        stored.extend(leases.map(|(id, lease)| codec::encode_lease(&user, &lease.lease(id, DURATION))));
        let puts = stored.into_iter().map(|item| {
            let put = Put::builder().table_name(TABLE).set_item(Some(item)).build().expect("a put");
            TransactWriteItem::builder().put(put).build()
        });
        let puts: Vec<_> = puts.collect();
        if !puts.is_empty() {
            self.client.transact_write_items().set_transact_items(Some(puts)).send().await.expect("planted");
        }
        user
    }

    async fn run(&mut self, user: &UserName, before: &Items, rendered: Vec<TransactWriteItem>, meant: &[Write]) {
        let outcome = self.client.transact_write_items().set_transact_items(Some(rendered)).send().await;
        if let Err(error) = &outcome {
            let cancelled = error.as_service_error().is_some_and(|error| error.is_transaction_canceled_exception());
            assert!(cancelled, "{error:?}");
        }
        self.holds(user, before, outcome.is_ok(), meant).await;
    }

    /// Whether the engine applied what the model would, and to the same end.
    async fn holds(&mut self, user: &UserName, before: &Items, applied: bool, meant: &[Write]) {
        let holds = meant.iter().all(|write| write.holds(before));
        assert_eq!(applied, holds, "{meant:?} on {before:?}");
        let mut after = *before;
        if holds {
            meant.iter().for_each(|write| write.apply(&mut after));
            self.applied += 1;
        }
        assert_eq!(self.stored(user).await, after, "{meant:?} on {before:?}");
    }

    async fn stored(&self, user: &UserName) -> Items {
        let query = self.client.query().table_name(TABLE).key_condition_expression("userName = :user");
        let query = query.expression_attribute_values(":user", codec::text(user.as_str())).send().await;
        let stored = query.expect("a query").items.unwrap_or_default();
        let partition = codec::decode_partition(&stored).expect("items as the service writes them");
        let mut leases = [None; IDS];
        for lease in &partition.leases {
            let in_time = lease.termination.is_some() || lease.ttl_s == TERMS.ttl_s(lease.expires_at);
            assert!(in_time, "TTL does not go by the expiry: {lease:?}");
            leases[protocol::id_of(lease.stream_id) as usize] = Some(lease_item(lease));
        }
        let streams = partition.counter.streams.iter().fold(0, |all, id| all | bit(protocol::id_of(*id)));
        let revision = partition.counter.revision.map(|revision| revision as u8);
        let stream_limit = partition.counter.stream_limit.map(StreamLimit::get);
        Items { counter: CounterItem { streams, revision, stream_limit }, leases }
    }

    fn must_have_applied_and_refused(&self) {
        assert!(self.applied > 0 && self.applied < self.cases, "{} of {}", self.applied, self.cases);
    }
}

/// Every kind of commit: with and without dead, evicted or replaced, and forgotten leases.
fn commits(guard: Guard) -> Vec<Commit> {
    let mut commits = Vec::new();
    for dead in [vec![], vec![stream_id(DEAD)]] {
        for reason in [None, Some(EndReason::Evicted), Some(EndReason::Replaced)] {
            for pruned in [vec![], vec![stream_id(FORGOTTEN)]] {
                let ended_by = Some(EndedBy { stream_id: stream_id(OWN), device_name: None });
                let ended = reason.map(|reason| EndedLease {
                    stream_id: stream_id(ENDED),
                    termination: Termination { reason, ended_by },
                    ttl_s: i64::from(RETENTION_S),
                });
                let request = protocol::request(OWN, Some(1), &[], AtLimit::Reject, 2, DURATION);
                commits.push(Commit {
                    now: instant(NOW),
                    guard,
                    limit: StreamLimit::DEFAULT,
                    members: [stream_id(OWN)].into(),
                    dead: dead.clone(),
                    ended: ended.into_iter().collect(),
                    pruned,
                    lease: request.lease(instant(NOW)),
                });
            }
        }
    }
    commits
}

fn touched(commit: &Commit) -> Vec<Id> {
    let ended = commit.ended.iter().map(|ended| ended.stream_id);
    let others = commit.dead.iter().copied().chain(ended).chain(commit.pruned.iter().copied());
    others.map(protocol::id_of).chain([OWN]).collect()
}

/// Every combination of states that these leases can be in.
fn combinations(touched: &[Id]) -> Vec<[Option<LeaseItem>; IDS]> {
    let states = [None, lease(NOW + 2), lease(NOW), lease(NOW - 2), ended(NOW + 2), ended(NOW - 2)];
    touched.iter().fold(vec![[None; IDS]], |all, id| {
        let with = |leases: [Option<LeaseItem>; IDS]| {
            states.map(|state| {
                let mut leases = leases;
                leases[*id as usize] = state;
                leases
            })
        };
        all.into_iter().flat_map(with).collect()
    })
}

fn counters(streams: &[Ids]) -> Vec<CounterItem> {
    let mut counters = Vec::new();
    for streams in streams.iter().copied() {
        for revision in [None, Some(SEEN), Some(SEEN + 1)] {
            for stream_limit in [None, Some(2), Some(3)] {
                counters.push(CounterItem { streams, revision, stream_limit });
            }
        }
    }
    counters
}

fn lease(expires_at: Tick) -> Option<LeaseItem> {
    Some(LeaseItem { started_at: NOW - 5, expires_at, device: None, ended: None })
}

fn ended(expires_at: Tick) -> Option<LeaseItem> {
    let end = End { replaced: true, by: Some(DEAD) };
    lease(expires_at).map(|lease| LeaseItem { ended: Some(end), ..lease })
}
