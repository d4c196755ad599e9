//! The JSON of the API: what goes in and out, and nothing of how it comes about. Every doc comment here is part of the
//! OpenAPI document.

mod examples;

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseFromJSON, ParseResult, ToJSON, Type};
use poem_openapi::{Enum, Object};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::admission::AtLimit;
use crate::domain::lease::{Lease, StreamLimit, Timestamp};
use crate::domain::names::{Label, UserName};
use crate::limiter::{self, Policy};

/// One stream: a slot that is held until `expiresAt`, unless it is renewed by a heartbeat.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example, rename = "Stream")]
pub struct Stream {
    /// Names the stream in heartbeat and stop. A UUID in lower case.
    pub stream_id: Uuid,
    pub user_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    pub started_at: Instant,
    /// By the server's clock. A player goes by `expiresInSeconds`.
    pub expires_at: Instant,
    /// How long the slot is held from now, in seconds, rounded up. Count from when the request was sent.
    pub expires_in_seconds: u32,
    /// How often to send a heartbeat. May change from answer to answer.
    pub heartbeat_interval_seconds: u32,
}

/// A stream that was just started, or whose start was repeated.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example, rename = "StartedStream")]
pub struct StartedStream {
    #[oai(flatten)]
    #[serde(flatten)]
    pub stream: Stream,
    /// How many streams this user may hold at once.
    pub limit: u8,
    /// The streams that this start replaced or evicted, oldest first.
    pub ended: Vec<Uuid>,
}

/// The live streams of a user, oldest first.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example, rename = "Streams")]
pub struct Streams {
    #[oai(flatten)]
    #[serde(flatten)]
    pub count: StreamCount,
    pub streams: Vec<Stream>,
}

/// How many live streams a user holds.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example, rename = "Count")]
pub struct StreamCount {
    pub user_name: String,
    /// How many live streams the user holds.
    pub count: u32,
    /// How many the user may hold.
    pub limit: u8,
    /// How many more can start now: `limit - count`, never below 0.
    pub remaining: u32,
}

/// How many streams a user may hold.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example, rename = "Limit")]
pub struct Limit {
    pub user_name: String,
    pub limit: u8,
    /// Where the limit comes from: the caller's token, else the user's own, else the default of the service.
    pub source: LimitSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[serde(rename_all = "lowercase")]
#[oai(rename_all = "lowercase")]
pub enum LimitSource {
    Default,
    User,
    Token,
}

/// The service is well.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example, rename = "Health")]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// The version of the service.
    pub version: String,
    /// This host's clock minus the store's, in seconds; absent while not known. Only in the answers of readiness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_difference_seconds: Option<f64>,
    /// What an operator should see to, in a sentence each; absent when there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// What a player may say when it starts a stream. Everything is optional; `null` means absent.
#[derive(Clone, Debug, Default, Deserialize, Object)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a JSON object")]
#[oai(rename_all = "camelCase", deny_unknown_fields, example, rename = "StartRequest")]
pub struct StartBody {
    /// An id that the player keeps across restarts. A live stream of the same device is replaced, so that a page
    /// reload never counts twice. 1 to 128 bytes in NFC, no control characters.
    #[oai(validator(min_length = 1, max_length = 128))]
    pub device_id: Option<String>,
    /// What a person calls the device: shown in lists and denials. 1 to 256 bytes in NFC, no control characters.
    #[oai(validator(min_length = 1, max_length = 256))]
    pub device_name: Option<String>,
    /// What is being watched: shown in lists and denials. 1 to 256 bytes in NFC, no control characters.
    #[oai(validator(min_length = 1, max_length = 256))]
    pub content_id: Option<String>,
    /// Streams of the same user that this one takes over from, in one step. If the start is denied, they live on.
    #[oai(validator(max_items = 10))]
    #[serde(default, deserialize_with = "stream_ids")]
    pub replaces: Option<Vec<String>>,
    /// What to do when the user is at the limit. The default is a setting of the service, normally `reject`.
    #[serde(default, deserialize_with = "at_limit")]
    pub at_limit: Option<AtLimitBody>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "camelCase", rename = "AtLimit")]
pub enum AtLimitBody {
    /// Answer 409 and leave all streams alone.
    Reject,
    /// End the oldest live streams to make room.
    EvictOldest,
}

/// The user's own limit.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a JSON object")]
#[oai(rename_all = "camelCase", deny_unknown_fields, example, rename = "LimitRequest")]
pub struct LimitBody {
    /// How many streams the user may hold at once: 1 to 50.
    #[oai(validator(minimum(value = "1"), maximum(value = "50")))]
    #[serde(default, deserialize_with = "limit")]
    pub limit: u64,
}

/// These three read by hand, because serde's own refusals speak of sequences, variants and Rust's types, and because it
/// would read an enum from an object too.
fn stream_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let refusal = || D::Error::custom("must be a list of stream ids");
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Array(ids) => {
            let ids = ids.into_iter().map(|id| id.as_str().map(str::to_owned).ok_or_else(refusal));
            ids.collect::<Result<_, _>>().map(Some)
        }
        _ => Err(refusal()),
    }
}

fn at_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AtLimitBody>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => match value.as_str() {
            Some("reject") => Ok(Some(AtLimitBody::Reject)),
            Some("evictOldest") => Ok(Some(AtLimitBody::EvictOldest)),
            _ => Err(D::Error::custom("must be \"reject\" or \"evictOldest\"")),
        },
    }
}

/// 0, which is no limit, for whatever is not a whole number: one refusal then says what is allowed.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64().unwrap_or(0))
}

/// Why a request was not answered as asked (RFC 9457). Go by `code`.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, rename = "Problem")]
pub struct ProblemBody {
    /// `urn:stream-manager:problem:<code>`
    pub r#type: String,
    /// Names the problem; stable.
    pub code: String,
    /// The problem in a few words; the same for each code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, for people; its wording may change.
    pub detail: String,
    /// `urn:stream-manager:request:<X-Request-Id>`, to be found in the log.
    pub instance: String,
    /// What is wrong with which field (`invalid-request`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
    /// Whether the player may start again by itself or must wait for its user (`stream-not-found`, `stream-ended`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How many streams the user may hold (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u8>,
    /// How many live streams the user holds (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The live streams, oldest first (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<Vec<Stream>>,
    /// When the first of them runs out unless it is renewed, in seconds (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_frees_in_seconds: Option<u32>,
    /// `expired`, `evicted` or `replaced` (`stream-ended`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The start that ended the stream, if one did (`stream-ended`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
pub struct FieldError {
    pub field: String,
    pub reason: String,
}

/// What may start a stream again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[serde(rename_all = "lowercase")]
#[oai(rename_all = "lowercase")]
pub enum Restart {
    /// The player, by itself.
    Auto,
    /// Only a person: somebody took the slot on purpose, and taking it back without being asked would go on for ever.
    User,
}

/// The start that ended a stream.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, rename = "EndedBy")]
pub struct EndedBy {
    pub stream_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

impl Stream {
    pub fn new(user: &UserName, lease: &Lease, now: Timestamp, policy: &Policy) -> Self {
        Self {
            stream_id: lease.stream_id.uuid(),
            user_name: user.to_string(),
            device_id: lease.device_id.as_ref().map(Label::to_string),
            device_name: lease.device_name.as_ref().map(Label::to_string),
            content_id: lease.content_id.as_ref().map(Label::to_string),
            started_at: Instant(lease.started_at),
            expires_at: Instant(lease.expires_at),
            // A lease that an instance with a later clock has just granted or renewed ends, seen from here, after more
            // than a whole duration; no player should count on that.
            expires_in_seconds: lease.expires_at.seconds_after(now).min(policy.terms.duration_s),
            heartbeat_interval_seconds: policy.heartbeat_interval_s,
        }
    }
}

impl From<AtLimitBody> for AtLimit {
    fn from(at_limit: AtLimitBody) -> Self {
        match at_limit {
            AtLimitBody::Reject => Self::Reject,
            AtLimitBody::EvictOldest => Self::EvictOldest,
        }
    }
}

impl From<limiter::LimitSource> for LimitSource {
    fn from(source: limiter::LimitSource) -> Self {
        match source {
            limiter::LimitSource::Default => Self::Default,
            limiter::LimitSource::User => Self::User,
            limiter::LimitSource::Token => Self::Token,
        }
    }
}

impl StreamCount {
    pub fn new(user: &UserName, live: usize, limit: StreamLimit) -> Self {
        Self {
            user_name: user.to_string(),
            count: live as u32,
            limit: limit.get(),
            remaining: limit.remaining(live) as u32,
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Instant(pub Timestamp);

impl Instant {
    fn text(self) -> String {
        let at = DateTime::from_timestamp_millis(self.0.epoch_ms()).unwrap_or_default();
        at.to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// For the examples in the document.
impl ToJSON for Instant {
    fn to_json(&self) -> Option<Value> {
        Some(json!(self.text()))
    }
}

/// poem-openapi wants every object to be readable.
impl ParseFromJSON for Instant {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let at = DateTime::parse_from_rfc3339(value.as_ref().and_then(Value::as_str).unwrap_or_default())?;
        Ok(Self(Timestamp::from_epoch_ms(at.timestamp_millis())))
    }
}

impl Type for Instant {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "date-time")))
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        Box::new(std::iter::once(self))
    }
}
