//! Parses DynamoDB's JSON: the write in a request, and the stored items of a user.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use stream_manager::domain::lease::{StreamLimit, Timestamp};
use stream_manager::domain::names::{ContentId, StreamId, UserName};
use stream_manager::store::StoreError;
use stream_manager::store::dynamodb::codec::{self, Item};
use stream_manager::store::embedded::engine::Engine;

use super::state::{CounterState, StoreWrite, UserState};

pub const TABLE: &str = "user-streams";

/// The items of a user by sort key.
pub type Items = BTreeMap<String, Value>;

/// The user whose items a request reads or writes.
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

/// The write in a request. `None` for a read.
pub fn write_of(operation: &str, body: &Value) -> Option<StoreWrite> {
    match operation {
        "TransactWriteItems" => {
            let actions = body["TransactItems"].as_array()?;
            if let Some(put) = actions.iter().find_map(|action| action.get("Put")) {
                let item = &put["Item"];
                return Some(StoreWrite::Start { stream_id: stream_id(item)?, now: timestamp(&item["startedAt"])? });
            }
            // All other transactions update the counter first, except the deletion of ended leases.
            match actions[0]["Update"]["UpdateExpression"].as_str() {
                None => Some(StoreWrite::DeleteEnded),
                Some(update) if update.starts_with("DELETE") => {
                    Some(StoreWrite::Stop { stream_id: stream_id(&actions[1]["Delete"]["Key"])? })
                }
                Some(_) => {
                    let new_limit = limit(&actions[0]["Update"]["ExpressionAttributeValues"][":newLimit"]);
                    let now = |action: &Value| timestamp(&action["Delete"]["ExpressionAttributeValues"][":now"]);
                    Some(StoreWrite::End { now: actions.iter().find_map(now), new_limit })
                }
            }
        }
        "UpdateItem" => {
            let values = &body["ExpressionAttributeValues"];
            match stream_id(&body["Key"]) {
                Some(stream_id) => {
                    let content = values[":content"]["S"].as_str().and_then(ContentId::clean);
                    Some(StoreWrite::Heartbeat { stream_id, now: timestamp(&values[":now"])?, content })
                }
                None if values.get(":step").is_some() => Some(StoreWrite::Bury),
                None => Some(StoreWrite::SetLimit { limit: limit(&values[":limit"]) }),
            }
        }
        _ => None,
    }
}

/// The stream id in an item or a key. `None` for the counter.
pub fn stream_id(item: &Value) -> Option<StreamId> {
    StreamId::parse(item["record"]["S"].as_str()?.strip_prefix("stream#")?).ok()
}

fn limit(value: &Value) -> Option<StreamLimit> {
    value["N"].as_str()?.parse().ok().and_then(StreamLimit::new)
}

pub fn timestamp(value: &Value) -> Option<Timestamp> {
    value["N"].as_str()?.parse().ok().map(Timestamp::from_epoch_ms)
}

pub fn stored_items(engine: &Engine, user: &UserName) -> Items {
    let query = json!({
        "TableName": TABLE,
        "ConsistentRead": true,
        "KeyConditionExpression": "userName = :user",
        "ExpressionAttributeValues": { ":user": { "S": user.as_str() } },
    });
    let response = engine.execute("Query", query.to_string().as_bytes());
    assert_eq!(response.status, 200, "query failed");
    let response: Value = serde_json::from_slice(&response.body).unwrap();
    let items = response["Items"].as_array().unwrap().iter();
    items.map(|item| (item["record"]["S"].as_str().unwrap().to_owned(), item.clone())).collect()
}

pub fn decode(items: &Items) -> Result<UserState, StoreError> {
    let ttl_s = |counter: &Value| counter["ttl"]["N"].as_str().and_then(|ttl| ttl.parse().ok());
    let ttl_s = items.get("counter").map(ttl_s);
    let items: Vec<Item> = items.values().map(item).collect();
    let partition = codec::decode_partition(&items)?;
    let counter = ttl_s.map(|ttl_s| CounterState { revision: partition.counter.revision, ttl_s });
    Ok(UserState::of(partition, counter))
}

fn item(value: &Value) -> Item {
    let attributes = value.as_object().unwrap().iter();
    attributes.map(|(name, value)| (name.clone(), attribute(value))).collect::<HashMap<_, _>>()
}

fn attribute(value: &Value) -> AttributeValue {
    let (kind, value) = value.as_object().and_then(|value| value.iter().next()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(text(value)),
        "N" => AttributeValue::N(text(value)),
        "SS" => AttributeValue::Ss(value.as_array().unwrap().iter().map(text).collect()),
        "M" => AttributeValue::M(item(value)),
        other => panic!("unexpected attribute type {other}"),
    }
}
