//! Encodes and decodes the items of the table. Only this file reads attributes and reports corrupt items.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::domain::labels::{LabelName, LabelValue, Labels};
use crate::domain::lease::{EndReason, EndedBy, Fingerprint, Lease, StreamLimit, Termination, Timestamp};
use crate::domain::names::{DeviceId, DisplayText, StreamId, UserName};
use crate::store::{HeartbeatRequest, StoreError};

pub const USER_NAME: &str = "userName";
pub const RECORD: &str = "record";
/// The attribute for DynamoDB's TTL, in epoch seconds. Leases and the counters of erased users have it.
pub const TTL: &str = "ttl";
pub const STREAMS: &str = "streams";
pub const REVISION: &str = "revision";
pub const STREAM_LIMIT: &str = "streamLimit";
pub const STARTED_AT: &str = "startedAt";
pub const EXPIRES_AT: &str = "expiresAt";
pub const DEVICE_ID: &str = "deviceId";
pub const DEVICE_NAME: &str = "deviceName";
pub const CONTENT_ID: &str = "contentId";
pub const LABELS: &str = "labels";
pub const FINGERPRINT: &str = "fingerprint";
pub const END_REASON: &str = "endReason";
const ENDED_BY: &str = "endedBy";
const STREAM_ID: &str = "streamId";
const MESSAGE: &str = "message";

const COUNTER: &str = "counter";
const STREAM_PREFIX: &str = "stream#";

pub type Item = HashMap<String, AttributeValue>;

/// The counter item of a user. It lists the ids of the streams that hold a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// False if the user has no counter item.
    pub is_stored: bool,
    pub streams: BTreeSet<StreamId>,
    pub revision: Option<u64>,
    pub stream_limit: Option<StreamLimit>,
}

/// All items of a user.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    pub counter: Counter,
    pub leases: Vec<Lease>,
}

pub fn counter_key(user: &UserName) -> Item {
    key(user, COUNTER.to_owned())
}

pub fn lease_key(user: &UserName, stream_id: StreamId) -> Item {
    key(user, format!("{STREAM_PREFIX}{stream_id}"))
}

fn key(user: &UserName, record: String) -> Item {
    Item::from([(USER_NAME.to_owned(), text(user.as_str())), (RECORD.to_owned(), text(record))])
}

pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub fn timestamp(value: Timestamp) -> AttributeValue {
    number(value.epoch_ms())
}

/// Encodes a string set. `ids` must not be empty, because DynamoDB does not store empty sets.
pub fn ids<'a>(ids: impl IntoIterator<Item = &'a StreamId>) -> AttributeValue {
    AttributeValue::Ss(ids.into_iter().map(StreamId::to_string).collect())
}

pub(crate) fn end_reason(reason: EndReason) -> AttributeValue {
    text(match reason {
        EndReason::Evicted => "evicted",
        EndReason::Replaced => "replaced",
    })
}

pub(crate) fn ended_by(by: &EndedBy) -> AttributeValue {
    let mut map = Item::new();
    if let Some(stream_id) = by.stream_id {
        map.insert(STREAM_ID.to_owned(), text(stream_id.to_string()));
    }
    if let Some(name) = &by.device_name {
        map.insert(DEVICE_NAME.to_owned(), text(name.as_str()));
    }
    if let Some(message) = &by.message {
        map.insert(MESSAGE.to_owned(), text(message.as_str()));
    }
    AttributeValue::M(map)
}

fn labels(labels: &Labels) -> AttributeValue {
    AttributeValue::M(labels.iter().map(|(name, value)| (name.to_string(), text(value.as_str()))).collect())
}

pub fn encode_lease(user: &UserName, lease: &Lease) -> Item {
    let mut item = lease_key(user, lease.stream_id);
    let mut put = |name: &str, value| item.insert(name.to_owned(), value);
    put(STARTED_AT, timestamp(lease.started_at));
    put(EXPIRES_AT, timestamp(lease.expires_at));
    put(TTL, number(lease.ttl_s));
    if let Some(device_id) = &lease.device_id {
        put(DEVICE_ID, text(device_id.as_str()));
    }
    if let Some(device_name) = &lease.device_name {
        put(DEVICE_NAME, text(device_name.as_str()));
    }
    if let Some(content_id) = &lease.content_id {
        put(CONTENT_ID, text(content_id.as_str()));
    }
    if !lease.labels.is_empty() {
        put(LABELS, labels(&lease.labels));
    }
    if let Some(Fingerprint(fingerprint)) = lease.fingerprint {
        put(FINGERPRINT, text(fingerprint.to_string()));
    }
    if let Some(termination) = &lease.termination {
        put(END_REASON, end_reason(termination.reason));
        if let Some(by) = &termination.ended_by {
            put(ENDED_BY, ended_by(by));
        }
    }
    item
}

/// Decodes all items of one user. Ignores unknown attributes and records, because a newer version may have added them.
pub fn decode_partition(items: &[Item]) -> Result<Partition, StoreError> {
    let mut partition = Partition::default();
    for item in items {
        let record = Reader::new(item).text(RECORD)?;
        if record == COUNTER {
            partition.counter = decode_counter(item)?;
        } else if record.starts_with(STREAM_PREFIX) {
            partition.leases.push(decode_lease(item)?);
        }
    }
    Ok(partition)
}

pub fn decode_counter(item: &Item) -> Result<Counter, StoreError> {
    let reader = Reader::new(item);
    let streams = match item.get(STREAMS) {
        None => BTreeSet::new(),
        Some(AttributeValue::Ss(ids)) => {
            let ids = ids.iter().map(|id| StreamId::parse(id));
            ids.collect::<Result<_, _>>().map_err(|_| reader.corrupt(STREAMS, "not a set of stream ids"))?
        }
        Some(_) => return Err(reader.corrupt(STREAMS, "not a string set")),
    };
    let stream_limit = match reader.optional_number(STREAM_LIMIT)? {
        None => None,
        Some(limit) => Some(StreamLimit::new(limit).ok_or_else(|| reader.corrupt(STREAM_LIMIT, "not 0 to 50"))?),
    };
    Ok(Counter { is_stored: true, streams, revision: reader.optional_number(REVISION)?, stream_limit })
}

/// The stored limit among the previous attributes of an updated counter. `None` also if it is not valid, because the update has
/// replaced it.
pub(crate) fn previous_limit(attributes: &Item) -> Option<StreamLimit> {
    Reader::new(attributes).optional_number(STREAM_LIMIT).ok().flatten().and_then(StreamLimit::new)
}

pub fn decode_lease(item: &Item) -> Result<Lease, StoreError> {
    let reader = Reader::new(item);
    lease(&reader, reader.timestamp(EXPIRES_AT)?, reader.number(TTL)?)
}

/// Returns the renewed lease and its previous expiry. `old` is the item before the renewal.
pub fn decode_renewed(
    old: &Item,
    request: &HeartbeatRequest,
    expires_at: Timestamp,
) -> Result<(Lease, Timestamp), StoreError> {
    let reader = Reader::new(old);
    let mut lease = lease(&reader, expires_at, request.terms.ttl_s(expires_at))?;
    if let Some(content_id) = &request.content_id {
        lease.content_id = Some(content_id.clone());
    }
    Ok((lease, reader.timestamp(EXPIRES_AT)?))
}

fn lease(reader: &Reader<'_>, expires_at: Timestamp, ttl_s: i64) -> Result<Lease, StoreError> {
    let record = reader.text(RECORD)?;
    let stream_id = record.strip_prefix(STREAM_PREFIX).and_then(|id| StreamId::parse(id).ok());
    let fingerprint = match reader.optional_text(FINGERPRINT)? {
        None => None,
        Some(text) => Some(Fingerprint(text.parse().map_err(|_| reader.corrupt(FINGERPRINT, "not a UUID"))?)),
    };
    Ok(Lease {
        stream_id: stream_id.ok_or_else(|| reader.corrupt(RECORD, "not a stream record"))?,
        device_id: reader.device_id()?,
        device_name: reader.display_text(DEVICE_NAME)?,
        content_id: reader.display_text(CONTENT_ID)?,
        labels: reader.labels()?,
        fingerprint,
        started_at: reader.timestamp(STARTED_AT)?,
        expires_at,
        ttl_s,
        termination: decode_termination(reader)?.map(Box::new),
    })
}

fn decode_termination(reader: &Reader<'_>) -> Result<Option<Termination>, StoreError> {
    let reason = match reader.optional_text(END_REASON)? {
        None => return Ok(None),
        Some("evicted") => EndReason::Evicted,
        Some("replaced") => EndReason::Replaced,
        Some(_) => return Err(reader.corrupt(END_REASON, "neither evicted nor replaced")),
    };
    let ended_by = match reader.item.get(ENDED_BY) {
        None => None,
        Some(AttributeValue::M(map)) => {
            let by = Reader { item: map, key: reader.key };
            let stream_id = by.optional_text(STREAM_ID)?.map(StreamId::parse).transpose();
            let stream_id = stream_id.map_err(|_| reader.corrupt(ENDED_BY, "streamId is not a UUID"))?;
            let (device_name, message) = (by.display_text(DEVICE_NAME)?, by.display_text(MESSAGE)?);
            Some(EndedBy { stream_id, device_name, message })
        }
        Some(_) => return Err(reader.corrupt(ENDED_BY, "not a map")),
    };
    Ok(Some(Termination { reason, ended_by }))
}

/// Reads typed attributes of an item, or of a map inside it. `key` is the whole item, because errors contain its key.
struct Reader<'a> {
    item: &'a Item,
    key: &'a Item,
}

impl<'a> Reader<'a> {
    fn new(item: &'a Item) -> Self {
        Self { item, key: item }
    }

    fn corrupt(&self, attribute: &str, problem: &str) -> StoreError {
        let part = |name| self.key.get(name).and_then(|value| value.as_s().ok()).map_or("?", String::as_str);
        let key = format!("{:?}/{:?}", part(USER_NAME), part(RECORD));
        StoreError::Corrupt { key, problem: format!("{attribute}: {problem}") }
    }

    fn optional_text(&self, name: &str) -> Result<Option<&'a str>, StoreError> {
        match self.item.get(name) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.corrupt(name, "not a string")),
        }
    }

    fn text(&self, name: &str) -> Result<&'a str, StoreError> {
        self.optional_text(name)?.ok_or_else(|| self.corrupt(name, "missing"))
    }

    fn device_id(&self) -> Result<Option<DeviceId>, StoreError> {
        let device_id = self.optional_text(DEVICE_ID)?.map(DeviceId::parse).transpose();
        device_id.map_err(|error| self.corrupt(DEVICE_ID, &error.to_string()))
    }

    /// Texts are cleaned before they are stored. Cleans them again, so that leases stay readable even if another program
    /// wrote their texts.
    fn display_text(&self, name: &str) -> Result<Option<DisplayText>, StoreError> {
        Ok(self.optional_text(name)?.and_then(DisplayText::clean))
    }

    fn labels(&self) -> Result<Labels, StoreError> {
        let map = match self.item.get(LABELS) {
            None => return Ok(Labels::default()),
            Some(AttributeValue::M(map)) => map,
            Some(_) => return Err(self.corrupt(LABELS, "not a map")),
        };
        let label = |(name, value): (&String, &AttributeValue)| {
            let text = value.as_s().ok().map(|text| LabelValue::parse(text));
            match (LabelName::parse(name), text) {
                (Ok(name), Some(Ok(value))) => Ok((name, value)),
                (Err(error), _) | (_, Some(Err(error))) => Err(self.corrupt(LABELS, &error.to_string())),
                (_, None) => Err(self.corrupt(LABELS, "not a map of strings")),
            }
        };
        let labels = map.iter().map(label).collect::<Result<BTreeMap<_, _>, _>>()?;
        Labels::of_stream(labels).map_err(|error| self.corrupt(LABELS, &error.to_string()))
    }

    fn optional_number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, StoreError> {
        match self.item.get(name) {
            None => Ok(None),
            Some(AttributeValue::N(digits)) => {
                digits.parse().map(Some).map_err(|_| self.corrupt(name, "not a whole number in range"))
            }
            Some(_) => Err(self.corrupt(name, "not a number")),
        }
    }

    fn number(&self, name: &str) -> Result<i64, StoreError> {
        self.optional_number(name)?.ok_or_else(|| self.corrupt(name, "missing"))
    }

    fn timestamp(&self, name: &str) -> Result<Timestamp, StoreError> {
        self.number(name).map(Timestamp::from_epoch_ms)
    }
}
