//! Applies the writes of a test to an embedded engine, and compares the result with the model.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use stream_manager::clock::ManualClock;
use stream_manager::domain::admission::Commit;
use stream_manager::domain::admission::end::EndCommit;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::UserName;
use stream_manager::migrate;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::store::dynamodb::codec::Counter;
use stream_manager::store::dynamodb::expressions::{self, TOMBSTONE_REVISION_STEP};
use stream_manager::store::dynamodb::{DynamoStore, codec};
use stream_manager::store::embedded::Embedded;

use super::cases::{DURATION, TERMS};
use crate::protocol::{
    self, CounterItem, Id, Items, REVISION_STEP, Revision, STREAMS, Write, bit, lease_item, stream_id,
};

pub const TABLE: &str = "expressions";

/// An embedded engine, and the number of test cases that ran on it. Every case has a new user.
pub struct Fixture {
    client: Client,
    pub store: DynamoStore,
    cases: u32,
    applied: u32,
}

impl Fixture {
    pub async fn new() -> Self {
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
    pub async fn insert(&mut self, items: &Items) -> UserName {
        self.cases += 1;
        let user = UserName::parse(&format!("user-{}", self.cases)).unwrap();
        let mut stored = Vec::new();
        let CounterItem { is_stored, members, revision, stream_limit, has_ttl } = items.counter;
        let mut counter = codec::counter_key(&user);
        if members != 0 {
            let ids: Vec<_> = protocol::ids(members).map(stream_id).collect();
            counter.insert(codec::STREAMS.to_owned(), codec::ids(&ids));
        }
        let numbers = [
            (codec::REVISION, revision.map(codec::number)),
            (codec::STREAM_LIMIT, stream_limit.map(codec::number)),
            (codec::TTL, has_ttl.then(|| codec::number(RETENTION_END_S))),
        ];
        counter.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        stored.extend(is_stored.then_some(counter));
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

    pub async fn commit(&mut self, items: &Items, commit: &Commit) {
        let user = self.insert(items).await;
        let actions = expressions::commit(TABLE, &user, commit).unwrap();
        self.transact(&user, items, actions, &protocol::commit(commit)).await;
    }

    pub async fn end(&mut self, items: &Items, commit: &EndCommit) {
        let user = self.insert(items).await;
        let actions = expressions::end(TABLE, &user, commit).unwrap();
        self.transact(&user, items, actions, &protocol::end(commit)).await;
    }

    pub async fn transact(
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

    /// Applies the last step of an erasure that has read the counter `read`.
    pub async fn bury(&mut self, read: &CounterItem, items: &Items) {
        let user = self.insert(items).await;
        let counter = Counter {
            is_stored: read.is_stored,
            streams: protocol::ids(read.members).map(stream_id).collect(),
            revision: read.revision.map(u64::from),
            stream_limit: read.stream_limit.map(protocol::limit),
        };
        let update = expressions::bury(TABLE, &user, &counter, RETENTION_END_S.into()).unwrap();
        let expected = protocol::bury(read);
        assert_eq!(update.is_some(), expected.is_some(), "{read:?}");
        if let (Some(update), Some(expected)) = (update, expected) {
            let actions = vec![TransactWriteItem::builder().update(update).build()];
            self.transact(&user, items, actions, &[expected]).await;
        }
    }

    /// Asserts that the engine applied the writes if and only if the model applies them, and that both end in the same
    /// state. Returns this state.
    pub async fn assert_matches(
        &mut self,
        user: &UserName,
        before: &Items,
        applied: bool,
        expected: &[Write],
    ) -> Items {
        let holds = expected.iter().all(|write| write.condition_holds(before));
        assert_eq!(applied, holds, "{expected:?} on {before:?}");
        let mut after = *before;
        if holds {
            expected.iter().for_each(|write| write.apply(&mut after));
            self.applied += 1;
        }
        assert_eq!(self.stored(user).await, after, "{expected:?} on {before:?}");
        after
    }

    pub async fn stored(&self, user: &UserName) -> Items {
        let query = self.client.query().table_name(TABLE).key_condition_expression("userName = :user");
        let query = query.expression_attribute_values(":user", codec::text(user.as_str())).send().await;
        let stored = query.unwrap().items.unwrap_or_default();
        let counter = stored.iter().find(|item| item[codec::RECORD] == codec::counter_key(user)[codec::RECORD]);
        let partition = codec::decode_partition(&stored).unwrap();
        let mut leases = [None; STREAMS];
        for lease in &partition.leases {
            let ttl_matches = lease.termination.is_some() || lease.ttl_s == TERMS.ttl_s(lease.expires_at);
            assert!(ttl_matches, "wrong TTL for the expiry: {lease:?}");
            leases[protocol::id_of(lease.stream_id) as usize] = Some(lease_item(lease));
        }
        let counter = CounterItem {
            is_stored: counter.is_some(),
            members: partition.counter.streams.iter().fold(0, |all, id| all | bit(protocol::id_of(*id))),
            revision: partition.counter.revision.map(model_revision),
            stream_limit: partition.counter.stream_limit.map(StreamLimit::get),
            has_ttl: counter.is_some_and(|counter| counter.contains_key(codec::TTL)),
        };
        Items { counter, leases }
    }

    pub fn assert_covers_both_outcomes(&self) {
        assert!(self.applied > 0 && self.applied < self.cases, "{} of {} applied", self.applied, self.cases);
    }
}

const RETENTION_END_S: u32 = 5_000;

/// Converts a revision of the service to a revision of the model. In the model, an erasure adds less to the revision.
fn model_revision(revision: u64) -> Revision {
    let steps = (revision / TOMBSTONE_REVISION_STEP) as Revision;
    (revision % TOMBSTONE_REVISION_STEP) as Revision + steps * REVISION_STEP
}
