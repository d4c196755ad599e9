//! A problem (RFC 9457), and its conversion to a response. Internal error messages, for example from the store, are
//! logged and never sent to the client.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::types::{Example, ToJSON};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::api::json::Json;
use crate::http::api::model::problem::{EndedBy, FieldError, ProblemBody, Restart, StreamEndReason};
use crate::http::api::model::responses::Stream;
pub use crate::http::api::problem_code::ProblemCode;
use crate::store::StoreError;

/// The reason why a request failed.
#[derive(Clone, Debug)]
pub struct Problem {
    pub code: ProblemCode,
    pub detail: String,
    pub(crate) extensions: Box<ProblemExtensions>,
    /// For the log only.
    pub(crate) cause: Option<String>,
    /// Whether another log event already reports the failure.
    pub(crate) reported: bool,
}

/// The fields and headers that only some problems have.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProblemExtensions {
    pub(crate) errors: Option<Vec<FieldError>>,
    pub(crate) restart: Option<Restart>,
    pub(crate) rule: Option<String>,
    pub(crate) limit: Option<u8>,
    pub(crate) count: Option<u32>,
    pub(crate) streams: Option<Vec<Stream>>,
    pub(crate) slot_frees_in_seconds: Option<u32>,
    pub(crate) reason: Option<StreamEndReason>,
    pub(crate) ended_by: Option<EndedBy>,
    /// The `Accept-Encoding` header (RFC 9110, section 12.5.3).
    pub(crate) accept_encoding: Option<&'static str>,
    /// The `Allow` header.
    pub(crate) allow: Option<String>,
    /// The `Retry-After` header, if it differs from the code's default.
    pub(crate) retry_after_s: Option<u32>,
    /// The `WWW-Authenticate` header (RFC 6750, section 3).
    pub(crate) www_authenticate: Option<String>,
}

impl ProblemCode {
    /// An example for the OpenAPI document, built like a real problem.
    pub(crate) fn example(self) -> Value {
        let mut problem = Problem::new(self, self.title());
        match self {
            Self::InvalidRequest => {
                let (field, reason) =
                    ("deviceId".to_owned(), "must be at most 128 bytes of UTF-8, has 200".to_owned());
                problem.detail = format!("{field}: {reason}");
                problem.extensions.errors = Some(vec![FieldError { field, reason }]);
            }
            Self::StreamNotFound => problem.extensions.restart = Some(Restart::Auto),
            Self::StreamLimitReached => {
                problem.detail = "rule \"one UHD stream\": 1 of 1 streams are in use".to_owned();
                problem.extensions.rule = Some("one UHD stream".to_owned());
                problem.extensions.limit = Some(1);
                problem.extensions.count = Some(1);
                problem.extensions.slot_frees_in_seconds = Some(42);
                problem.extensions.streams = Some(vec![Stream::example()]);
            }
            Self::StreamEnded => {
                problem.detail = "the stream was evicted by another start".to_owned();
                problem.extensions.reason = Some(StreamEndReason::Evicted);
                problem.extensions.restart = Some(Restart::User);
                let ended_by = EndedBy {
                    stream_id: Some(Uuid::from_u128(0x3f0e_7c52_6b1d_4c7e_8a55_0d2f_9b1c_44aa)),
                    device_name: Some("Kitchen tablet".to_owned()),
                    message: None,
                };
                problem.extensions.ended_by = Some(ended_by);
            }
            _ => {}
        }
        problem.into_body("5b4f5d1e-1c1e-4d0a-9a55-2f6c8e90d417").to_json().unwrap_or(json!({}))
    }
}

impl Problem {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), extensions: Box::default(), cause: None, reported: false }
    }

    /// A 400 for one invalid field.
    pub(crate) fn field(field: &str, reason: &str) -> Self {
        Self::fields(vec![FieldError { field: field.to_owned(), reason: reason.to_owned() }])
    }

    /// A 400 for several invalid fields.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.reason)).collect();
        let mut problem = Self::new(ProblemCode::InvalidRequest, detail.join("; "));
        problem.extensions.errors = Some(errors);
        problem
    }

    fn into_body(self, request_id: &str) -> ProblemBody {
        let ProblemExtensions {
            errors,
            restart,
            rule,
            limit,
            count,
            streams,
            slot_frees_in_seconds,
            reason,
            ended_by,
            ..
        } = *self.extensions;
        ProblemBody {
            r#type: format!("urn:stream-manager:problem:{}", self.code.code()),
            code: self.code,
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail,
            instance: format!("urn:stream-manager:request:{request_id}"),
            errors,
            restart,
            rule,
            limit,
            count,
            streams,
            slot_frees_in_seconds,
            reason,
            ended_by,
        }
    }

    /// Whether the problem is logged at `warn` or `error`. Overload, missing keys and draining are not, because they can
    /// affect many requests and a log line for each would add load. Metrics count these requests, and other log events
    /// report missing keys and draining.
    pub(crate) fn should_log(&self) -> bool {
        let counted_only =
            matches!(self.code, ProblemCode::Overloaded | ProblemCode::KeysUnavailable | ProblemCode::Draining);
        self.code.status() >= 500 && !counted_only && !self.reported
    }

    /// Converts the problem to a response, and logs it if it is a 5xx.
    pub(crate) fn into_response(self, request_id: &str) -> Response {
        self.log();
        let status = self.http_status();
        let extensions = &self.extensions;
        let retry_after_s =
            extensions.retry_after_s.or(extensions.slot_frees_in_seconds).or(self.code.retry_after_s());
        let optional_headers = [
            (header::ACCEPT_ENCODING, extensions.accept_encoding.map(str::to_owned)),
            (header::ALLOW, extensions.allow.clone()),
            (header::WWW_AUTHENTICATE, extensions.www_authenticate.clone()),
        ];
        let mut response = Json(self.into_body(request_id)).into_response();
        response.set_status(status);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, text) in optional_headers {
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }

    fn log(&self) {
        let (code, status) = (self.code.code(), self.code.status());
        let cause = self.cause.as_deref().unwrap_or(&self.detail);
        match self.code {
            ProblemCode::Internal => {
                tracing::error!(event = "request_failed", code, status, cause, "request failed");
            }
            _ if self.should_log() => {
                tracing::warn!(event = "request_failed", code, status, cause, "request failed");
            }
            _ if status >= 500 => tracing::debug!(code, status, cause, "request refused"),
            _ => {}
        }
    }

    fn http_status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// A store failure is never reported as a reached limit or an ended stream, because the player would then stop playing.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let mut problem = match error {
            StoreError::NotApplied { .. } => {
                Self::new(ProblemCode::StoreUnavailable, "the store temporarily rejected the request; retry")
            }
            StoreError::Unknown(_) => Self::new(ProblemCode::StoreUnavailable, "the outcome is unknown; retry"),
            StoreError::Corrupt { .. } => Self::new(ProblemCode::Internal, "stored data of this user is not valid"),
        };
        problem.cause = Some(error.to_string());
        problem
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.code(), self.detail)
    }
}

impl std::error::Error for Problem {}

/// Lets handlers return a problem as a `poem::Error`, which the request pipeline converts back to the problem.
impl poem::error::ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.http_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unexpected_server_errors_are_logged() {
        let logged = |code: &ProblemCode| Problem::new(*code, code.title()).should_log();
        let logged: Vec<ProblemCode> = ProblemCode::ALL.into_iter().filter(logged).collect();
        assert_eq!(logged, [ProblemCode::Internal, ProblemCode::StoreUnavailable]);
    }
}
