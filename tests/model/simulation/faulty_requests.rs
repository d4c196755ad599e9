//! Mutants that change DynamoDB requests between the correct store and the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use stream_manager::domain::lease::Timestamp;
use stream_manager::domain::names::StreamId;

use super::api::Operation;
use super::context::RunContext;
use super::dynamodb_json;
use super::state::StoreWrite;
use crate::mutants::Mutant;

/// Rewrites the requests of one run. Without a mutant, the requests stay unchanged.
pub struct FaultyRequests {
    mutant: Option<Mutant>,
    /// By call, the items that each of its queries returned.
    queried: Mutex<BTreeMap<usize, Vec<Vec<Value>>>>,
    context: Arc<RunContext>,
}

impl FaultyRequests {
    pub fn new(mutant: Option<Mutant>, context: Arc<RunContext>) -> Self {
        Self { mutant, queried: Mutex::default(), context }
    }

    /// Must receive the response of every query. Changes it for `ListIgnoresMembers` and keeps its items for
    /// `RecountFromQuery` and `ErasureReadsOnce`.
    pub fn observe_query(&self, call: Option<usize>, response: &mut Vec<u8>) {
        match (self.mutant, self.context.operation(call)) {
            (Some(Mutant::ListIgnoresMembers), Some(Operation::List)) => {
                return self.add_all_leases_to_members(response);
            }
            (Some(Mutant::RecountFromQuery | Mutant::ErasureReadsOnce), _) => {}
            _ => return,
        }
        if let (Some(call), Ok(Value::Object(mut response))) = (call, serde_json::from_slice(response.as_slice()))
            && let Some(Value::Array(items)) = response.remove("Items")
        {
            self.queried().entry(call).or_default().push(items);
        }
    }

    fn add_all_leases_to_members(&self, response: &mut Vec<u8>) {
        let Ok(mut body) = serde_json::from_slice::<Value>(response) else { return };
        let Some(items) = body["Items"].as_array_mut() else { return };
        let ids: BTreeSet<String> =
            items.iter().filter_map(dynamodb_json::stream_id).map(|id| id.to_string()).collect();
        let counter = items.iter_mut().find(|item| item["record"]["S"] == "counter");
        if let Some(counter) = counter.filter(|_| !ids.is_empty()) {
            counter["streams"] = json!({ "SS": ids });
            self.context.count("mutations");
            *response = body.to_string().into_bytes();
        }
    }

    /// Returns the bodies to send instead of `body`. There are two if the mutant splits a transaction, and none if it
    /// omits the request.
    pub fn rewrite(&self, write: &StoreWrite, body: &Value, call: Option<usize>) -> Vec<Value> {
        let Some(mutant) = self.mutant else { return vec![body.clone()] };
        let mut bodies = vec![body.clone()];
        let rewritten = &mut bodies[0];
        match (mutant, write) {
            (_, StoreWrite::Heartbeat { .. }) => mutate_heartbeat(mutant, rewritten),
            (Mutant::StartReplacesNothing, StoreWrite::Start { .. }) => {
                keep_ended_streams(rewritten, "replaced", self.limit(body));
            }
            (Mutant::ExcessOverOldLimit, StoreWrite::End { new_limit: Some(_), .. }) => {
                keep_ended_streams(rewritten, "evicted", self.limit(body));
            }
            (Mutant::ExcessCountsDeadLeases, StoreWrite::End { new_limit: Some(limit), .. }) => {
                if let Some(Operation::EndExcess(requested)) = self.context.operation(call)
                    && requested != *limit
                {
                    counter_values(rewritten)[":newLimit"] = json!({ "N": requested.to_string() });
                }
            }
            (Mutant::ErasureKeepsDeadMembers, StoreWrite::End { .. }) => {
                let erases = matches!(self.context.operation(call), Some(Operation::Erase));
                let state = dynamodb_json::user("TransactWriteItems", body).map(|user| self.context.state(&user));
                let state = state.unwrap_or_default();
                let is_dead = |id: &StreamId| state.lease(*id).is_none();
                if erases && state.members.iter().all(is_dead) {
                    bodies.clear();
                }
            }
            (Mutant::ErasureReadsOnce, StoreWrite::DeleteEnded) => {
                let queried = self.queried();
                let queries = call.and_then(|call| queried.get(&call)).map(Vec::as_slice).unwrap_or_default();
                if let [first, _, ..] = queries {
                    let kept = actions(body).iter().filter(|action| was_ended(first, &action["Delete"]));
                    rewritten["TransactItems"] = kept.cloned().collect();
                }
                if actions(&bodies[0]).is_empty() {
                    bodies.clear();
                }
            }
            (Mutant::ErasureDeletesCounter, StoreWrite::Bury) if sets_ttl(body) => {
                rewritten.as_object_mut().map(|body| body.remove("UpdateExpression"));
            }
            (_, StoreWrite::Start { .. } | StoreWrite::Stop { .. } | StoreWrite::End { .. }) => {
                let queried = self.queried();
                let queried = call.and_then(|call| queried.get(&call)?.last());
                if let Some(first) = mutate_transaction(mutant, write, rewritten, queried) {
                    bodies.insert(0, first);
                }
            }
            _ => {}
        }
        if bodies != [body.clone()] {
            bodies.iter_mut().for_each(remove_unused_placeholders);
            self.context.count("mutations");
        }
        bodies
    }

    /// The limit of the transaction's user.
    fn limit(&self, body: &Value) -> usize {
        let state = dynamodb_json::user("TransactWriteItems", body).map(|user| self.context.state(&user));
        state.unwrap_or_default().limit(None, self.context.policy.default_limit).get() as usize
    }

    fn queried(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Vec<Value>>>> {
        self.queried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the last step of an erasure writes a tombstone.
fn sets_ttl(body: &Value) -> bool {
    body["ExpressionAttributeValues"].get(":ttl").is_some()
}

/// The actions of a transaction.
fn actions(body: &Value) -> &[Value] {
    body["TransactItems"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether a query returned the lease of this action as ended.
fn was_ended(queried: &[Value], delete: &Value) -> bool {
    let record = &delete["Key"]["record"];
    queried.iter().any(|item| item["record"] == *record && item.get("endReason").is_some())
}

/// Changes a transaction so that the streams that it ends for this reason stay live members. Does nothing if there would
/// be more members than `limit`.
fn keep_ended_streams(body: &mut Value, reason: &str, limit: usize) {
    let Some(actions) = body["TransactItems"].as_array_mut() else { return };
    let is_ended = |action: &Value| action["Update"]["ExpressionAttributeValues"][":reason"]["S"] == reason;
    let ended = actions.iter().filter(|action| is_ended(action));
    let ids: Vec<Value> = ended
        .filter_map(|mark| dynamodb_json::stream_id(&mark["Update"]["Key"]))
        .map(|id| json!(id.to_string()))
        .collect();
    let update = &mut actions[0]["Update"];
    let mut members = update["ExpressionAttributeValues"][":members"]["SS"].as_array().cloned().unwrap_or_default();
    members.extend(ids.iter().cloned());
    if ids.is_empty() || members.len() > limit {
        return;
    }
    update["ExpressionAttributeValues"][":members"] = json!({ "SS": members });
    if let Some(without_members) =
        update["UpdateExpression"].as_str().and_then(|text| text.strip_suffix(", #streams"))
    {
        update["UpdateExpression"] = json!(without_members.replace(" REMOVE", ", #streams = :members REMOVE"));
    }
    actions.retain(|action| !is_ended(action));
}

/// The expression values of the counter action in a transaction.
fn counter_values(body: &mut Value) -> &mut Value {
    &mut body["TransactItems"][0]["Update"]["ExpressionAttributeValues"]
}

fn mutate_heartbeat(mutant: Mutant, body: &mut Value) {
    let term = match mutant {
        Mutant::HeartbeatIgnoresEviction => " AND attribute_not_exists(#endReason)",
        Mutant::HeartbeatRenewsExpired => " AND #expiresAt > :now",
        Mutant::HeartbeatMovesExpiryBack => " AND #expiresAt < :new",
        Mutant::HeartbeatCreatesLease => {
            let condition = body["ConditionExpression"].as_str().unwrap_or_default();
            body["ConditionExpression"] = json!(format!("attribute_not_exists(#record) OR ({condition})"));
            return;
        }
        _ => return,
    };
    remove_term(body, "ConditionExpression", term);
}

/// Changes the actions of a transaction. Returns another transaction to send first, if the mutant needs one.
fn mutate_transaction(
    mutant: Mutant,
    write: &StoreWrite,
    body: &mut Value,
    queried: Option<&Vec<Value>>,
) -> Option<Value> {
    let original = body.clone();
    let actions = body["TransactItems"].as_array_mut()?;
    let starts = matches!(write, StoreWrite::Start { .. });
    let decided = actions[0]["Update"]["UpdateExpression"].as_str().is_some_and(|text| text.starts_with("SET"));
    let (optimistic, read_first, ends) = (starts && !decided, starts && decided, !starts && decided);
    match mutant {
        Mutant::StartKeepsTombstoneTtl if starts => {
            remove_term(&mut actions[0]["Update"], "UpdateExpression", " REMOVE #ttl");
        }
        Mutant::TokenLimitOverridesBlock if optimistic => {
            let term = "(attribute_not_exists(#streamLimit) OR #streamLimit <> :zero) AND ";
            remove_term(&mut actions[0]["Update"], "ConditionExpression", term);
        }
        Mutant::OptimisticStartKeepsRevision if optimistic => {
            remove_term(&mut actions[0]["Update"], "UpdateExpression", ", #revision :one");
        }
        Mutant::OptimisticStartIgnoresStoredLimit if optimistic => {
            let term = "attribute_not_exists(#streamLimit) AND ";
            remove_term(&mut actions[0]["Update"], "ConditionExpression", term);
        }
        Mutant::StartIgnoresStoredLimit if read_first => {
            for guard in [" AND attribute_not_exists(#streamLimit)", " AND #streamLimit = :limit"] {
                remove_term(&mut actions[0]["Update"], "ConditionExpression", guard);
            }
        }
        Mutant::PutWithoutCondition => {
            actions.iter_mut().filter_map(|action| action.get_mut("Put")).for_each(remove_condition);
        }
        Mutant::MarkMissingLease => {
            actions[1..].iter_mut().filter_map(|action| action.get_mut("Update")).for_each(remove_condition);
        }
        Mutant::StartIgnoresRevision if read_first => ignore_revision(&mut actions[0]["Update"]),
        Mutant::EndIgnoresRevision if ends => ignore_revision(&mut actions[0]["Update"]),
        Mutant::DeleteDeadUnconditionally if read_first => {
            let deletes = actions.iter_mut().filter(|action| deletes_dead_lease(action));
            deletes.for_each(|action| remove_condition(&mut action["Delete"]));
        }
        Mutant::RemoveMemberWithoutDelete if read_first => actions.retain(|action| !deletes_dead_lease(action)),
        Mutant::RecountFromQuery if read_first => recount_members(write, actions, queried?),
        Mutant::EvictionInTwoTransactions if read_first => return split_eviction(original, actions),
        _ => {}
    }
    None
}

fn deletes_dead_lease(action: &Value) -> bool {
    action["Delete"]["ConditionExpression"].as_str().is_some_and(|condition| condition.contains("#expiresAt <= :now"))
}

/// Replaces the members with the live leases that the query returned, except the leases that this start ends. As in a
/// real recount, the transaction deletes a dead lease only if the query returned that lease.
fn recount_members(write: &StoreWrite, actions: &mut Vec<Value>, queried: &[Value]) {
    let StoreWrite::Start { stream_id: own, now } = write else { return };
    let live = |item: &&Value| {
        let expires_at: Option<Timestamp> = dynamodb_json::timestamp(&item["expiresAt"]);
        item.get("endReason").is_none() && expires_at.is_some_and(|expires_at| expires_at > *now)
    };
    let ends = |id: &str| {
        let mut updates = actions[1..].iter().filter_map(|action| action.get("Update"));
        updates.any(|update| update["Key"]["record"]["S"].as_str().is_some_and(|record| record.ends_with(id)))
    };
    let ids = queried.iter().filter(live).filter_map(dynamodb_json::stream_id).chain([*own]);
    let mut members: Vec<String> = ids.map(|id| id.to_string()).filter(|id| !ends(id)).collect();
    members.sort();
    members.dedup();
    actions[0]["Update"]["ExpressionAttributeValues"][":members"] = json!({ "SS": members });
    actions.retain(|action| {
        !deletes_dead_lease(action) || queried.iter().any(|item| item["record"] == action["Delete"]["Key"]["record"])
    });
}

/// Moves the actions that mark leases as ended from `actions` to a separate transaction. That transaction also removes
/// the ids of these leases from the counter.
fn split_eviction(mut original: Value, actions: &mut Vec<Value>) -> Option<Value> {
    let marks = |action: &Value| action["Update"]["Key"]["record"]["S"].as_str().is_some_and(|r| r != "counter");
    let freed: Vec<Value> = actions.iter().filter(|action| marks(action)).cloned().collect();
    let ids: Vec<String> = freed
        .iter()
        .filter_map(|mark| dynamodb_json::stream_id(&mark["Update"]["Key"]))
        .map(|id| id.to_string())
        .collect();
    if ids.is_empty() {
        return None;
    }
    let mut counter = actions[0].clone();
    let update = &mut counter["Update"];
    update["UpdateExpression"] = json!("DELETE #streams :freed SET #revision = :next");
    update["ExpressionAttributeValues"][":freed"] = json!({ "SS": ids });
    actions.retain(|action| !marks(action));
    let values = &mut actions[0]["Update"]["ExpressionAttributeValues"];
    let next = values[":next"]["N"].as_str().and_then(|next| next.parse::<u64>().ok())?;
    values[":seen"] = json!({ "N": next.to_string() });
    values[":next"] = json!({ "N": (next + 1).to_string() });
    original["TransactItems"] = json!([vec![counter], freed].concat());
    Some(original)
}

fn ignore_revision(counter: &mut Value) {
    for guard in ["#revision = :seen AND ", "attribute_not_exists(#revision) AND "] {
        remove_term(counter, "ConditionExpression", guard);
    }
}

fn remove_term(action: &mut Value, expression: &str, term: &str) {
    if let Some(text) = action[expression].as_str().map(|text| text.replacen(term, "", 1)) {
        action[expression] = json!(text);
    }
}

fn remove_condition(action: &mut Value) {
    if let Some(action) = action.as_object_mut() {
        action.remove("ConditionExpression");
        action.remove("ReturnValuesOnConditionCheckFailure");
    }
}

/// Removes names and values that no expression uses, because DynamoDB rejects unused ones.
fn remove_unused_placeholders(body: &mut Value) {
    match body.get_mut("TransactItems").and_then(Value::as_array_mut) {
        Some(actions) => {
            let kinds = actions.iter_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
            kinds.filter_map(Value::as_object_mut).for_each(remove_unused_in_action);
        }
        None => _ = body.as_object_mut().map(remove_unused_in_action),
    }
}

fn remove_unused_in_action(action: &mut Map<String, Value>) {
    let expressions =
        ["UpdateExpression", "ConditionExpression"].map(|name| action.get(name).and_then(Value::as_str));
    let expressions = expressions.map(Option::unwrap_or_default).join(" ");
    let used: Vec<&str> = expressions.split(|c: char| !c.is_ascii_alphanumeric() && c != '#' && c != ':').collect();
    for map in ["ExpressionAttributeNames", "ExpressionAttributeValues"] {
        let Some(entries) = action.get_mut(map).and_then(Value::as_object_mut) else { continue };
        entries.retain(|name, _| used.contains(&name.as_str()));
        if entries.is_empty() {
            action.remove(map);
        }
    }
}
