//! Builds the DynamoDB expressions of all writes. It sends no requests.
//!
//! Every attribute `name` appears as the placeholder `#name`, because some names, such as `ttl`, are reserved words.
//! docs/ARCHITECTURE.md, "The protocol", explains each condition.

use std::collections::HashMap;
use std::sync::LazyLock;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeValue, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};

use super::codec::{self, Item, number, timestamp};
use crate::domain::admission::{Commit, EndedLease, StartRequest};
use crate::domain::lease::{EndReason, LeaseTerms, Termination, Timestamp};
use crate::domain::names::{StreamId, UserName};

/// Index of the lease action in [`optimistic_start`].
pub(crate) const OPTIMISTIC_LEASE: usize = 1;
/// Index of the counter action in [`stop`] and [`evict`].
pub(crate) const STOP_COUNTER: usize = 0;
/// Index of the lease action in [`stop`] and [`evict`].
pub(crate) const STOP_LEASE: usize = 1;

pub const HEARTBEAT_UPDATE: &str = "SET #expiresAt = :new, #ttl = :ttl";
/// `#expiresAt < :new` prevents a delayed older heartbeat from shortening a lease that was already renewed for longer.
pub const HEARTBEAT_CONDITION: &str = "attribute_exists(#record) AND attribute_not_exists(#endReason) \
     AND #expiresAt > :now AND #expiresAt < :new";
/// Built once, because heartbeats are the most frequent requests.
pub(crate) static HEARTBEAT_NAMES: LazyLock<Option<HashMap<String, String>>> =
    LazyLock::new(|| names([HEARTBEAT_UPDATE, HEARTBEAT_CONDITION]));

/// A start without a read. The request must have no device id and no `replaces`. The transaction fails if the user has
/// a stored limit, unless the token contains a limit.
pub fn optimistic_start(
    table: &str,
    user: &UserName,
    request: &StartRequest,
    now: Timestamp,
) -> Result<Vec<TransactWriteItem>, BuildError> {
    // The response to a start contains the limit, but a transaction returns no values. A start of a user with a stored
    // limit therefore needs a read, unless the token's limit overrides the stored one.
    let condition = match request.token_limit {
        None => "attribute_not_exists(#streamLimit) AND (attribute_not_exists(#streams) OR size(#streams) < :limit)",
        Some(_) => "attribute_not_exists(#streams) OR size(#streams) < :limit",
    };
    let counter = Action {
        update: Some("ADD #streams :id, #revision :one"),
        condition: Some(condition),
        values: values([
            (":id", codec::ids([&request.stream_id])),
            (":one", number(1)),
            (":limit", number(request.limit(None))),
        ]),
    };
    let lease = Action { update: None, condition: Some("attribute_not_exists(#record)"), values: None };
    Ok(vec![
        counter.update(table, codec::counter_key(user))?,
        lease.put(table, codec::encode_lease(user, &request.lease(now)))?,
    ])
}

/// The transaction of a [`Commit`]. It writes the counter, deletes the dead and pruned leases, marks the ended ones,
/// and adds the new lease. Each action has its own condition.
pub fn commit(table: &str, user: &UserName, commit: &Commit) -> Result<Vec<TransactWriteItem>, BuildError> {
    let mut actions = Vec::new();
    actions.push(commit_counter(table, user, commit)?);
    for dead in &commit.dead {
        let action = Action {
            update: None,
            condition: Some("attribute_not_exists(#record) OR #expiresAt <= :now"),
            values: values([(":now", timestamp(commit.now))]),
        };
        actions.push(action.delete(table, codec::lease_key(user, *dead))?);
    }
    for ended in &commit.ended {
        actions.push(mark_ended(table, user, ended)?);
    }
    actions.extend(prune(table, user, &commit.pruned)?);
    let lease = Action {
        update: None,
        condition: Some("attribute_not_exists(#record) OR (attribute_not_exists(#endReason) AND #expiresAt <= :now)"),
        values: values([(":now", timestamp(commit.now))]),
    };
    actions.push(lease.put(table, codec::encode_lease(user, &commit.lease))?);
    Ok(actions)
}

fn commit_counter(table: &str, user: &UserName, commit: &Commit) -> Result<TransactWriteItem, BuildError> {
    let mut values = HashMap::from([
        (":members".to_owned(), codec::ids(&commit.members)),
        (":next".to_owned(), number(commit.guard.revision.unwrap_or(0) + 1)),
    ]);
    let revision_unchanged = match commit.guard.revision {
        None => "attribute_not_exists(#revision)",
        Some(seen) => {
            values.insert(":seen".to_owned(), number(seen));
            "#revision = :seen"
        }
    };
    let limit_unchanged = match commit.guard.stored_limit {
        None => "attribute_not_exists(#streamLimit)",
        Some(limit) => {
            values.insert(":limit".to_owned(), number(limit));
            "#streamLimit = :limit"
        }
    };
    let condition = format!("{revision_unchanged} AND {limit_unchanged}");
    let action = Action {
        update: Some("SET #streams = :members, #revision = :next"),
        condition: Some(&condition),
        values: Some(values),
    };
    action.update(table, codec::counter_key(user))
}

fn mark_ended(table: &str, user: &UserName, ended: &EndedLease) -> Result<TransactWriteItem, BuildError> {
    let mut update = "SET #endReason = :reason, #ttl = :ttl".to_owned();
    let mut values = HashMap::from([
        (":reason".to_owned(), codec::end_reason(ended.termination.reason)),
        (":ttl".to_owned(), number(ended.ttl_s)),
    ]);
    if let Some(by) = &ended.termination.ended_by {
        update.push_str(", #endedBy = :by");
        values.insert(":by".to_owned(), codec::ended_by(by));
    }
    // Without this condition, the update would recreate a lease that TTL has deleted, but without attributes such as
    // `startedAt`.
    let condition = Some("attribute_exists(#record)");
    Action { update: Some(&update), condition, values: Some(values) }
        .update(table, codec::lease_key(user, ended.stream_id))
}

/// The player's own stop: frees the slot and deletes the lease.
pub fn stop(table: &str, user: &UserName, stream_id: StreamId) -> Result<Vec<TransactWriteItem>, BuildError> {
    let lease = Action { update: None, condition: None, values: None };
    Ok(vec![remove_member(table, user, stream_id)?, lease.delete(table, codec::lease_key(user, stream_id))?])
}

/// An eviction: frees the slot and marks the lease as ended, so that its player can learn the reason.
pub fn evict(
    table: &str,
    user: &UserName,
    stream_id: StreamId,
    terms: LeaseTerms,
    now: Timestamp,
) -> Result<Vec<TransactWriteItem>, BuildError> {
    let termination = Termination { reason: EndReason::Evicted, ended_by: None };
    let ended = EndedLease { stream_id, termination, ttl_s: terms.ttl_s(now) };
    Ok(vec![remove_member(table, user, stream_id)?, mark_ended(table, user, &ended)?])
}

/// Deletes ended leases. It does not change the counter, because ended leases hold no slots. If a stream was started
/// again after the read, the condition prevents the deletion of its lease.
pub fn prune(table: &str, user: &UserName, ended: &[StreamId]) -> Result<Vec<TransactWriteItem>, BuildError> {
    let delete = |stream_id: &StreamId| {
        let condition = Some("attribute_not_exists(#record) OR attribute_exists(#endReason)");
        Action { update: None, condition, values: None }.delete(table, codec::lease_key(user, *stream_id))
    };
    ended.iter().map(delete).collect()
}

/// Removes a member from the counter. Because of the condition, a repeated stop writes nothing and creates no counter.
fn remove_member(table: &str, user: &UserName, stream_id: StreamId) -> Result<TransactWriteItem, BuildError> {
    let action = Action {
        update: Some("DELETE #streams :ids ADD #revision :one"),
        condition: Some("contains(#streams, :id)"),
        values: values([
            (":ids", codec::ids([&stream_id])),
            (":id", codec::text(stream_id.to_string())),
            (":one", number(1)),
        ]),
    };
    action.update(table, codec::counter_key(user))
}

/// The attribute names of all `#name` placeholders in the expressions.
pub fn names<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Option<HashMap<String, String>> {
    let mut names = HashMap::new();
    for expression in expressions {
        for tail in expression.split('#').skip(1) {
            let end = tail.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tail.len());
            names.insert(format!("#{}", &tail[..end]), tail[..end].to_owned());
        }
    }
    (!names.is_empty()).then_some(names)
}

pub fn values<const N: usize>(values: [(&str, AttributeValue); N]) -> Option<HashMap<String, AttributeValue>> {
    Some(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The common parts of an update, put or delete action. The names are derived from the expressions, because DynamoDB
/// rejects unused names. Absent values are `None`, because DynamoDB rejects empty maps.
struct Action<'a> {
    update: Option<&'a str>,
    condition: Option<&'a str>,
    values: Option<HashMap<String, AttributeValue>>,
}

impl Action<'_> {
    fn names(&self) -> Option<HashMap<String, String>> {
        names(self.update.into_iter().chain(self.condition))
    }

    fn update(self, table: &str, key: Item) -> Result<TransactWriteItem, BuildError> {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .set_expression_attribute_names(self.names())
            .set_update_expression(self.update.map(str::to_owned))
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_values(self.values)
            .build()?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// If the condition fails, DynamoDB returns the stored item, so that a repeated start can find its own lease.
    fn put(self, table: &str, item: Item) -> Result<TransactWriteItem, BuildError> {
        let put = Put::builder()
            .table_name(table)
            .set_item(Some(item))
            .set_expression_attribute_names(self.names())
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_values(self.values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn delete(self, table: &str, key: Item) -> Result<TransactWriteItem, BuildError> {
        let delete = Delete::builder()
            .table_name(table)
            .set_key(Some(key))
            .set_expression_attribute_names(self.names())
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_values(self.values)
            .build()?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }
}
