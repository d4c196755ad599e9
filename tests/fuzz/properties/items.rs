//! Checks table items. A decoded item must be within its bounds and must not change if it is encoded and decoded again.
//! For an invalid item, the decoder must return a `Corrupt` error that names the key and the attribute.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::{DeviceId, DisplayText, UserName};
use stream_manager::store::StoreError;
use stream_manager::store::dynamodb::codec::{self, Item};

use super::texts;

/// The input is an item or a list of items in DynamoDB's JSON format.
pub fn check(input: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(input) else { return };
    let items: Vec<Item> = match &json {
        Value::Array(items) => items.iter().filter_map(item).collect(),
        json => item(json).into_iter().collect(),
    };
    let mut all_valid = true;
    let mut leases = 0;
    for item in &items {
        let (lease, counter) = (lease(item, input), counter(item, input));
        all_valid &= match item.get(codec::RECORD) {
            Some(AttributeValue::S(record)) if record == "counter" => counter,
            Some(AttributeValue::S(record)) if record.starts_with("stream#") => {
                leases += usize::from(lease);
                lease
            }
            // A record of a newer version, which the decoder ignores.
            Some(AttributeValue::S(_)) => true,
            _ => false,
        };
    }
    match codec::decode_partition(&items) {
        Ok(partition) => {
            assert!(all_valid, "a partition with an invalid item was decoded");
            assert_eq!(partition.leases.len(), leases);
        }
        Err(error) => {
            assert!(!all_valid, "{error}");
            assert!(items.iter().any(|item| identifies(&error, item, input)), "{error}");
        }
    }
}

fn lease(item: &Item, input: &[u8]) -> bool {
    let lease = match codec::decode_lease(item) {
        Ok(lease) => lease,
        Err(error) => {
            assert!(identifies(&error, item, input), "{error}");
            return false;
        }
    };
    let stored = |name: &str| match item.get(name) {
        Some(AttributeValue::S(text)) => Some(text.as_str()),
        _ => None,
    };
    let device_id = stored(codec::DEVICE_ID).and_then(|id| texts::name(id, 128));
    assert_eq!(lease.device_id.as_ref().map(DeviceId::as_str), device_id.as_deref(), "{lease:?}");
    for (name, text) in [(codec::DEVICE_NAME, &lease.device_name), (codec::CONTENT_ID, &lease.content_id)] {
        let expected = stored(name).and_then(texts::cleaned);
        assert_eq!(text.as_ref().map(DisplayText::as_str), expected.as_deref(), "{lease:?}");
    }
    let no_labels = Item::new();
    let stored = item.get(codec::LABELS).map_or(&no_labels, |labels| labels.as_m().unwrap());
    let expected = stored.iter().map(|(name, value)| texts::label(name, value.as_s().unwrap()).unwrap());
    let labels = lease.labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    assert_eq!(labels.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>(), "{lease:?}");
    assert!(lease.labels.iter().len() <= 16, "{lease:?}");
    let user = UserName::parse("ann").unwrap();
    let encoded = codec::encode_lease(&user, &lease);
    assert_eq!(codec::decode_lease(&encoded).unwrap(), lease);
    for (name, value) in encoded {
        if let (AttributeValue::S(encoded), Some(AttributeValue::S(original))) = (&value, item.get(&name))
            && name != codec::USER_NAME
        {
            let cleaned = [codec::DEVICE_ID, codec::DEVICE_NAME, codec::CONTENT_ID, codec::FINGERPRINT];
            let same = encoded.eq_ignore_ascii_case(original) || cleaned.contains(&name.as_str());
            assert!(same, "{name}: {original:?} {encoded:?}");
        }
    }
    true
}

fn counter(item: &Item, input: &[u8]) -> bool {
    let counter = match codec::decode_counter(item) {
        Ok(counter) => counter,
        Err(error) => {
            assert!(identifies(&error, item, input), "{error}");
            return false;
        }
    };
    assert!(counter.stream_limit.is_none_or(|limit| (0..=StreamLimit::MAX).contains(&limit.get())));
    let mut encoded = Item::new();
    if !counter.streams.is_empty() {
        encoded.insert(codec::STREAMS.to_owned(), codec::ids(&counter.streams));
    }
    if let Some(revision) = counter.revision {
        encoded.insert(codec::REVISION.to_owned(), codec::number(revision));
    }
    if let Some(limit) = counter.stream_limit {
        encoded.insert(codec::STREAM_LIMIT.to_owned(), codec::number(limit));
    }
    assert_eq!(codec::decode_counter(&encoded).unwrap(), counter);
    true
}

/// Whether the error is on one line, and names the item, the attribute and the problem.
fn identifies(error: &StoreError, item: &Item, input: &[u8]) -> bool {
    let StoreError::Corrupt { key, problem } = error else { panic!("{error}") };
    super::assert_no_jargon(problem, input);
    let part = |name| match item.get(name) {
        Some(AttributeValue::S(text)) => format!("{text:?}"),
        _ => "\"?\"".to_owned(),
    };
    let line = error.to_string();
    !line.contains('\n')
        && *key == format!("{}/{}", part(codec::USER_NAME), part(codec::RECORD))
        && problem.split_once(": ").is_some_and(|(attribute, reason)| !attribute.is_empty() && !reason.is_empty())
}

fn item(json: &Value) -> Option<Item> {
    let attributes = json.as_object()?.iter();
    Some(attributes.filter_map(|(name, value)| Some((name.clone(), attribute(value)?))).collect())
}

fn attribute(json: &Value) -> Option<AttributeValue> {
    let (kind, value) = json.as_object()?.iter().next()?;
    let texts = || value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Some(match kind.as_str() {
        "S" => AttributeValue::S(value.as_str()?.to_owned()),
        "N" => AttributeValue::N(value.as_str()?.to_owned()),
        "B" => AttributeValue::B(Blob::new(value.as_str()?)),
        "SS" => AttributeValue::Ss(texts()),
        "NS" => AttributeValue::Ns(texts()),
        "BOOL" => AttributeValue::Bool(value.as_bool()?),
        "NULL" => AttributeValue::Null(true),
        "L" => AttributeValue::L(value.as_array()?.iter().filter_map(attribute).collect()),
        "M" => AttributeValue::M(item(value).unwrap_or_default()),
        _ => return None,
    })
}
