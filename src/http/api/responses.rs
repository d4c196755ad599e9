//! The answers of each operation as OpenAPI sees them: the success types, and from the table of problems exactly those
//! that the operation can give.

use std::marker::PhantomData;

use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;

use crate::http::api::json::Json;
use crate::http::api::model::{Health, Limit, ProblemBody, StartedStream, Stream, StreamCount, Streams};
use crate::http::api::problems::{Problem, ProblemCode};

#[derive(ApiResponse)]
pub enum StartResponse {
    /// The stream has a slot. Send heartbeats, and stop it when it ends.
    #[oai(status = 201)]
    Started(
        Json<StartedStream>,
        /// The path of the stream.
        #[oai(header = "Location")]
        String,
    ),
    /// The same start was answered before: this is its stream.
    #[oai(status = 200)]
    Replayed(
        Json<StartedStream>,
        /// Always `true`.
        #[oai(header = "Idempotency-Replayed")]
        String,
    ),
}

#[derive(ApiResponse)]
pub enum StreamResponse {
    /// The stream is live.
    #[oai(status = 200)]
    Live(Json<Stream>),
}

#[derive(ApiResponse)]
pub enum StreamsResponse {
    /// The live streams of the user.
    #[oai(status = 200)]
    Streams(Json<Streams>),
}

#[derive(ApiResponse)]
pub enum CountResponse {
    /// The number of live streams of the user.
    #[oai(status = 200)]
    Count(Json<StreamCount>),
}

#[derive(ApiResponse)]
pub enum LimitResponse {
    /// The limit in force.
    #[oai(status = 200)]
    Limit(Json<Limit>),
}

#[derive(ApiResponse)]
pub enum DoneResponse {
    /// Done, or done before.
    #[oai(status = 204)]
    Done,
}

#[derive(ApiResponse)]
pub enum HealthResponse {
    /// The service is well.
    #[oai(status = 200)]
    Ok(Json<Health>),
}

/// Which problems an operation can answer.
pub trait Problems: Send + Sync + 'static {
    const CODES: &'static [ProblemCode];
}

/// A problem of an operation whose problems are `P`.
pub struct Failure<P>(Problem, PhantomData<P>);

macro_rules! problems {
    ($($name:ident: $($code:ident),+;)*) => {$(
        pub struct $name;

        impl Problems for $name {
            const CODES: &'static [ProblemCode] = &[$(ProblemCode::$code),+];
        }
    )*};
}

problems! {
    StartProblems: InvalidRequest, Unauthorized, Forbidden, StreamLimitReached, StreamEnded, PayloadTooLarge,
        UnsupportedMediaType, IdempotencyKeyReused, TooManyRequests, Internal, StoreUnavailable, KeysUnavailable, Overloaded;
    HeartbeatProblems: InvalidRequest, Unauthorized, Forbidden, StreamNotFound, StreamEnded, PayloadTooLarge,
        TooManyRequests, Internal, StoreUnavailable, KeysUnavailable, Overloaded;
    StreamProblems: InvalidRequest, Unauthorized, Forbidden, StreamNotFound, StreamEnded, PayloadTooLarge, Internal,
        StoreUnavailable, KeysUnavailable, Overloaded;
    UserProblems: InvalidRequest, Unauthorized, Forbidden, PayloadTooLarge, Internal, StoreUnavailable, KeysUnavailable,
        Overloaded;
    SetLimitProblems: InvalidRequest, Unauthorized, Forbidden, PayloadTooLarge, UnsupportedMediaType, Internal,
        StoreUnavailable, KeysUnavailable, Overloaded;
    LiveProblems: InvalidRequest, PayloadTooLarge, Internal;
    ReadyProblems: InvalidRequest, PayloadTooLarge, Internal, StoreUnavailable, KeysUnavailable;
}

impl<P: Problems> From<Problem> for Failure<P> {
    fn from(problem: Problem) -> Self {
        debug_assert!(P::CODES.contains(&problem.code), "{problem} is not among the operation's problems");
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
        ProblemBody::register(registry);
    }
}

/// One status with the problems behind it, each with its example.
fn response(status: u16, codes: &[ProblemCode]) -> MetaResponse {
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.code(), code.title())).collect();
    let schema = MetaSchema {
        all_of: vec![ProblemBody::schema_ref()],
        example: codes.first().map(|code| code.example()),
        ..MetaSchema::ANY
    };
    let header = |name: &str, description: &str, schema| MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema,
    };
    let mut headers = Vec::new();
    if codes.iter().all(|code| code.has_retry_after()) {
        headers.push(header("Retry-After", "Seconds after which trying again can help.", u32::schema_ref()));
    }
    if matches!(status, 401 | 403) {
        headers.push(header("WWW-Authenticate", "What is asked of a token (RFC 6750).", String::schema_ref()));
    }
    MetaResponse {
        // poem-openapi wants a static text; the document is made once in the life of the process.
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
