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

use super::codec::{self, Counter, Item, number, timestamp};
use crate::domain::admission::end::EndCommit;
use crate::domain::admission::{Commit, EndedLease, Guard, MembershipChange, StartRequest};
use crate::domain::lease::{StreamLimit, Timestamp};
use crate::domain::names::{StreamId, UserName};

/// Index of the lease action in [`optimistic_start`].
pub(crate) const OPTIMISTIC_LEASE: usize = 1;
/// Index of the counter action in [`stop`].
pub(crate) const STOP_COUNTER: usize = 0;

pub const HEARTBEAT_UPDATE: &str = "SET #expiresAt = :new, #ttl = :ttl";
/// `#expiresAt < :new` prevents a delayed older heartbeat from shortening a lease that was already renewed for longer.
pub const HEARTBEAT_CONDITION: &str = "attribute_exists(#record) AND attribute_not_exists(#endReason) \
     AND #expiresAt > :now AND #expiresAt < :new";
/// A heartbeat that also stores the content.
pub const HEARTBEAT_CONTENT_UPDATE: &str = "SET #expiresAt = :new, #ttl = :ttl, #contentId = :content";
/// Built once, because heartbeats are the most frequent requests.
pub(crate) static HEARTBEAT_NAMES: LazyLock<Option<HashMap<String, String>>> =
    LazyLock::new(|| names([HEARTBEAT_UPDATE, HEARTBEAT_CONDITION]));

/// Removes the TTL of a tombstone, because a counter with a limit must not expire.
pub const SET_LIMIT_UPDATE: &str = "SET #streamLimit = :limit REMOVE #ttl";
pub const REMOVE_LIMIT_UPDATE: &str = "REMOVE #streamLimit";
/// Without the condition, DynamoDB would create an empty counter for a user that has none.
pub const REMOVE_LIMIT_CONDITION: &str = "attribute_exists(#streamLimit)";

/// Turns the counter of an erased user into a tombstone, which keeps the revision until its TTL passes. TTL may delete the
/// tombstone while a write that depends on its revision is in flight. The user's next counter begins at revision 1 and does
/// not reach the revision of the tombstone in that time, so the write fails.
const TOMBSTONE_UPDATE: &str = "SET #ttl = :ttl REMOVE #streamLimit ADD #revision :step";
/// How much a tombstone increases the revision: more than the number of changes to a user while one request is in flight.
pub const TOMBSTONE_REVISION_STEP: u64 = 1_000_000;
/// Removes the limit of an erased user whose next stream has already started. It increases the revision, so that a delayed
/// duplicate of this update cannot remove a limit that is set later.
const ERASE_LIMIT_UPDATE: &str = "REMOVE #streamLimit ADD #revision :step";

/// A start without a read. [`StartRequest::needs_read`] must be false. The transaction fails if the limit is reached. It
/// also fails if the stored limit is 0, or if there is a stored limit and the token contains none.
pub fn optimistic_start(
    table: &str,
    user: &UserName,
    request: &StartRequest,
    now: Timestamp,
) -> Result<Vec<TransactWriteItem>, BuildError> {
    let mut values = HashMap::from([
        (":id".to_owned(), codec::ids([&request.stream_id])),
        (":one".to_owned(), number(1)),
        (":limit".to_owned(), number(request.limit(None))),
    ]);
    // The response to a start contains the limit, but a transaction returns no values. A start of a user with a stored
    // limit therefore needs a read, unless the token's limit overrides the stored one.
    let condition = match request.token_limit {
        None => "attribute_not_exists(#streamLimit) AND (attribute_not_exists(#streams) OR size(#streams) < :limit)",
        Some(_) => {
            values.insert(":zero".to_owned(), number(0));
            "(attribute_not_exists(#streamLimit) OR #streamLimit <> :zero) \
             AND (attribute_not_exists(#streams) OR size(#streams) < :limit)"
        }
    };
    let update = Some("ADD #streams :id, #revision :one REMOVE #ttl");
    let counter = Action { update, condition: Some(condition), values: Some(values) };
    let lease = Action { update: None, condition: Some("attribute_not_exists(#record)"), values: None };
    Ok(vec![
        counter.update(table, codec::counter_key(user))?,
        lease.put(table, codec::encode_lease(user, &request.lease(now)))?,
    ])
}

/// The transaction of a [`Commit`]: the membership change, then the new lease.
pub fn commit(table: &str, user: &UserName, commit: &Commit) -> Result<Vec<TransactWriteItem>, BuildError> {
    let mut actions = change_membership(table, user, &commit.change, None)?;
    let lease = Action {
        update: None,
        condition: Some("attribute_not_exists(#record) OR (attribute_not_exists(#endReason) AND #expiresAt <= :now)"),
        values: values([(":now", timestamp(commit.change.now))]),
    };
    actions.push(lease.put(table, codec::encode_lease(user, &commit.lease))?);
    Ok(actions)
}

/// The transaction of an [`EndCommit`].
pub fn end(table: &str, user: &UserName, commit: &EndCommit) -> Result<Vec<TransactWriteItem>, BuildError> {
    let mut actions = change_membership(table, user, &commit.change, commit.new_limit)?;
    for stream_id in &commit.erased {
        let lease = Action { update: None, condition: None, values: None };
        actions.push(lease.delete(table, codec::lease_key(user, *stream_id))?);
    }
    Ok(actions)
}

/// The last write of an erasure: turns the counter into a tombstone, or only removes the limit if a new stream has started
/// since the erasure ended the user's streams. `counter` was read after they ended. `None` if there is nothing to write.
///
/// The guard rejects a delayed duplicate, which could otherwise remove a limit that was set later.
pub fn bury(table: &str, user: &UserName, counter: &Counter, ttl_s: i64) -> Result<Option<Update>, BuildError> {
    let is_empty = counter.streams.is_empty();
    if !counter.is_stored || (!is_empty && counter.stream_limit.is_none()) {
        return Ok(None);
    }
    let mut values = HashMap::new();
    let guard = Guard { revision: counter.revision, stored_limit: counter.stream_limit };
    let mut condition = format!("attribute_exists(#record) AND {}", unchanged(guard, &mut values));
    let (update, step) = if is_empty {
        values.insert(":ttl".to_owned(), number(ttl_s));
        // The unchanged revision already implies that there are no members. This is checked again, because a TTL on a counter
        // with members would free all of their slots.
        condition.push_str(" AND attribute_not_exists(#streams)");
        (TOMBSTONE_UPDATE, TOMBSTONE_REVISION_STEP)
    } else {
        (ERASE_LIMIT_UPDATE, 1)
    };
    values.insert(":step".to_owned(), number(step));
    let action = Action { update: Some(update), condition: Some(&condition), values: Some(values) };
    action.into_update(table, codec::counter_key(user)).map(Some)
}

/// Writes the counter, deletes the dead and pruned leases, and marks the ended ones. Each action has its own condition.
fn change_membership(
    table: &str,
    user: &UserName,
    change: &MembershipChange,
    new_limit: Option<StreamLimit>,
) -> Result<Vec<TransactWriteItem>, BuildError> {
    let mut actions = vec![change_counter(table, user, change, new_limit)?];
    for dead in &change.dead {
        let action = Action {
            update: None,
            condition: Some("attribute_not_exists(#record) OR #expiresAt <= :now"),
            values: values([(":now", timestamp(change.now))]),
        };
        actions.push(action.delete(table, codec::lease_key(user, *dead))?);
    }
    for ended in &change.ended {
        actions.push(mark_ended(table, user, ended)?);
    }
    actions.extend(prune(table, user, &change.pruned)?);
    Ok(actions)
}

fn change_counter(
    table: &str,
    user: &UserName,
    change: &MembershipChange,
    new_limit: Option<StreamLimit>,
) -> Result<TransactWriteItem, BuildError> {
    let mut values = HashMap::from([(":next".to_owned(), number(change.guard.revision.unwrap_or(0) + 1))]);
    let mut update = "SET #revision = :next".to_owned();
    if let Some(limit) = new_limit {
        values.insert(":newLimit".to_owned(), number(limit));
        update.push_str(", #streamLimit = :newLimit");
    }
    // DynamoDB does not store empty sets.
    if change.members.is_empty() {
        update.push_str(" REMOVE #ttl, #streams");
    } else {
        values.insert(":members".to_owned(), codec::ids(&change.members));
        update.push_str(", #streams = :members REMOVE #ttl");
    }
    let condition = unchanged(change.guard, &mut values);
    let action = Action { update: Some(&update), condition: Some(&condition), values: Some(values) };
    action.update(table, codec::counter_key(user))
}

/// The condition that the revision and the stored limit are still the ones in `guard`. Adds the condition's values.
fn unchanged(guard: Guard, values: &mut HashMap<String, AttributeValue>) -> String {
    let revision_unchanged = match guard.revision {
        None => "attribute_not_exists(#revision)",
        Some(seen) => {
            values.insert(":seen".to_owned(), number(seen));
            "#revision = :seen"
        }
    };
    let limit_unchanged = match guard.stored_limit {
        None => "attribute_not_exists(#streamLimit)",
        Some(limit) => {
            values.insert(":limit".to_owned(), number(limit));
            "#streamLimit = :limit"
        }
    };
    format!("{revision_unchanged} AND {limit_unchanged}")
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
        Ok(TransactWriteItem::builder().update(self.into_update(table, key)?).build())
    }

    fn into_update(self, table: &str, key: Item) -> Result<Update, BuildError> {
        Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .set_expression_attribute_names(self.names())
            .set_update_expression(self.update.map(str::to_owned))
            .set_condition_expression(self.condition.map(str::to_owned))
            .set_expression_attribute_values(self.values)
            .build()
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
