//! The responses of each operation in the OpenAPI document: the success responses, and exactly the problems that the
//! operation can return.

use std::marker::PhantomData;

use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;

use crate::http::api::json::Json;
use crate::http::api::model::grants::JwkSet;
use crate::http::api::model::problem_schemas;
use crate::http::api::model::responses::{
    Evicted, Health, Limit, NewLimit, StartedStream, Stream, StreamCount, Streams,
};
use crate::http::api::problems::{Problem, ProblemCode};

#[derive(ApiResponse)]
pub(crate) enum StartResponse {
    /// The stream has a slot. Send heartbeats, and stop the stream when playback ends.
    #[oai(status = 201)]
    Started(
        Json<StartedStream>,
        /// The path of the stream.
        #[oai(header = "Location")]
        String,
    ),
    /// The stream of an earlier start with the same `Idempotency-Key`.
    #[oai(status = 200)]
    Replayed(
        Json<StartedStream>,
        /// Always `true`.
        #[oai(header = "Idempotency-Replayed")]
        String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum StreamResponse {
    /// The stream is live.
    #[oai(status = 200)]
    Live(Json<Stream>),
}

#[derive(ApiResponse)]
pub(crate) enum StreamsResponse {
    /// The live streams of the user.
    #[oai(status = 200)]
    Streams(Json<Streams>),
}

#[derive(ApiResponse)]
pub(crate) enum CountResponse {
    /// The number of live streams of the user.
    #[oai(status = 200)]
    Count(Json<StreamCount>),
}

#[derive(ApiResponse)]
pub(crate) enum LimitResponse {
    /// The user's limit.
    #[oai(status = 200)]
    Limit(Json<Limit>),
}

#[derive(ApiResponse)]
pub(crate) enum NewLimitResponse {
    /// The user's new limit.
    #[oai(status = 200)]
    Limit(Json<NewLimit>),
}

#[derive(ApiResponse)]
pub(crate) enum EvictedResponse {
    /// The streams that ended.
    #[oai(status = 200)]
    Evicted(Json<Evicted>),
}

#[derive(ApiResponse)]
pub(crate) enum NoContentResponse {
    /// Done, by this or an earlier request.
    #[oai(status = 204)]
    Done,
}

#[derive(ApiResponse)]
pub(crate) enum GrantCheckResponse {
    /// The grant allows the media request.
    #[oai(status = 204)]
    Valid,
}

#[derive(ApiResponse)]
pub(crate) enum JwksResponse {
    /// The public keys.
    #[oai(status = 200)]
    Keys(
        Json<JwkSet>,
        /// How long the keys may be cached.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum HealthResponse {
    /// The service is healthy.
    #[oai(status = 200)]
    Ok(Json<Health>),
}

/// The problems that an operation can return.
pub(crate) trait Problems: Send + Sync + 'static {
    const CODES: &'static [ProblemCode];
}

/// A problem from an operation. `P` lists the problems that the operation can return.
pub(crate) struct Failure<P>(Problem, PhantomData<P>);

macro_rules! problems {
    ($($name:ident: $($code:ident),+;)*) => {$(
        pub(crate) struct $name;

        impl Problems for $name {
            const CODES: &'static [ProblemCode] = &[$(ProblemCode::$code),+];
        }
    )*};
}

// Codes are ordered by status. For each status, the OpenAPI document shows the example of the first code.
problems! {
    StartProblems: InvalidRequest, Unauthorized, Forbidden, StreamLimitReached, StreamEnded, PayloadTooLarge,
        UnsupportedMediaType, IdempotencyKeyReused, TooManyRequests, Internal, StoreUnavailable, KeysUnavailable,
        Overloaded;
    HeartbeatProblems: InvalidRequest, Unauthorized, Forbidden, StreamNotFound, StreamEnded, TooManyRequests,
        Internal, StoreUnavailable, KeysUnavailable, Overloaded;
    StopProblems: InvalidRequest, Unauthorized, Forbidden, Internal, StoreUnavailable, KeysUnavailable, Overloaded;
    StreamProblems: InvalidRequest, Unauthorized, Forbidden, StreamNotFound, StreamEnded, PayloadTooLarge, Internal,
        StoreUnavailable, KeysUnavailable, Overloaded;
    UserProblems: InvalidRequest, Unauthorized, Forbidden, PayloadTooLarge, Internal, StoreUnavailable,
        KeysUnavailable, Overloaded;
    BodyProblems: InvalidRequest, Unauthorized, Forbidden, PayloadTooLarge, UnsupportedMediaType, Internal,
        StoreUnavailable, KeysUnavailable, Overloaded;
    GrantCheckProblems: InvalidRequest, Unauthorized, RouteNotFound, PayloadTooLarge, Internal, StoreUnavailable,
        Overloaded;
    JwksProblems: InvalidRequest, RouteNotFound, PayloadTooLarge, Internal, Overloaded;
    LiveProblems: InvalidRequest, PayloadTooLarge, Internal;
    ReadyProblems: InvalidRequest, PayloadTooLarge, Internal, Draining, StoreUnavailable, KeysUnavailable;
}

impl<P: Problems> From<Problem> for Failure<P> {
    fn from(problem: Problem) -> Self {
        debug_assert!(P::CODES.contains(&problem.code), "the operation does not document {problem}");
        Self(problem, PhantomData)
    }
}

impl<P: Problems> From<Failure<P>> for poem::Error {
    fn from(failure: Failure<P>) -> Self {
        failure.0.into()
    }
}

impl<P: Problems> ApiResponse for Failure<P> {
    fn meta() -> MetaResponses {
        let mut statuses: Vec<u16> = P::CODES.iter().map(|code| code.status()).collect();
        statuses.dedup();
        let responses = statuses.into_iter().map(|status| {
            let codes: Vec<ProblemCode> = P::CODES.iter().copied().filter(|code| code.status() == status).collect();
            response(status, &codes)
        });
        MetaResponses { responses: responses.collect() }
    }

    fn register(registry: &mut Registry) {
        problem_schemas::register(registry);
    }
}

/// Describes one status and its problems for the OpenAPI document.
fn response(status: u16, codes: &[ProblemCode]) -> MetaResponse {
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.code(), code.title())).collect();
    let example = codes.first().map(|code| code.example());
    let schema = MetaSchema { all_of: vec![problem_schemas::schema_of(codes)], example, ..MetaSchema::ANY };
    let header = |name: &str, description: &str, schema| MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema,
    };
    let mut headers = Vec::new();
    if codes.iter().all(|code| code.has_retry_after()) {
        // The denial of a blocked user has no `Retry-After`.
        let required = status != 409;
        let retry_after = header("Retry-After", "Seconds to wait before a retry.", u32::schema_ref());
        headers.push(MetaHeader { required, ..retry_after });
    }
    if matches!(status, 401 | 403) {
        headers.push(header("WWW-Authenticate", "Bearer challenge (RFC 6750).", String::schema_ref()));
    }
    if status == 415 {
        let accept_encoding =
            header("Accept-Encoding", "`identity`, if the body was compressed.", String::schema_ref());
        headers.push(MetaHeader { required: false, ..accept_encoding });
    }
    MetaResponse {
        // poem-openapi requires a `&'static str`. The leak is bounded, because the document is built only at startup.
        description: String::leak(lines.join(" ")),
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: "application/problem+json",
            schema: MetaSchemaRef::Inline(Box::new(schema)),
        }],
        headers,
    }
}
