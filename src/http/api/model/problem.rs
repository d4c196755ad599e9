//! The body of a problem (RFC 9457).

use poem_openapi::{Enum, Object};
use serde::Serialize;
use uuid::Uuid;

use super::responses::Stream;
use crate::http::api::problem_code::ProblemCode;

/// Describes why a request failed (RFC 9457). Branch on `code`.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, rename = "Problem")]
pub(crate) struct ProblemBody {
    /// `urn:stream-manager:problem:<code>`
    #[oai(validator(max_length = 64))]
    pub(crate) r#type: String,
    pub(crate) code: ProblemCode,
    /// Short summary of the problem. It depends only on the code.
    #[oai(validator(max_length = 64))]
    pub(crate) title: String,
    /// The HTTP status.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    pub(crate) status: u16,
    /// Explanation of this occurrence, for human readers. The wording may change.
    pub(crate) detail: String,
    /// `urn:stream-manager:request:<X-Request-Id>`. The log contains the same id.
    #[oai(validator(max_length = 64))]
    pub(crate) instance: String,
    /// The invalid fields, if the service can name them.
    #[oai(validator(max_items = 51))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errors: Option<Vec<FieldError>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart: Option<Restart>,
    /// The name of the rule that denies the start. Absent if no rule denies it.
    #[oai(validator(max_length = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// The limit that denies the start: the user's limit, that of the rule, or 50 if the user's limit is in observe mode.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u8>,
    /// Number of live streams that count.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u32>,
    /// The live streams that count, oldest first: all streams of the user, or those that the rule counts.
    #[oai(validator(max_items = 50))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<Vec<Stream>>,
    /// Seconds until a slot becomes free if no stream is renewed. Absent if `limit` is 0, or if another enforced limit or
    /// rule with maximum 0 applies.
    #[oai(validator(minimum(value = "0")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slot_frees_in_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<StreamEndReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_by: Option<EndedBy>,
}

/// An invalid field and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
pub(crate) struct FieldError {
    /// A field of the body, a parameter or a header, for example `deviceId` or `replaces[2]`.
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[serde(rename_all = "lowercase")]
#[oai(rename_all = "lowercase")]
pub(crate) enum StreamEndReason {
    Expired,
    Evicted,
    Replaced,
}

/// Whether a player may start a stream again after it ended: `auto` if it may start again by itself, `user` if it must
/// wait for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[serde(rename_all = "lowercase")]
#[oai(rename_all = "lowercase")]
pub(crate) enum Restart {
    /// The player starts again by itself.
    Auto,
    /// The player waits for its user, because the stream was ended on purpose. Two players that restart by themselves
    /// would evict each other endlessly.
    User,
}

/// Who ended a stream. Present if a start ended it, or if the eviction had a message.
#[derive(Clone, Debug, Default, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct EndedBy {
    /// The stream whose start ended this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream_id: Option<Uuid>,
    /// The device of that stream.
    #[oai(validator(max_length = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_name: Option<String>,
    /// A message to the viewer.
    #[oai(validator(max_length = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}
