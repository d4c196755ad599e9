//! The body of a problem (RFC 9457).

use poem_openapi::{Enum, Object};
use serde::Serialize;
use uuid::Uuid;

use super::responses::Stream;

/// Describes why a request failed (RFC 9457). Branch on `code`.
#[derive(Clone, Debug, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, rename = "Problem")]
pub(crate) struct ProblemBody {
    /// `urn:stream-manager:problem:<code>`
    pub(crate) r#type: String,
    /// Stable identifier of the kind of problem.
    pub(crate) code: String,
    /// Short summary of the problem. It depends only on the code.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// Explanation of this occurrence, for human readers. The wording may change.
    pub(crate) detail: String,
    /// `urn:stream-manager:request:<X-Request-Id>`. The log contains the same id.
    pub(crate) instance: String,
    /// The invalid fields (`invalid-request`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errors: Option<Vec<FieldError>>,
    /// Whether the player may start again by itself or must wait for its user (`stream-not-found`, `stream-ended`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart: Option<Restart>,
    /// The user's stream limit (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u8>,
    /// Number of live streams (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u32>,
    /// The live streams, oldest first (`stream-limit-reached`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<Vec<Stream>>,
    /// Seconds until a slot becomes free if no stream is renewed (`stream-limit-reached`). Absent if the limit is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slot_frees_in_seconds: Option<u32>,
    /// `expired`, `evicted` or `replaced` (`stream-ended`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Who ended the stream, if a start ended it or the eviction had a message (`stream-ended`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_by: Option<EndedBy>,
}

/// An invalid field and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// Whether a player may start a stream again after it ended.
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

/// Who ended a stream.
#[derive(Clone, Debug, Default, Object, Serialize)]
#[serde(rename_all = "camelCase")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct EndedBy {
    /// The stream whose start ended this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream_id: Option<Uuid>,
    /// The device of that stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_name: Option<String>,
    /// A message to the viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}
