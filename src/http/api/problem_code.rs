//! The table of all problems (RFC 9457). `docs/errors.md` describes each problem.

use poem_openapi::Enum;
use serde::Serialize;

/// Stable identifier of the kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[serde(rename_all = "kebab-case")]
#[oai(rename_all = "kebab-case")]
pub enum ProblemCode {
    InvalidRequest,
    Unauthorized,
    Forbidden,
    StreamNotFound,
    RouteNotFound,
    MethodNotAllowed,
    StreamLimitReached,
    StreamEnded,
    PayloadTooLarge,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    TooManyRequests,
    Internal,
    StoreUnavailable,
    KeysUnavailable,
    Overloaded,
    Draining,
}

impl ProblemCode {
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::StreamNotFound,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::StreamLimitReached,
        Self::StreamEnded,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::TooManyRequests,
        Self::Internal,
        Self::StoreUnavailable,
        Self::KeysUnavailable,
        Self::Overloaded,
        Self::Draining,
    ];

    /// Code, status and title.
    const fn entry(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid-request", 400, "The request is not valid"),
            Self::Unauthorized => ("unauthorized", 401, "A valid token is needed"),
            Self::Forbidden => ("forbidden", 403, "The token does not allow this"),
            Self::StreamNotFound => ("stream-not-found", 404, "No such stream"),
            Self::RouteNotFound => ("route-not-found", 404, "No such route"),
            Self::MethodNotAllowed => ("method-not-allowed", 405, "The route has no such method"),
            Self::StreamLimitReached => ("stream-limit-reached", 409, "The user's stream limit is reached"),
            Self::StreamEnded => ("stream-ended", 410, "The stream has ended"),
            Self::PayloadTooLarge => ("payload-too-large", 413, "The request body is too large"),
            Self::UnsupportedMediaType => ("unsupported-media-type", 415, "The request body is not JSON"),
            Self::IdempotencyKeyReused => {
                ("idempotency-key-reused", 422, "The idempotency key was used with a different request")
            }
            Self::TooManyRequests => ("too-many-requests", 429, "Rate limit exceeded"),
            Self::Internal => ("internal", 500, "The service failed"),
            Self::StoreUnavailable => ("store-unavailable", 503, "The store is unavailable"),
            Self::KeysUnavailable => ("keys-unavailable", 503, "Token verification keys are unavailable"),
            Self::Overloaded => ("overloaded", 503, "The service is overloaded"),
            Self::Draining => ("draining", 503, "The service is shutting down"),
        }
    }

    pub const fn code(self) -> &'static str {
        self.entry().0
    }

    pub const fn status(self) -> u16 {
        self.entry().1
    }

    pub const fn title(self) -> &'static str {
        self.entry().2
    }

    /// The default `Retry-After` in seconds. Only temporary problems have one.
    pub(crate) const fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::TooManyRequests
            | Self::StoreUnavailable
            | Self::KeysUnavailable
            | Self::Overloaded
            | Self::Draining => Some(1),
            _ => None,
        }
    }

    /// Whether responses with this code have `Retry-After`.
    pub(crate) const fn has_retry_after(self) -> bool {
        self.retry_after_s().is_some() || matches!(self, Self::StreamLimitReached)
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::ToJSON;

    use super::*;

    #[test]
    fn problems_are_written_with_the_code_of_the_table() {
        for code in ProblemCode::ALL {
            assert_eq!(
                (serde_json::to_value(code).unwrap(), code.to_json()),
                (code.code().into(), Some(code.code().into()))
            );
        }
    }
}
