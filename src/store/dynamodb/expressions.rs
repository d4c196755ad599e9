//! The protocol's writes as DynamoDB expressions, rendered and nothing else: no request is sent from here.
//!
//! A placeholder `#name` always stands for the attribute `name`, because some of them (`ttl`) are reserved words.
//! Why each condition is there: docs/ARCHITECTURE.md, "What holds the limit".

use std::collections::HashMap;
use std::sync::LazyLock;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeValue, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};

use super::codec::{self, Item, instant, number};
use crate::domain::admission::{Commit, EndedLease, StartRequest};
use crate::domain::lease::{EndReason, LeaseTerms, Timestamp};
use crate::domain::names::{StreamId, UserName};

/// Position of the lease's own action in [`optimistic_start`].
pub const OPTIMISTIC_LEASE: usize = 1;
/// Position of the counter's action in [`stop`] and [`evict`].
pub const STOP_COUNTER: usize = 0;
/// Position of the lease's action in [`stop`] and [`evict`].
pub const STOP_LEASE: usize = 1;

pub const HEARTBEAT_UPDATE: &str = "SET #expiresAt = :new, #ttl = :ttl";
/// Forward only (`#expiresAt < :new`): a delayed older heartbeat must not shorten what was acknowledged.
pub const HEARTBEAT_CONDITION: &str = "attribute_exists(#record) AND attribute_not_exists(#endReason) \
     AND #expiresAt > :now AND #expiresAt < :new";
/// Put together once: a heartbeat is the request that there are most of.
pub static HEARTBEAT_NAMES: LazyLock<Option<HashMap<String, String>>> =
    LazyLock::new(|| names([HEARTBEAT_UPDATE, HEARTBEAT_CONDITION]));

/// A start that has not read anything: for users whose limit is the default or their token's, without a device and
/// without `replaces`.
pub fn optimistic_start(
    table: &str,
    user: &UserName,
    request: &StartRequest,
    now: Timestamp,
) -> Result<Vec<TransactWriteItem>, BuildError> {
    // The answer tells the limit, and a transaction returns no values: a user with a stored limit is decided on a read,
    // unless a token says a limit that goes before it.
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

/// A decided start: the counter under its guard, the dead leases under the condition that they are dead, the ended
/// ones if they are still there, those to forget if they are still ended, and the new one.
pub fn commit(table: &str, user: &UserName, commit: &Commit) -> Result<Vec<TransactWriteItem>, BuildError> {
    let mut actions = Vec::new();
    actions.push(commit_counter(table, user, commit)?);
    for dead in &commit.dead {
        let action = Action {
            update: None,
            condition: Some("attribute_not_exists(#record) OR #expiresAt <= :now"),
            values: values([(":now", instant(commit.now))]),
        };
        actions.push(action.delete(table, codec::lease_key(user, *dead))?);
    }
    for ended in &commit.ended {
        actions.push(mark_ended(table, user, ended)?);
    }
    actions.extend(forget(table, user, &commit.pruned)?);
    let lease = Action {
        update: None,
        condition: Some("attribute_not_exists(#record) OR (attribute_not_exists(#endReason) AND #expiresAt <= :now)"),
        values: values([(":now", instant(commit.now))]),
    };
    actions.push(lease.put(table, codec::encode_lease(user, &commit.lease))?);
    Ok(actions)
}

fn commit_counter(table: &str, user: &UserName, commit: &Commit) -> Result<TransactWriteItem, BuildError> {
    let mut condition = String::new();
    let mut values = HashMap::from([
        (":members".to_owned(), codec::ids(&commit.members)),
        (":next".to_owned(), number(commit.guard.revision.unwrap_or(0) + 1)),
    ]);
    condition.push_str(match commit.guard.revision {
        None => "attribute_not_exists(#revision)",
        Some(seen) => {
            values.insert(":seen".to_owned(), number(seen));
            "#revision = :seen"
        }
    });
    condition.push_str(match commit.guard.own_limit {
        None => " AND attribute_not_exists(#streamLimit)",
        Some(limit) => {
            values.insert(":limit".to_owned(), number(limit));
            " AND #streamLimit = :limit"
        }
    });
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
    // Without this condition a lease that TTL has deleted would come back as an item that never expires.
    let condition = Some("attribute_exists(#record)");
    Action { update: Some(&update), condition, values: Some(values) }
        .update(table, codec::lease_key(user, ended.stream_id))
}

/// The player's own stop: the lease goes with its slot.
pub fn stop(table: &str, user: &UserName, stream_id: StreamId) -> Result<Vec<TransactWriteItem>, BuildError> {
    let lease = Action { update: None, condition: None, values: None };
    Ok(vec![leave(table, user, stream_id)?, lease.delete(table, codec::lease_key(user, stream_id))?])
}

/// Somebody else's stop: the lease stays, marked, for its player to learn of it.
pub fn evict(
    table: &str,
    user: &UserName,
    stream_id: StreamId,
    terms: LeaseTerms,
    now: Timestamp,
) -> Result<Vec<TransactWriteItem>, BuildError> {
    let termination = crate::domain::lease::Termination { reason: EndReason::Evicted, ended_by: None };
    let ended = EndedLease { stream_id, termination, ttl_s: terms.ttl_s(now) };
    Ok(vec![leave(table, user, stream_id)?, mark_ended(table, user, &ended)?])
}

/// Deletes ended leases. The counter is none of their business: they hold no slot. By the condition, one that was
/// started again since it was read is left alone.
pub fn forget(table: &str, user: &UserName, ended: &[StreamId]) -> Result<Vec<TransactWriteItem>, BuildError> {
    let delete = |stream_id: &StreamId| {
        let condition = Some("attribute_not_exists(#record) OR attribute_exists(#endReason)");
        Action { update: None, condition, values: None }.delete(table, codec::lease_key(user, *stream_id))
    };
    ended.iter().map(delete).collect()
}

/// Takes an id off the counter, if it is on it: a repeated stop writes nothing and creates no counter.
fn leave(table: &str, user: &UserName, stream_id: StreamId) -> Result<TransactWriteItem, BuildError> {
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

/// The names for every `#placeholder` in these expressions.
pub fn names<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Option<HashMap<String, String>> {
    let mut names = HashMap::new();
    for expression in expressions {
        for after in expression.split('#').skip(1) {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
            names.insert(format!("#{}", &after[..end]), after[..end].to_owned());
        }
    }
    (!names.is_empty()).then_some(names)
}

pub fn values<const N: usize>(values: [(&str, AttributeValue); N]) -> Option<HashMap<String, AttributeValue>> {
    Some(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// What the three kinds of transactional action have in common. DynamoDB refuses names and values that no expression
/// uses, and empty maps of them.
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

    /// Returns the stored item when its condition fails, for a start to recognize its own lease.
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
