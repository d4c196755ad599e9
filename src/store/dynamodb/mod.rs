//! The DynamoDB store. Any number of instances can share one table. docs/ARCHITECTURE.md explains the protocol.
//! [`expressions`] builds the writes, and [`codec`] encodes the items.

pub mod client;
pub mod codec;
pub(crate) mod errors;
pub mod expressions;
pub mod live_streams;
pub mod metrics_interceptor;
pub mod trace_interceptor;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};

use self::codec::{Counter, Partition, number, timestamp};
use self::errors::{TransactionError, store_error};
use super::{
    Ended, Heartbeat, HeartbeatRequest, LeaseStore, Refusal, Result, StartHint, Stop, StoreError, StreamState,
    TOMBSTONE_S, UserStreams,
};
use crate::domain::admission::end::{EndRequest, decide_end};
use crate::domain::admission::{Decision, Guard, PriorLease, Snapshot, StartOutcome, StartRequest, Started, decide};
use crate::domain::lease::{Lease, StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};

/// The maximum number of actions in one transaction of DynamoDB.
const MAX_ACTIONS: usize = 100;

/// The maximum number of pages per read. A page is 1 MB, which is more than 1000 leases. Reads of a user with more
/// pages fail.
const MAX_PAGES: usize = 16;

#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    table: String,
}

impl DynamoStore {
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// Starts a stream with one transaction and without a read. Returns `None` if the outcome needs a read.
    async fn optimistic_start(
        &self,
        user: &UserName,
        request: &StartRequest,
        now: Timestamp,
    ) -> Result<Option<StartOutcome>> {
        let error = match self.transact(expressions::optimistic_start(&self.table, user, request, now)?).await {
            Ok(()) => {
                return Ok(Some(StartOutcome::Started(Started {
                    lease: request.lease(now),
                    limit: request.user_limit(None),
                    live_before: None,
                    ended: Vec::new(),
                    reaped: 0,
                    expired: Vec::new(),
                    over_limit: Vec::new(),
                })));
            }
            Err(error) => error,
        };
        // Check the lease before the counter. If the lease condition failed, an earlier attempt of this start was
        // admitted, even if the counter condition failed too.
        if let Some(prior) = error.stored_item(expressions::OPTIMISTIC_LEASE) {
            let prior = codec::decode_lease(prior)?;
            match request.classify(&prior, now) {
                PriorLease::Ended => return Ok(Some(StartOutcome::Ended(prior))),
                PriorLease::KeyReused => return Ok(Some(StartOutcome::KeyReused)),
                // These outcomes contain the limit and the streams that the start ended. Only a read returns both.
                PriorLease::Live | PriorLease::Expired => return Ok(None),
            }
        }
        // The limit is reached, the user has a stored limit, or another transaction conflicted with this one.
        if error.is_contention() {
            return Ok(None);
        }
        Err(self.diagnose(user, error).await)
    }

    /// Starts a stream with one consistent query, and one transaction if the decision needs a write.
    async fn read_then_start(&self, user: &UserName, request: &StartRequest, now: Timestamp) -> Result<StartOutcome> {
        let partition = self.partition(user).await?;
        let commit = match with_snapshot(&partition, |snapshot| decide(snapshot, request, now)) {
            Decision::NoWrite(outcome) => return Ok(outcome),
            Decision::Admit(commit) => commit,
        };
        self.transact(expressions::commit(&self.table, user, &commit)?).await?;
        Ok(StartOutcome::Started(commit.into_started()))
    }

    /// Deletes ended leases. A lease that a concurrent start stores under one of these ids is not deleted.
    async fn delete_ended(&self, user: &UserName, ended: &[StreamId]) -> Result<()> {
        for ids in ended.chunks(MAX_ACTIONS) {
            self.transact(expressions::prune(&self.table, user, ids)?).await?;
        }
        Ok(())
    }

    /// Turns the counter of an erased user into a tombstone, or removes its limit if a new stream has started.
    async fn bury_counter(&self, user: &UserName, counter: &Counter, now: Timestamp) -> Result<()> {
        let ttl_s = now.plus_s(TOMBSTONE_S).epoch_ms() / 1000;
        let Some(update) = expressions::bury(&self.table, user, counter, ttl_s)? else { return Ok(()) };
        let request = self
            .update_counter(user)
            .update_expression(update.update_expression)
            .set_condition_expression(update.condition_expression)
            .set_expression_attribute_names(update.expression_attribute_names)
            .set_expression_attribute_values(update.expression_attribute_values);
        let changed = || StoreError::contention("the counter has changed");
        written(request.send().await)?.map(|_| ()).ok_or_else(changed)
    }

    fn update_counter(&self, user: &UserName) -> UpdateItemFluentBuilder {
        let request = self.client.update_item().table_name(&self.table).set_key(Some(codec::counter_key(user)));
        request.return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    async fn transact(&self, actions: Vec<TransactWriteItem>) -> std::result::Result<(), TransactionError> {
        let request = self.client.transact_write_items().set_transact_items(Some(actions));
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        request.send().await.map(|_| ()).map_err(TransactionError::from)
    }

    fn query(&self, user: &UserName) -> QueryFluentBuilder {
        let condition = "#userName = :user";
        self.client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression(condition)
            .set_expression_attribute_names(expressions::names([condition]))
            .expression_attribute_values(":user", codec::text(user.as_str()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    /// Reads all items of a user.
    async fn partition(&self, user: &UserName) -> Result<Partition> {
        let request = self.query(user);
        let mut items = Vec::new();
        let mut from = None;
        for _ in 0..MAX_PAGES {
            let page = request.clone().set_exclusive_start_key(from).send().await.map_err(store_error)?;
            items.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key;
            if from.is_none() {
                return codec::decode_partition(&items);
            }
        }
        let detail = format!("the user's partition has more than {MAX_PAGES} MB");
        Err(StoreError::NotApplied { refusal: Refusal::Rejected, detail })
    }

    /// Converts a failed write into an error. After a validation error, it also reads the stored items, because a
    /// stored attribute of the wrong type causes the same error as an invalid request. After other errors it does not
    /// read, because reads would double the load during an outage.
    async fn diagnose(&self, user: &UserName, error: TransactionError) -> StoreError {
        if error.is_validation_error()
            && let Err(corrupt @ StoreError::Corrupt { .. }) = self.partition(user).await
        {
            return corrupt;
        }
        error.into()
    }

    async fn item(&self, key: codec::Item) -> Result<Option<codec::Item>> {
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key)).consistent_read(true);
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        Ok(request.send().await.map_err(store_error)?.item)
    }
}

#[async_trait]
impl LeaseStore for DynamoStore {
    async fn start(
        &self,
        user: &UserName,
        request: &StartRequest,
        hint: StartHint,
        now: Timestamp,
    ) -> Result<StartOutcome> {
        if hint == StartHint::Optimistic
            && !request.needs_read()
            && let Some(start) = self.optimistic_start(user, request, now).await?
        {
            return Ok(start);
        }
        self.read_then_start(user, request, now).await
    }

    async fn heartbeat(&self, user: &UserName, request: &HeartbeatRequest, now: Timestamp) -> Result<Heartbeat> {
        let expires_at = request.terms.expires_at(now);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(codec::lease_key(user, request.stream_id)))
            .condition_expression(expressions::HEARTBEAT_CONDITION)
            .set_expression_attribute_values(expressions::values([
                (":now", timestamp(now)),
                (":new", timestamp(expires_at)),
                (":ttl", number(request.terms.ttl_s(expires_at))),
            ]))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let update = match &request.content_id {
            None => update
                .update_expression(expressions::HEARTBEAT_UPDATE)
                .set_expression_attribute_names(expressions::HEARTBEAT_NAMES.clone()),
            Some(content_id) => update
                .update_expression(expressions::HEARTBEAT_CONTENT_UPDATE)
                .set_expression_attribute_names(expressions::names([
                    expressions::HEARTBEAT_CONTENT_UPDATE,
                    expressions::HEARTBEAT_CONDITION,
                ]))
                .expression_attribute_values(":content", codec::text(content_id.as_str())),
        };
        let error = match update.send().await {
            Ok(renewed) => {
                // The old item contains the previous expiry. If DynamoDB omits the item, return an error and not
                // `NotFound`, because the lease exists.
                let old = renewed.attributes;
                let old = old.ok_or_else(|| StoreError::Unknown("renewal returned no attributes".to_owned()))?;
                let (lease, previous) = codec::decode_renewed(&old, request, expires_at)?;
                return Ok(Heartbeat { state: StreamState::of(Some(lease), now), previous_expiry: Some(previous) });
            }
            Err(error) => error,
        };
        let Some(UpdateItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(store_error(error));
        };
        match StreamState::of(decode_optional_lease(failed.item.clone())?, now) {
            // The returned lease satisfies the condition, so a retry can succeed.
            StreamState::Live(lease) if lease.expires_at < expires_at => {
                Err(StoreError::contention("renewal of a live lease failed"))
            }
            // If the lease is live, a later heartbeat or an earlier attempt of this heartbeat has already renewed it.
            state => Ok(Heartbeat::without_renewal(state)),
        }
    }

    async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop> {
        let error = match self.transact(expressions::stop(&self.table, user, stream_id)?).await {
            Ok(()) => return Ok(Stop::Freed),
            Err(error) => error,
        };
        if error.condition_failed(expressions::STOP_COUNTER) {
            return Ok(Stop::AlreadyGone);
        }
        Err(self.diagnose(user, error).await)
    }

    async fn end(&self, user: &UserName, request: &EndRequest, now: Timestamp) -> Result<Ended> {
        let partition = self.partition(user).await?;
        let previous_limit = partition.counter.stream_limit;
        let Some(commit) = with_snapshot(&partition, |snapshot| decide_end(snapshot, request, now)) else {
            return Ok(Ended { leases: Vec::new(), previous_limit });
        };
        self.transact(expressions::end(&self.table, user, &commit)?).await?;
        Ok(Ended { leases: commit.ended, previous_limit })
    }

    async fn purge(&self, user: &UserName, now: Timestamp) -> Result<()> {
        // The query may be torn: a lease without a slot can look live, because it was ended or deleted after the query read
        // it. The condition of the deletion therefore checks the lease again.
        let Partition { counter, leases } = self.partition(user).await?;
        let without_slot = leases.iter().map(|lease| lease.stream_id).filter(|id| !counter.streams.contains(id));
        self.delete_ended(user, &without_slot.collect::<Vec<_>>()).await?;
        self.bury_counter(user, &counter, now).await
    }

    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState> {
        let item = self.item(codec::lease_key(user, stream_id)).await?;
        Ok(StreamState::of(decode_optional_lease(item)?, now))
    }

    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams> {
        let Partition { counter, mut leases } = self.partition(user).await?;
        // Queries are only read-committed. During a start that ends another stream, a query can return the leases of
        // both streams as live. The counter never lists both.
        leases.retain(|lease| lease.is_live_at(now) && counter.streams.contains(&lease.stream_id));
        leases.sort_by(Lease::by_age);
        Ok(UserStreams { stored_limit: counter.stream_limit, live: leases })
    }

    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>> {
        let item = self.item(codec::counter_key(user)).await?;
        let counter = item.as_ref().map(codec::decode_counter).transpose()?;
        Ok(counter.and_then(|counter: Counter| counter.stream_limit))
    }

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<Option<StreamLimit>> {
        let request = match limit {
            Some(limit) => self
                .update_counter(user)
                .update_expression(expressions::SET_LIMIT_UPDATE)
                .set_expression_attribute_names(expressions::names([expressions::SET_LIMIT_UPDATE]))
                .expression_attribute_values(":limit", number(limit)),
            None => self
                .update_counter(user)
                .update_expression(expressions::REMOVE_LIMIT_UPDATE)
                .condition_expression(expressions::REMOVE_LIMIT_CONDITION)
                .set_expression_attribute_names(expressions::names([expressions::REMOVE_LIMIT_UPDATE])),
        };
        let output = written(request.return_values(ReturnValue::UpdatedOld).send().await)?;
        Ok(output.and_then(|output| output.attributes).as_ref().and_then(codec::previous_limit))
    }
}

/// The response to an update, or `None` if its condition failed.
fn written<T>(result: std::result::Result<T, SdkError<UpdateItemError, HttpResponse>>) -> Result<Option<T>> {
    match result {
        Ok(output) => Ok(Some(output)),
        Err(error) => match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(None),
            _ => Err(store_error(error)),
        },
    }
}

fn with_snapshot<T>(partition: &Partition, f: impl FnOnce(&Snapshot<'_>) -> T) -> T {
    let Partition { counter, leases } = partition;
    let members: Vec<StreamId> = counter.streams.iter().copied().collect();
    let guard = Guard { revision: counter.revision, stored_limit: counter.stream_limit };
    f(&Snapshot { guard, members: &members, leases })
}

fn decode_optional_lease(item: Option<codec::Item>) -> Result<Option<Lease>> {
    item.as_ref().map(codec::decode_lease).transpose()
}
