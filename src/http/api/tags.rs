//! The tags that group the operations in the OpenAPI document.

use poem_openapi::Tags;

#[derive(Tags)]
pub(crate) enum Tag {
    /// For players: start, heartbeat, stop.
    Player,
    /// For backends: list, count and get streams.
    Streams,
    /// The stream limits of users.
    Limits,
    /// Erasing users.
    Users,
    /// Grants for media requests.
    Grants,
    /// Liveness and readiness.
    Health,
}
