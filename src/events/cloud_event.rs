//! The format of events: CloudEvents 1.0 in JSON, one event per line. The service writes it, and the report reads it.
//!
//! A reader must ignore unknown fields and types, because newer versions may add some.

#[cfg(test)]
use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::domain::admission::AtLimit;
use crate::domain::labels::Labels;
#[cfg(test)]
use crate::domain::lease::StreamLimit;
use crate::domain::lease::{LimitSource, Timestamp};
use crate::domain::rules::LimitMode;

/// The value of `specversion`.
pub const SPEC_VERSION: &str = "1.0";

/// An event. The attributes are those of the CloudEvents specification 1.0.2, and two extensions.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CloudEvent {
    /// Always `1.0`.
    #[cfg_attr(test, schemars(extend("const" = SPEC_VERSION)))]
    pub specversion: String,
    /// Unique for all instances: the id of the instance, `-`, and the sequence. A repeated event has the same id.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub id: String,
    /// The instance that wrote the event: `urn:stream-manager:instance:` and its id.
    #[cfg_attr(test, schemars(extend("format" = "uri-reference")))]
    pub source: String,
    /// The user: a name or its keyed hash. Absent with `events.user = "none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When the outcome was decided.
    pub time: EventTime,
    /// Sequence number of the event within its instance (CloudEvents extension `sequence`). Zero-padded to 20 digits, so that
    /// lexicographic order equals numeric order.
    #[cfg_attr(test, schemars(regex(pattern = r"^[0-9]{20}$")))]
    pub sequence: String,
    /// The version of the service (an extension of this service).
    pub serviceversion: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome: the attributes `type` and `data`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", content = "data")]
pub enum Outcome {
    /// A start got a slot.
    #[serde(rename = "stream-manager.stream.started")]
    Started(StartData),
    /// A start with the same idempotency key as an earlier one, whose stream is live.
    #[serde(rename = "stream-manager.stream.replayed")]
    Replayed(StartData),
    /// A start was denied.
    #[serde(rename = "stream-manager.stream.denied")]
    Denied(StartData),
    /// A start got a slot only because the limit or the rule that it exceeds is in observe mode.
    #[serde(rename = "stream-manager.stream.over_limit")]
    OverLimit(StartData),
    /// The player stopped its stream.
    #[serde(rename = "stream-manager.stream.stopped")]
    Stopped(EndData),
    /// A stream was ended by a start at the limit, by an eviction request, or by a lowered limit.
    #[serde(rename = "stream-manager.stream.evicted")]
    Evicted(EndData),
    /// A stream was ended by a start of its device, or by a start that names it in `replaces`.
    #[serde(rename = "stream-manager.stream.replaced")]
    Replaced(EndData),
    /// A start removed a stream whose lease had expired before. Streams whose expiry no start notices have no such event.
    #[serde(rename = "stream-manager.stream.expired")]
    Expired(EndData),
    /// The stored limit of a user was set, possibly to the same value, or removed.
    #[serde(rename = "stream-manager.user.limit_changed")]
    LimitChanged(LimitData),
    /// An erasure ended the user's streams. If a later step of the erasure fails, its repetition has another event.
    #[serde(rename = "stream-manager.user.erased")]
    Erased(ErasedData),
}

/// A start and its outcome.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartData {
    pub stream_id: Uuid,
    /// Whether the start has an idempotency key. Without a key, each repetition of a start has another `streamId`.
    pub has_key: bool,
    /// Hashed with the key of `subject`. Absent with `events.user = "none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub labels: Labels,
    /// The streams that the start names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Uuid>,
    pub at_limit: AtLimit,
    /// The mode of the user's own limit.
    pub mode: LimitMode,
    /// The user's own limit.
    #[cfg_attr(test, schemars(range(max = StreamLimit::MAX)))]
    pub limit: u8,
    pub limit_source: LimitSource,
    /// The user's live streams before the start. Absent in `replayed`, and if the start did not read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_before: Option<u32>,
    /// The user's live streams after the start. Absent if `countBefore` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_after: Option<u32>,
    /// The rules that apply to the start, in the order of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AppliedRule>,
    /// The limits that the start exceeds. In `denied`: the one that denied it. In `over_limit`: every exceeded limit in observe mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceeded: Vec<Exceeded>,
    /// Absent in `denied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<EventTime>,
    /// The expiry of the lease. Absent in `denied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<EventTime>,
}

/// A rule that applies to a start.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AppliedRule {
    pub name: String,
    pub mode: LimitMode,
    #[cfg_attr(test, schemars(range(max = StreamLimit::MAX)))]
    pub limit: u8,
    /// The value of the label for which the rule counts, if it counts per label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
}

/// A limit that a start exceeds.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Exceeded {
    /// Absent for the user's own limit, and for the cap of 50 streams in observe mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[cfg_attr(test, schemars(range(max = StreamLimit::MAX)))]
    pub limit: u8,
    /// The live streams that the limit counts, without the new one and those that it replaces.
    pub count: u32,
}

/// The end of a stream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EndData {
    pub stream_id: Uuid,
    /// The time of the event. In `expired`, the expiry of the lease.
    pub ended_at: EventTime,
    /// Absent if the end did not read the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<EventTime>,
    /// The time from `startedAt` to `endedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub session_seconds: Option<f64>,
    /// Hashed with the key of `subject`. Absent with `events.user = "none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub labels: Labels,
    /// The stream whose start ended this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<Uuid>,
}

/// A change of a user's stored limit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LimitData {
    /// Absent if the stored limit was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(max = StreamLimit::MAX)))]
    pub limit: Option<u8>,
    /// Absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(max = StreamLimit::MAX)))]
    pub previous_limit: Option<u8>,
}

/// The erasure of a user.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ErasedData {
    /// The streams that the erasure ended.
    pub ended: Vec<Uuid>,
}

/// A time in RFC 3339, UTC, with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventTime(pub Timestamp);

#[cfg(test)]
impl schemars::JsonSchema for EventTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EventTime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = DateTime::from_timestamp_millis(self.0.epoch_ms()).unwrap_or_default();
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        Ok(Self(Timestamp::from_epoch_ms(time.timestamp_millis())))
    }
}
