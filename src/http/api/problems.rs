//! Every problem that a client can be told, in one table, and the only code that turns one into an answer (RFC 9457).
//! `docs/errors.md` has a section for each. No text of the store, of a library or of Rust goes through here.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::api::json::Json;
use crate::http::api::model::{EndedBy, FieldError, ProblemBody, Restart, Stream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// One problem on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem {
    pub code: ProblemCode,
    pub detail: String,
    pub extensions: Box<ProblemExtensions>,
    /// What the log is told and the client is not.
    pub cause: Option<String>,
}

/// The fields that only some problems have.
#[derive(Clone, Debug, Default)]
pub struct ProblemExtensions {
    pub errors: Option<Vec<FieldError>>,
    pub restart: Option<Restart>,
    pub limit: Option<u8>,
    pub count: Option<u32>,
    pub streams: Option<Vec<Stream>>,
    pub slot_frees_in_seconds: Option<u32>,
    pub reason: Option<&'static str>,
    pub ended_by: Option<EndedBy>,
    /// The `Allow` header.
    pub allow: Option<String>,
    /// The `Retry-After` header, where it is known better than by the code.
    pub retry_after_s: Option<u32>,
    /// The `WWW-Authenticate` header (RFC 6750, section 3).
    pub www_authenticate: Option<String>,
}

impl ProblemCode {
    pub const ALL: [Self; 16] = [
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
                ("idempotency-key-reused", 422, "The idempotency key came with another request")
            }
            Self::TooManyRequests => ("too-many-requests", 429, "The user asks too often"),
            Self::Internal => ("internal", 500, "The service failed"),
            Self::StoreUnavailable => ("store-unavailable", 503, "The store did not answer in time"),
            Self::KeysUnavailable => {
                ("keys-unavailable", 503, "The keys that tokens are checked with are not there yet")
            }
            Self::Overloaded => ("overloaded", 503, "The service has too much to do"),
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

    /// Seconds after which to try again, for problems that pass.
    const fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::TooManyRequests | Self::StoreUnavailable | Self::KeysUnavailable | Self::Overloaded => Some(1),
            _ => None,
        }
    }

    /// Whether answers with this code carry `Retry-After`.
    pub const fn has_retry_after(self) -> bool {
        self.retry_after_s().is_some() || matches!(self, Self::StreamLimitReached)
    }

    /// An example for the OpenAPI document, made as a real one is.
    pub fn example(self) -> Value {
        let mut problem = Problem::new(self, self.title());
        match self {
            Self::InvalidRequest => {
                problem.detail = "deviceId: must not be empty".to_owned();
                problem.extensions.errors =
                    Some(vec![FieldError { field: "deviceId".to_owned(), reason: "must not be empty".to_owned() }]);
            }
            Self::StreamNotFound => problem.extensions.restart = Some(Restart::Auto),
            Self::StreamLimitReached => {
                problem.detail = "1 of 1 streams are in use".to_owned();
                problem.extensions.limit = Some(1);
                problem.extensions.count = Some(1);
                problem.extensions.slot_frees_in_seconds = Some(42);
                problem.extensions.streams = Some(vec![Stream::example_value()]);
            }
            Self::StreamEnded => {
                problem.detail = "the stream was evicted by another start".to_owned();
                problem.extensions.reason = Some("evicted");
                problem.extensions.restart = Some(Restart::User);
                let ended_by = EndedBy {
                    stream_id: uuid::Uuid::from_u128(0x3f0e_7c52_6b1d_4c7e_8a55_0d2f_9b1c_44aa),
                    device_name: Some("Kitchen tablet".to_owned()),
                };
                problem.extensions.ended_by = Some(ended_by);
            }
            _ => {}
        }
        let object = problem.object("5b4f5d1e-1c1e-4d0a-9a55-2f6c8e90d417");
        poem_openapi::types::ToJSON::to_json(&object).unwrap_or(json!({}))
    }
}

impl Problem {
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), extensions: Box::default(), cause: None }
    }

    /// A 400 that names one field.
    pub fn field(field: &str, reason: &str) -> Self {
        Self::fields(vec![FieldError { field: field.to_owned(), reason: reason.to_owned() }])
    }

    /// A 400 that names what is wrong with each field.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.reason)).collect();
        let mut problem = Self::new(ProblemCode::InvalidRequest, detail.join("; "));
        problem.extensions.errors = Some(errors);
        problem
    }

    fn object(self, request_id: &str) -> ProblemBody {
        let ProblemExtensions {
            errors, restart, limit, count, streams, slot_frees_in_seconds, reason, ended_by, ..
        } = *self.extensions;
        ProblemBody {
            r#type: format!("urn:stream-manager:problem:{}", self.code.code()),
            code: self.code.code().to_owned(),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail,
            instance: format!("urn:stream-manager:request:{request_id}"),
            errors,
            restart,
            limit,
            count,
            streams,
            slot_frees_in_seconds,
            reason: reason.map(str::to_owned),
            ended_by,
        }
    }

    /// Whether the log tells of it. As many as somebody likes to send are refused for want of room or of keys: a line each
    /// would be more to do, not less. The metrics count them, and why there are no keys is in the log.
    pub fn should_log(&self) -> bool {
        self.code.status() >= 500 && !matches!(self.code, ProblemCode::Overloaded | ProblemCode::KeysUnavailable)
    }

    /// The answer, and for a server's fault the one line in the log.
    pub fn answer(self, request_id: &str) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (code, cause) = (self.code.code(), self.cause.as_deref().unwrap_or(&self.detail));
        match self.code {
            ProblemCode::Internal => tracing::error!(code, cause, "request failed"),
            _ if self.should_log() => tracing::warn!(code, cause, "request failed"),
            _ if status.is_server_error() => tracing::debug!(code, cause, "request refused"),
            _ => {}
        }
        let extra = &self.extensions;
        let retry_after_s = extra.retry_after_s.or(extra.slot_frees_in_seconds).or(self.code.retry_after_s());
        let texts =
            [(header::ALLOW, extra.allow.clone()), (header::WWW_AUTHENTICATE, extra.www_authenticate.clone())];
        let mut response = Json(self.object(request_id)).into_response();
        response.set_status(status);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, text) in texts {
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Lets a problem travel as poem's error until [`Problem::answer`] renders it.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.code(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl poem::error::ResponseError for Problem {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
