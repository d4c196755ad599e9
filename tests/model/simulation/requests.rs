//! Requests and items in DynamoDB's JSON: what a write is about, and what a partition holds.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::StoreError;
use stream_manager::store::dynamodb::codec::{self, Item};
use stream_manager::store::embedded::engine::Engine;

use super::state::{Act, State};

pub const TABLE: &str = "user-streams";

/// A user's items by their sort key, as DynamoDB would show them.
pub type Items = BTreeMap<String, Value>;

/// Whose items a request is about.
pub fn user(operation: &str, body: &Value) -> Option<UserName> {
    let name = match operation {
        "TransactWriteItems" => {
            let first = &body["TransactItems"][0];
            &first.get("Update").unwrap_or(&first["Delete"])["Key"]["userName"]
        }
        "Query" => &body["ExpressionAttributeValues"][":user"],
        _ => &body["Key"]["userName"],
    };
    UserName::parse(name["S"].as_str()?).ok()
}

/// What a write is about; none for a read.
pub fn act(operation: &str, body: &Value) -> Option<Act> {
    match operation {
        "TransactWriteItems" => {
            let actions = body["TransactItems"].as_array()?;
            if let Some(put) = actions.iter().find_map(|action| action.get("Put")) {
                let item = &put["Item"];
                return Some(Act::Start { stream_id: stream_id(item)?, now: instant(&item["startedAt"])? });
            }
            // Every change of membership begins with the counter.
            if actions[0].get("Update").is_none() {
                return Some(Act::Forget);
            }
            match (actions[1].get("Delete"), actions[1].get("Update")) {
                (Some(delete), _) => Some(Act::Stop { stream_id: stream_id(&delete["Key"])? }),
                (_, Some(update)) => Some(Act::Evict { stream_id: stream_id(&update["Key"])? }),
                _ => None,
            }
        }
        "UpdateItem" => {
            let values = &body["ExpressionAttributeValues"];
            match stream_id(&body["Key"]) {
                Some(stream_id) => Some(Act::Beat { stream_id, now: instant(&values[":now"])? }),
                None => {
                    let limit = values[":limit"]["N"].as_str().and_then(|limit| limit.parse().ok());
                    Some(Act::Limit { limit: limit.and_then(StreamLimit::new) })
                }
            }
        }
        _ => None,
    }
}

/// The stream that an item or a key belongs to; none for the counter.
pub fn stream_id(item: &Value) -> Option<StreamId> {
    StreamId::parse(item["record"]["S"].as_str()?.strip_prefix("stream#")?).ok()
}

pub fn instant(value: &Value) -> Option<Timestamp> {
    value["N"].as_str()?.parse().ok().map(Timestamp::from_epoch_ms)
}

/// What is stored of a user at this instant.
pub fn stored(engine: &Engine, user: &UserName) -> Items {
    let query = json!({
        "TableName": TABLE,
        "ConsistentRead": true,
        "KeyConditionExpression": "userName = :user",
        "ExpressionAttributeValues": { ":user": { "S": user.as_str() } },
    });
    let answer = engine.answer("Query", query.to_string().as_bytes());
    assert_eq!(answer.status, 200, "the engine answers a query");
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let items = answer["Items"].as_array().expect("items").iter();
    items.map(|item| (item["record"]["S"].as_str().expect("a sort key").to_owned(), item.clone())).collect()
}

pub fn state(items: &Items) -> Result<State, StoreError> {
    let items: Vec<Item> = items.values().map(item).collect();
    codec::decode_partition(&items).map(State::of)
}

fn item(value: &Value) -> Item {
    let attributes = value.as_object().expect("an item").iter();
    attributes.map(|(name, value)| (name.clone(), attribute(value))).collect::<HashMap<_, _>>()
}

fn attribute(value: &Value) -> AttributeValue {
    let (kind, value) = value.as_object().and_then(|value| value.iter().next()).expect("an attribute");
    let text = || value.as_str().expect("a text").to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(text()),
        "N" => AttributeValue::N(text()),
        "SS" => {
            let texts = value.as_array().expect("a set").iter();
            AttributeValue::Ss(texts.map(|text| text.as_str().expect("a text").to_owned()).collect())
        }
        "M" => AttributeValue::M(item(value)),
        other => panic!("no item of ours has an attribute of type {other}"),
    }
}
