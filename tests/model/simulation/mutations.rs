//! Wrong versions of the protocol, made by rewriting the right one's requests on their way to the table.
//! `mutants.rs` names them all; those of what an answer means are made in `wrong.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use stream_manager::domain::lease::Timestamp;

use super::requests;
use super::state::Act;
use super::world::World;
use crate::mutants::Mutant;

/// What one run does wrong, if anything.
pub struct Mutations {
    mutant: Option<Mutant>,
    /// The items that the last query of each call showed.
    shown: Mutex<BTreeMap<usize, Vec<Value>>>,
    world: Arc<World>,
}

impl Mutations {
    pub fn new(mutant: Option<Mutant>, world: Arc<World>) -> Self {
        Self { mutant, shown: Mutex::default(), world }
    }

    /// The limit that the user of a transaction has.
    fn limit(&self, body: &Value) -> usize {
        let state = requests::user("TransactWriteItems", body).map(|user| self.world.state(&user));
        state.unwrap_or_default().limit(self.world.policy.default_limit).get() as usize
    }

    pub fn saw(&self, call: Option<usize>, answer: &mut Vec<u8>) {
        if self.mutant == Some(Mutant::ListWithoutCounter) && self.world.lists(call) {
            return self.count_all(answer);
        }
        if self.mutant != Some(Mutant::RecountFromQuery) {
            return;
        }
        if let (Some(call), Ok(Value::Object(mut answer))) = (call, serde_json::from_slice(answer.as_slice()))
            && let Some(Value::Array(items)) = answer.remove("Items")
        {
            self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(call, items);
        }
    }

    /// The counter names every lease that the query showed, so that a list leaves none out.
    fn count_all(&self, answer: &mut Vec<u8>) {
        let Ok(mut shown) = serde_json::from_slice::<Value>(answer) else { return };
        let Some(items) = shown["Items"].as_array_mut() else { return };
        let ids: BTreeSet<String> = items.iter().filter_map(requests::stream_id).map(|id| id.to_string()).collect();
        let counter = items.iter_mut().find(|item| item["record"]["S"] == "counter");
        if let Some(counter) = counter.filter(|_| !ids.is_empty()) {
            counter["streams"] = json!({ "SS": ids });
            self.world.count("done wrong");
            *answer = shown.to_string().into_bytes();
        }
    }

    /// What is sent instead of `body`: mostly itself.
    pub fn rewritten(&self, operation: &str, act: &Act, body: &Value, call: Option<usize>) -> Vec<Value> {
        let Some(mutant) = self.mutant else { return vec![body.clone()] };
        let mut bodies = vec![body.clone()];
        match (operation, act) {
            ("UpdateItem", Act::Beat { .. }) => without_terms(mutant, &mut bodies[0]),
            ("TransactWriteItems", act) => {
                let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
                let shown = call.and_then(|call| shown.get(&call));
                if mutant == Mutant::DeviceIgnored {
                    leave_alone(&mut bodies[0], self.limit(body));
                } else if let Some(first) = transaction(mutant, act, &mut bodies[0], shown) {
                    bodies.insert(0, first);
                }
            }
            _ => {}
        }
        if bodies.len() > 1 || bodies[0] != *body {
            bodies.iter_mut().for_each(prune);
            self.world.count("done wrong");
        }
        bodies
    }
}

/// What a start was to replace stays a member, where there is room for both.
fn leave_alone(body: &mut Value, limit: usize) {
    let Some(actions) = body["TransactItems"].as_array_mut() else { return };
    let replaced = |action: &Value| action["Update"]["ExpressionAttributeValues"][":reason"]["S"] == "replaced";
    let marks = actions.iter().filter(|action| replaced(action));
    let ids: Vec<Value> = marks
        .filter_map(|mark| requests::stream_id(&mark["Update"]["Key"]))
        .map(|id| json!(id.to_string()))
        .collect();
    let members = actions[0]["Update"]["ExpressionAttributeValues"][":members"]["SS"].as_array_mut();
    if let Some(members) = members.filter(|members| members.len() + ids.len() <= limit) {
        members.extend(ids);
        actions.retain(|action| !replaced(action));
    }
}

/// A heartbeat without one of its terms.
fn without_terms(mutant: Mutant, body: &mut Value) {
    let term = match mutant {
        Mutant::HeartbeatIgnoresEviction => " AND attribute_not_exists(#endReason)",
        Mutant::HeartbeatRevivesExpired => " AND #expiresAt > :now",
        Mutant::HeartbeatNotMonotone => " AND #expiresAt < :new",
        Mutant::HeartbeatCreates => {
            let condition = body["ConditionExpression"].as_str().unwrap_or_default();
            body["ConditionExpression"] = json!(format!("attribute_not_exists(#record) OR ({condition})"));
            return;
        }
        _ => return,
    };
    strike(body, "ConditionExpression", term);
}

/// Changes the actions of a transaction; what it returns is to be sent before.
fn transaction(mutant: Mutant, act: &Act, body: &mut Value, shown: Option<&Vec<Value>>) -> Option<Value> {
    let whole = body.clone();
    let actions = body["TransactItems"].as_array_mut()?;
    let plain = actions[0]["Update"]["UpdateExpression"] == "ADD #streams :id, #revision :one";
    let decided = actions[0]["Update"]["UpdateExpression"] == "SET #streams = :members, #revision = :next";
    match mutant {
        Mutant::PlainStartKeepsRevision if plain => {
            strike(&mut actions[0]["Update"], "UpdateExpression", ", #revision :one");
        }
        Mutant::PlainStartIgnoresOwnLimit if plain => {
            strike(&mut actions[0]["Update"], "ConditionExpression", "attribute_not_exists(#streamLimit) AND ");
        }
        Mutant::StartIgnoresOwnLimit if decided => {
            for guard in [" AND attribute_not_exists(#streamLimit)", " AND #streamLimit = :limit"] {
                strike(&mut actions[0]["Update"], "ConditionExpression", guard);
            }
        }
        Mutant::PutWithoutCondition => {
            for put in actions.iter_mut().filter_map(|action| action.get_mut("Put")) {
                unconditional(put);
            }
        }
        Mutant::MarkWithoutLease => {
            for update in actions[1..].iter_mut().filter_map(|action| action.get_mut("Update")) {
                unconditional(update);
            }
        }
        Mutant::StartIgnoresRevision if decided => {
            for guard in ["#revision = :seen AND ", "attribute_not_exists(#revision) AND "] {
                strike(&mut actions[0]["Update"], "ConditionExpression", guard);
            }
        }
        Mutant::DeleteDeadUnconditionally if decided => {
            actions.iter_mut().filter(|action| deletes_dead(action)).for_each(|action| {
                unconditional(&mut action["Delete"]);
            });
        }
        Mutant::UncountWithoutDelete if decided => actions.retain(|action| !deletes_dead(action)),
        Mutant::RecountFromQuery if decided => recount(act, actions, shown?),
        Mutant::EvictionFreesFirst if decided => return free_first(whole, actions),
        _ => {}
    }
    None
}

fn deletes_dead(action: &Value) -> bool {
    action["Delete"]["ConditionExpression"].as_str().is_some_and(|condition| condition.contains("#expiresAt <= :now"))
}

/// The members become the leases that were shown live, without those that this start ends; what was not shown at all
/// is not deleted, since whoever recounts does not know of it.
fn recount(act: &Act, actions: &mut Vec<Value>, shown: &[Value]) {
    let Act::Start { stream_id: own, now } = act else { return };
    let live = |item: &&Value| {
        let until: Option<Timestamp> = requests::instant(&item["expiresAt"]);
        item.get("endReason").is_none() && until.is_some_and(|until| until > *now)
    };
    let ends = |id: &str| {
        let mut marked = actions[1..].iter().filter_map(|action| action.get("Update"));
        marked.any(|update| update["Key"]["record"]["S"].as_str().is_some_and(|record| record.ends_with(id)))
    };
    let ids = shown.iter().filter(live).filter_map(requests::stream_id).chain([*own]).map(|id| id.to_string());
    let mut members: Vec<String> = ids.filter(|id| !ends(id)).collect();
    members.sort();
    members.dedup();
    actions[0]["Update"]["ExpressionAttributeValues"][":members"] = json!({ "SS": members });
    actions.retain(|action| {
        !deletes_dead(action) || shown.iter().any(|item| item["record"] == action["Delete"]["Key"]["record"])
    });
}

/// Takes the marks out of `actions`, into a transaction of their own that also takes their ids off the counter.
fn free_first(mut whole: Value, actions: &mut Vec<Value>) -> Option<Value> {
    let marks = |action: &Value| action["Update"]["Key"]["record"]["S"].as_str().is_some_and(|r| r != "counter");
    let freed: Vec<Value> = actions.iter().filter(|action| marks(action)).cloned().collect();
    let ids: Vec<String> = freed
        .iter()
        .filter_map(|mark| requests::stream_id(&mark["Update"]["Key"]))
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
    whole["TransactItems"] = json!([vec![counter], freed].concat());
    Some(whole)
}

fn strike(action: &mut Value, expression: &str, term: &str) {
    let struck = action[expression].as_str().map(|text| text.replacen(term, "", 1));
    if let Some(text) = struck {
        action[expression] = json!(text);
    }
}

fn unconditional(action: &mut Value) {
    if let Some(action) = action.as_object_mut() {
        action.remove("ConditionExpression");
        action.remove("ReturnValuesOnConditionCheckFailure");
    }
}

/// DynamoDB refuses names and values that no expression uses, and empty maps of them.
fn prune(body: &mut Value) {
    match body.get_mut("TransactItems").and_then(Value::as_array_mut) {
        Some(actions) => {
            let kinds = actions.iter_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
            kinds.filter_map(Value::as_object_mut).for_each(prune_one);
        }
        None => _ = body.as_object_mut().map(prune_one),
    }
}

fn prune_one(action: &mut Map<String, Value>) {
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
