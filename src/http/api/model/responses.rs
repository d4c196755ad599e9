//! Bodies of successful responses.

use std::collections::BTreeMap;

use poem_openapi::{Enum, Object};
use serde::Serialize;
use uuid::Uuid;

use super::rfc3339::Rfc3339;
use crate::domain::labels::Labels;
use crate::domain::lease::{self, Lease, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::UserName;
use crate::domain::rules;

/// A stream. It holds one of the user's slots until `expiresAt`. Each heartbeat extends that time.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct Stream {
    /// Identifies the stream in heartbeats and stops. A UUID in lower case.
    pub(crate) stream_id: Uuid,
    #[oai(validator(max_length = 256))]
    pub(crate) user_name: String,
    #[oai(validator(max_length = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_id: Option<String>,
    #[oai(validator(max_length = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_name: Option<String>,
    #[oai(validator(max_length = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_id: Option<String>,
    /// The labels of the stream: those in the request that started it, and those in the token.
    #[oai(validator(max_properties = 16))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) started_at: Rfc3339,
    /// Expiry time by the server's clock. Players should use `expiresInSeconds` instead.
    pub(crate) expires_at: Rfc3339,
    /// Seconds until the lease expires, rounded up. Count from the time when the request was sent.
    #[oai(validator(minimum(value = "0")))]
    pub(crate) expires_in_seconds: u32,
    /// Interval between heartbeats, in seconds. May differ between responses.
    #[oai(validator(minimum(value = "1"), maximum(value = "43200")))]
    pub(crate) heartbeat_interval_seconds: u32,
    /// A signed proof of the lease (JWT) for requests to media servers. Only in responses to a start or a heartbeat, and only if
    /// grants are on. Each response replaces the previous grant.
    #[oai(validator(max_length = 8192))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grant: Option<String>,
}

/// The stream of a start: a new one, or the one of an earlier start with the same `Idempotency-Key`.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct StartedStream {
    #[oai(flatten)]
    #[serde(flatten)]
    pub(crate) stream: Stream,
    /// The user's stream limit.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) limit: u8,
    /// The streams that this start replaced or evicted, oldest first.
    #[oai(validator(max_items = 50))]
    pub(crate) ended: Vec<Uuid>,
    /// True if the start was admitted only because a limit or a rule is in observe mode. Absent in all other responses, including
    /// replays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_limit: Option<bool>,
}

/// The live streams of a user, oldest first.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example)]
pub(crate) struct Streams {
    #[oai(flatten)]
    #[serde(flatten)]
    pub(crate) count: StreamCount,
    /// The live streams, oldest first.
    #[oai(validator(max_items = 50))]
    pub(crate) streams: Vec<Stream>,
    /// The use of each rule that counts at least one of these streams, in the order of the settings. A rule that counts per label
    /// has one entry for each value.
    #[oai(validator(max_items = 800))]
    pub(crate) rules: Vec<RuleUse>,
}

/// How many of the streams a rule counts.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct RuleUse {
    /// The name of the rule.
    #[oai(validator(max_length = 64))]
    pub(crate) name: String,
    /// Maximum number of these streams. 0 forbids new ones.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) limit: u8,
    /// Number of live streams that the rule counts.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) count: u32,
    /// The value of the label for which the streams are counted, if the rule counts per label.
    #[oai(validator(max_length = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per: Option<String>,
}

/// The number of live streams of a user.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example, rename = "Count")]
pub(crate) struct StreamCount {
    #[oai(validator(max_length = 256))]
    pub(crate) user_name: String,
    /// Number of live streams.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) count: u32,
    /// The user's stream limit.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) limit: u8,
    /// Number of streams that can still start within the limit: `limit - count`, at least 0.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) remaining: u32,
}

/// The stream limit of a user.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example)]
pub(crate) struct Limit {
    #[oai(validator(max_length = 256))]
    pub(crate) user_name: String,
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    pub(crate) limit: u8,
    pub(crate) source: LimitSource,
}

/// The new limit of a user, and the streams that it ended.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct NewLimit {
    #[oai(flatten)]
    #[serde(flatten)]
    pub(crate) limit: Limit,
    /// The streams that this request ended, oldest first. Only with `endExcess`.
    #[oai(validator(max_items = 50))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Vec<Uuid>>,
}

/// The streams that a request ended.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", example)]
pub(crate) struct Evicted {
    /// The streams that were live and that this request ended, oldest first.
    #[oai(validator(max_items = 50))]
    pub(crate) ended: Vec<Uuid>,
}

/// Origin of the limit: the caller's token, else the user's own limit, else the default of the service. The user's own
/// limit of 0 overrides the token.
// A copy of the domain's enum, because the domain does not depend on poem-openapi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[serde(rename_all = "lowercase")]
#[oai(rename_all = "lowercase", remote = "lease::LimitSource")]
pub(crate) enum LimitSource {
    Default,
    User,
    Token,
}

/// The service is healthy.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct Health {
    /// Always `ok`.
    #[oai(validator(max_length = 16))]
    pub(crate) status: String,
    /// The version of the service.
    #[oai(validator(max_length = 64))]
    pub(crate) version: String,
    /// This host's clock minus the store's clock, in seconds. Absent while unknown. Only in readiness responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clock_difference_seconds: Option<f64>,
    /// Problems that an operator should fix, one sentence each. Absent if there are none.
    #[oai(validator(max_items = 10, max_length = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warnings: Option<Vec<String>>,
}

impl Stream {
    pub(crate) fn new(user: &UserName, lease: &Lease, now: Timestamp, terms: &LeaseTerms) -> Self {
        Self {
            stream_id: lease.stream_id.uuid(),
            user_name: user.to_string(),
            device_id: lease.device_id.as_ref().map(ToString::to_string),
            device_name: lease.device_name.as_ref().map(ToString::to_string),
            content_id: lease.content_id.as_ref().map(ToString::to_string),
            labels: (!lease.labels.is_empty()).then(|| text_map(&lease.labels)),
            started_at: lease.started_at.into(),
            expires_at: lease.expires_at.into(),
            expires_in_seconds: lease.expires_at.seconds_after(now),
            heartbeat_interval_seconds: terms.heartbeat_interval_s,
            grant: None,
        }
    }
}

impl RuleUse {
    pub(crate) fn new(usage: rules::RuleUse<'_>) -> Self {
        Self {
            name: usage.rule.name.to_string(),
            limit: usage.rule.max.get(),
            count: usage.count as u32,
            per: usage.per.map(String::from),
        }
    }
}

impl StreamCount {
    pub(crate) fn new(user: &UserName, live: usize, limit: StreamLimit) -> Self {
        Self {
            user_name: user.to_string(),
            count: live as u32,
            limit: limit.get(),
            remaining: limit.remaining(live) as u32,
        }
    }
}

fn text_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
