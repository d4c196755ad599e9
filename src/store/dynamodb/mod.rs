//! The store on a DynamoDB table that any number of instances share: a verb, a request. The protocol is in
//! docs/ARCHITECTURE.md; its expressions are in [`writes`], its items in [`items`].

pub mod client;
pub mod codec;
pub mod errors;
pub mod expressions;
pub mod metrics_interceptor;
mod user_agent;

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use tracing::debug;

use self::codec::{Counter, Partition, instant, number};
use self::errors::{Cancelled, cancellation_error, cancelled, condition_failed, store_error};
use super::{
    Heartbeat, LeaseStore, Refusal, Result, StartHint, Stop, StoppedBy, StoreError, StreamState, UserStreams,
};
use crate::domain::admission::{
    Decision, Guard, OwnLease, Snapshot, StartOutcome, StartRequest, Started, decide, pruned_by_eviction,
};
use crate::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};

/// Who waits for an eviction waits no longer for what is done on its occasion.
const FORGET_WITHIN: Duration = Duration::from_millis(500);

/// A page is 1 MB, over a thousand leases: a user with more of them than this retained is refused, not served slowly.
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

    /// One transaction. `None` when it does not settle the matter and the start has to be decided on a read.
    async fn optimistic_start(
        &self,
        user: &UserName,
        request: &StartRequest,
        now: Timestamp,
    ) -> Result<Option<StartOutcome>> {
        let reasons = match self.transact(expressions::optimistic_start(&self.table, user, request, now)?).await {
            Ok(()) => {
                let (lease, limit) = (request.lease(now), request.limit(None));
                return Ok(Some(StartOutcome::Started(Started {
                    lease,
                    limit,
                    ended: Vec::new(),
                    evicted: 0,
                    reaped: 0,
                })));
            }
            Err(Cancelled::Reasons(reasons)) => reasons,
            Err(Cancelled::Failed(error)) => return Err(self.explained(user, error).await),
        };
        // The lease first: when both conditions fail, a start that finds its own lease was admitted before.
        let own = reasons.get(expressions::OPTIMISTIC_LEASE).and_then(|reason| reason.item.as_ref());
        if let Some(own) = own {
            let own = codec::decode_lease(own)?;
            match request.own_lease(&own, now) {
                OwnLease::Ended => return Ok(Some(StartOutcome::Ended(own))),
                OwnLease::KeyReused => return Ok(Some(StartOutcome::KeyReused)),
                // Its answer holds the user's limit and whom it ended, which only a read tells.
                OwnLease::Live | OwnLease::Expired => return Ok(None),
            }
        }
        match cancellation_error(&reasons) {
            StoreError::NotApplied { refusal: Refusal::Contention, .. } => Ok(None),
            error => Err(self.explained(user, error).await),
        }
    }

    /// One consistent query, and one transaction unless the answer is clear without.
    async fn read_then_start(&self, user: &UserName, request: &StartRequest, now: Timestamp) -> Result<StartOutcome> {
        let partition = self.partition(user).await?;
        let commit = match shown(&partition, |snapshot| decide(snapshot, request, now)) {
            Decision::NoWrite(start) => return Ok(start),
            Decision::Admit(commit) => commit,
        };
        match self.transact(expressions::commit(&self.table, user, &commit)?).await {
            Ok(()) => Ok(StartOutcome::Started(commit.into_started())),
            Err(Cancelled::Reasons(reasons)) => Err(cancellation_error(&reasons)),
            Err(Cancelled::Failed(error)) => Err(error),
        }
    }

    /// Deletes the ended leases that the one just evicted makes too many. Only after the eviction, which cannot fail for it,
    /// and touching neither the counter nor a live lease: a start that forgets the same ones at the same moment has to be
    /// tried again, and nothing else. What it leaves undone, the next eviction or deciding start does.
    async fn forget(&self, user: &UserName, evicted: StreamId) -> Result<()> {
        // One page is enough. If there are more, the page holds far more leases than one transaction deletes and
        // MAX_ENDED_LEASES together, so that none of the latest goes.
        let page = self.query(user).send().await.map_err(store_error)?;
        let partition = codec::decode_partition(&page.items.unwrap_or_default())?;
        let pruned = shown(&partition, |snapshot| pruned_by_eviction(snapshot, evicted));
        if pruned.is_empty() {
            return Ok(());
        }
        match self.transact(expressions::forget(&self.table, user, &pruned)?).await {
            Ok(()) => Ok(()),
            Err(Cancelled::Reasons(reasons)) => Err(cancellation_error(&reasons)),
            Err(Cancelled::Failed(error)) => Err(error),
        }
    }

    async fn transact(&self, actions: Vec<TransactWriteItem>) -> std::result::Result<(), Cancelled> {
        let request = self.client.transact_write_items().set_transact_items(Some(actions));
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        request.send().await.map(|_| ()).map_err(cancelled)
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

    /// DynamoDB refuses a write that meets an attribute of the wrong type as it refuses one that is not allowed; a look at
    /// what is stored tells them apart.
    async fn explained(&self, user: &UserName, error: StoreError) -> StoreError {
        if matches!(error, StoreError::NotApplied { refusal: Refusal::Rejected, .. })
            && let Err(corrupt @ StoreError::Corrupt { .. }) = self.partition(user).await
        {
            return corrupt;
        }
        error
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

    async fn heartbeat(
        &self,
        user: &UserName,
        stream_id: StreamId,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Heartbeat> {
        let expires_at = terms.expires_at(now);
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(codec::lease_key(user, stream_id)))
            .update_expression(expressions::HEARTBEAT_UPDATE)
            .condition_expression(expressions::HEARTBEAT_CONDITION)
            .set_expression_attribute_names(expressions::HEARTBEAT_NAMES.clone())
            .set_expression_attribute_values(expressions::values([
                (":now", instant(now)),
                (":new", instant(expires_at)),
                (":ttl", number(terms.ttl_s(expires_at))),
            ]))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let error = match request.send().await {
            Ok(renewed) => {
                // ALL_OLD was asked for: without it the store is at fault, and the stream is not gone. The old lease tells
                // how late the heartbeat came, and what was written over it is known.
                let old = renewed.attributes;
                let old = old.ok_or_else(|| StoreError::Unknown("a renewal without attributes".to_owned()))?;
                let (lease, previous) = codec::decode_renewed(&old, expires_at, terms.ttl_s(expires_at))?;
                return Ok(Heartbeat { state: StreamState::of(Some(lease), now), previous_expiry: Some(previous) });
            }
            Err(error) => error,
        };
        let Some(UpdateItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(store_error(error));
        };
        match StreamState::of(lease(failed.item.clone())?, now) {
            // Live and refused: a newer heartbeat was here, or this one was, and its answer was lost.
            StreamState::Live(lease) if lease.expires_at < expires_at => {
                Err(StoreError::contention("a live lease was refused its renewal"))
            }
            state => Ok(Heartbeat::without_renewal(state)),
        }
    }

    async fn stop(
        &self,
        user: &UserName,
        stream_id: StreamId,
        by: StoppedBy,
        terms: LeaseTerms,
        now: Timestamp,
    ) -> Result<Stop> {
        let actions = match by {
            StoppedBy::Player => expressions::stop(&self.table, user, stream_id)?,
            StoppedBy::Evictor => expressions::evict(&self.table, user, stream_id, terms, now)?,
        };
        match self.transact(actions).await {
            Ok(()) => {
                if by == StoppedBy::Evictor {
                    match tokio::time::timeout(FORGET_WITHIN, self.forget(user, stream_id)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "an eviction could not forget what was ended before"),
                        Err(_) => debug!("an eviction had no time to forget what was ended before"),
                    }
                }
                Ok(Stop::Freed)
            }
            Err(Cancelled::Failed(error)) => Err(self.explained(user, error).await),
            Err(Cancelled::Reasons(reasons))
                if condition_failed(&reasons, expressions::STOP_COUNTER)
                // TTL was first: the member without a lease is dead, and the next start that needs room drops it.
                || condition_failed(&reasons, expressions::STOP_LEASE) =>
            {
                Ok(Stop::AlreadyGone)
            }
            Err(Cancelled::Reasons(reasons)) => Err(self.explained(user, cancellation_error(&reasons)).await),
        }
    }

    async fn stream(&self, user: &UserName, stream_id: StreamId, now: Timestamp) -> Result<StreamState> {
        let item = self.item(codec::lease_key(user, stream_id)).await?;
        Ok(StreamState::of(lease(item)?, now))
    }

    async fn streams(&self, user: &UserName, now: Timestamp) -> Result<UserStreams> {
        let Partition { counter, mut leases } = self.partition(user).await?;
        // Read-committed: while an eviction is being applied a query can show the old lease next to the new one. The
        // counter's set never holds both.
        leases.retain(|lease| lease.is_live_at(now) && counter.streams.contains(&lease.stream_id));
        leases.sort_by(Lease::by_age);
        Ok(UserStreams { own_limit: counter.stream_limit, live: leases })
    }

    async fn limit(&self, user: &UserName) -> Result<Option<StreamLimit>> {
        let item = self.item(codec::counter_key(user)).await?;
        let counter = item.as_ref().map(codec::decode_counter).transpose()?;
        Ok(counter.and_then(|counter: Counter| counter.stream_limit))
    }

    async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()> {
        let request = self.client.update_item().table_name(&self.table).set_key(Some(codec::counter_key(user)));
        let request = match limit {
            Some(limit) => request
                .update_expression("SET #streamLimit = :limit")
                .set_expression_attribute_names(expressions::names(["#streamLimit"]))
                .expression_attribute_values(":limit", number(limit)),
            // Without the condition, removing nothing from nobody would create an empty counter.
            None => request
                .update_expression("REMOVE #streamLimit")
                .condition_expression("attribute_exists(#streamLimit)")
                .set_expression_attribute_names(expressions::names(["#streamLimit"])),
        };
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(store_error(error)),
            },
        }
    }
}

fn shown<T>(partition: &Partition, look: impl FnOnce(&Snapshot<'_>) -> T) -> T {
    let Partition { counter, leases } = partition;
    let members: Vec<StreamId> = counter.streams.iter().copied().collect();
    let guard = Guard { revision: counter.revision, own_limit: counter.stream_limit };
    look(&Snapshot { guard, members: &members, leases })
}

fn lease(item: Option<codec::Item>) -> Result<Option<Lease>> {
    item.as_ref().map(codec::decode_lease).transpose()
}
