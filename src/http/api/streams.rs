//! The operations on streams: each turns a request into one verb of the limiter, and its answer into HTTP.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use poem_openapi::{OpenApi, Tags};

use crate::domain::admission::{Denial, StartOutcome, Started};
use crate::domain::lease::{EndReason, Lease, Timestamp};
use crate::domain::names::{StreamId, UserName};
use crate::http::api::caller::Caller;
use crate::http::api::extract::{EvictQuery, IdempotencyKeyHeader, Path, StartInput};
use crate::http::api::json::Json;
use crate::http::api::model::{EndedBy, Restart, StartedStream, Stream, StreamCount, Streams};
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::rate_limits::Rates;
use crate::http::api::responses::{
    CountResponse, DoneResponse, Failure, HeartbeatProblems, StartProblems, StartResponse, StreamProblems,
    StreamResponse, StreamsResponse, UserProblems,
};
use crate::limiter::{Limiter, StartOptions, Timestamped, Usage};
use crate::store::{StoppedBy, StoreError, StreamState};

pub struct StreamsApi {
    pub limiter: Arc<Limiter>,
    pub rates: Rates,
}

#[derive(Tags)]
pub enum Tag {
    /// What a player calls: start, heartbeat, stop.
    Player,
    /// What a back end asks: who watches what, and how many.
    Streams,
    /// How many streams a user may hold.
    Limits,
    /// Whether the service lives and is ready for requests.
    Health,
}

#[OpenApi]
impl StreamsApi {
    /// Start a stream
    ///
    /// Asks for a slot. **Play unless the answer is 409.** On 5xx, or without an answer, play and keep trying.
    ///
    /// A repetition takes no second slot if it has the same `Idempotency-Key`, or the same `deviceId`. Without either
    /// it is another stream.
    #[oai(path = "/v1/users/:userName/streams", method = "post", operation_id = "start", tag = "Tag::Player")]
    async fn start(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        /// Makes the start repeatable: the same key always means the same stream. 1 to 255 visible ASCII characters.
        /// A key names one playback and is not to be used again after its stop.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKeyHeader,
        body: StartInput,
    ) -> Result<StartResponse, Failure<StartProblems>> {
        let user = user.0;
        self.rates.start(&user)?;
        let keyed = key.0.is_some();
        let options = StartOptions { token_limit: caller.token_limit, ..body.into_options(key)? };
        let Timestamped { now, value: answer } = self.limiter.start(&user, options).await.map_err(store_problem)?;
        match answer {
            StartOutcome::Existing(started) if keyed => {
                Ok(StartResponse::Replayed(Json(self.started(&user, started, now)), "true".to_owned()))
            }
            // Without a key, finding one's own lease means that the answer of an attempt inside was lost.
            StartOutcome::Started(started) | StartOutcome::Existing(started) => {
                let path = stream_path(&user, started.lease.stream_id);
                Ok(StartResponse::Started(Json(self.started(&user, started, now)), path))
            }
            StartOutcome::Ended(lease) => Err(ended(&lease).into()),
            StartOutcome::KeyReused => {
                let detail = "this Idempotency-Key was used with another body: use a new key for a new playback";
                Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail).into())
            }
            StartOutcome::Denied(denial) => Err(self.denied(&user, &denial, now).into()),
        }
    }

    /// List the live streams
    ///
    /// Oldest first, by `startedAt` and then by id. Read consistently.
    #[oai(path = "/v1/users/:userName/streams", method = "get", operation_id = "list", tag = "Tag::Streams")]
    async fn list(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<StreamsResponse, Failure<UserProblems>> {
        let user = user.0;
        let Timestamped { now, value: Usage { limit, streams } } =
            self.limiter.streams(&user, caller.token_limit).await.map_err(store_problem)?;
        Ok(StreamsResponse::Streams(Json(Streams {
            count: StreamCount::new(&user, streams.len(), limit),
            streams: streams.iter().map(|lease| self.stream_object(&user, lease, now)).collect(),
        })))
    }

    /// Count the live streams
    ///
    /// Read consistently: a stream that was started or stopped before is counted or not.
    #[oai(path = "/v1/users/:userName/streams/count", method = "get", operation_id = "count", tag = "Tag::Streams")]
    async fn count(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<CountResponse, Failure<UserProblems>> {
        let user = user.0;
        let Usage { limit, streams } =
            self.limiter.streams(&user, caller.token_limit).await.map_err(store_problem)?.value;
        Ok(CountResponse::Count(Json(StreamCount::new(&user, streams.len(), limit))))
    }

    /// Look at one stream
    ///
    /// 410 while an expired or ended stream is still remembered, else 404.
    #[oai(path = "/v1/users/:userName/streams/:streamId", method = "get", operation_id = "get", tag = "Tag::Streams")]
    async fn get(
        &self,
        _caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        #[oai(name = "streamId")] stream: Path<StreamId>,
    ) -> Result<StreamResponse, Failure<StreamProblems>> {
        let user = user.0;
        let at = self.limiter.stream(&user, stream.0).await.map_err(store_problem)?;
        Ok(self.state(&user, at)?)
    }

    /// Renew a stream
    ///
    /// Send one every `heartbeatIntervalSeconds`. **Stop playing only on 410 with `restart: "user"`; on
    /// `restart: "auto"` start again.** On 5xx, or without an answer, keep playing until the lease runs out, and keep
    /// trying. A body is ignored.
    #[oai(
        path = "/v1/users/:userName/streams/:streamId/heartbeat",
        method = "post",
        operation_id = "heartbeat",
        tag = "Tag::Player"
    )]
    async fn heartbeat(
        &self,
        _caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        #[oai(name = "streamId")] stream: Path<StreamId>,
    ) -> Result<StreamResponse, Failure<HeartbeatProblems>> {
        let user = user.0;
        self.rates.heartbeat(&user)?;
        let at = self.limiter.heartbeat(&user, stream.0).await.map_err(store_problem)?;
        Ok(self.state(&user, at)?)
    }

    /// Stop a stream, or evict it
    ///
    /// Frees the slot at once. 204 also when it is already gone. With `evict=true` somebody other than the stream's
    /// own player ends it (another device, support): its player then learns so at the next heartbeat.
    #[oai(
        path = "/v1/users/:userName/streams/:streamId",
        method = "delete",
        operation_id = "stop",
        tag = "Tag::Player"
    )]
    async fn stop(
        &self,
        _caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        #[oai(name = "streamId")] stream: Path<StreamId>,
        /// Whether somebody other than the stream's own player ends it.
        evict: EvictQuery,
    ) -> Result<DoneResponse, Failure<UserProblems>> {
        let by = if evict.0 { StoppedBy::Evictor } else { StoppedBy::Player };
        self.limiter.stop(&user.0, stream.0, by).await.map_err(store_problem)?;
        Ok(DoneResponse::Done)
    }

    /// Stop a stream, by POST
    ///
    /// The same as DELETE, for `navigator.sendBeacon`, which can only POST. Any content type; a body is ignored.
    #[oai(
        path = "/v1/users/:userName/streams/:streamId/stop",
        method = "post",
        operation_id = "stopByPost",
        tag = "Tag::Player"
    )]
    async fn stop_by_post(
        &self,
        _caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        #[oai(name = "streamId")] stream: Path<StreamId>,
    ) -> Result<DoneResponse, Failure<UserProblems>> {
        self.limiter.stop(&user.0, stream.0, StoppedBy::Player).await.map_err(store_problem)?;
        Ok(DoneResponse::Done)
    }
}

impl StreamsApi {
    fn stream_object(&self, user: &UserName, lease: &Lease, now: Timestamp) -> Stream {
        Stream::new(user, lease, now, self.limiter.policy())
    }

    fn started(&self, user: &UserName, started: Started, now: Timestamp) -> StartedStream {
        StartedStream {
            stream: self.stream_object(user, &started.lease, now),
            limit: started.limit.get(),
            ended: started.ended.into_iter().map(StreamId::uuid).collect(),
        }
    }

    fn state(&self, user: &UserName, at: Timestamped<StreamState>) -> Result<StreamResponse, Problem> {
        match at.value {
            StreamState::Live(lease) => Ok(StreamResponse::Live(Json(self.stream_object(user, &lease, at.now)))),
            StreamState::Inactive(lease) => Err(ended(&lease)),
            StreamState::NotFound => {
                let mut problem = Problem::new(ProblemCode::StreamNotFound, "the user has no such stream");
                problem.extensions.restart = Some(Restart::Auto);
                Err(problem)
            }
        }
    }

    fn denied(&self, user: &UserName, denial: &Denial, now: Timestamp) -> Problem {
        let (count, limit) = (denial.streams.len(), denial.limit);
        let mut problem =
            Problem::new(ProblemCode::StreamLimitReached, format!("{count} of {limit} streams are in use"));
        let earliest = denial.streams.iter().map(|lease| lease.expires_at).min();
        problem.extensions.limit = Some(limit.get());
        problem.extensions.count = Some(count as u32);
        problem.extensions.slot_frees_in_seconds = Some(earliest.map_or(0, |at| at.seconds_after(now)));
        problem.extensions.streams =
            Some(denial.streams.iter().map(|lease| self.stream_object(user, lease, now)).collect());
        problem
    }
}

/// The 410 of a stream that is over. Only what ran out may restart by itself: a player that was pushed out and came
/// back by itself would push out the other in turn, for ever.
fn ended(lease: &Lease) -> Problem {
    let reason = match &lease.termination {
        None => "expired",
        Some(termination) => match termination.reason {
            EndReason::Evicted => "evicted",
            EndReason::Replaced => "replaced",
        },
    };
    let mut problem = Problem::new(ProblemCode::StreamEnded, format!("the stream has {reason}"));
    if lease.termination.is_some() {
        problem.detail = format!("the stream was {reason}");
    }
    problem.extensions.reason = Some(reason);
    problem.extensions.restart = Some(if lease.termination.is_some() { Restart::User } else { Restart::Auto });
    let ended_by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
    problem.extensions.ended_by = ended_by.map(|by| EndedBy {
        stream_id: by.stream_id.uuid(),
        device_name: by.device_name.as_ref().map(ToString::to_string),
    });
    problem
}

/// A failing store is never a limit or an ended stream.
pub fn store_problem(error: StoreError) -> Problem {
    let mut problem = match error {
        StoreError::NotApplied { .. } => {
            Problem::new(ProblemCode::StoreUnavailable, "the store refused it for now: repeat the request")
        }
        StoreError::Unknown(_) => {
            Problem::new(ProblemCode::StoreUnavailable, "the outcome is not known: repeat the request")
        }
        StoreError::Corrupt { .. } => Problem::new(ProblemCode::Internal, "stored data of this user is not valid"),
    };
    problem.cause = Some(error.to_string());
    problem
}

/// A path segment's unreserved characters (RFC 3986) stay as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn stream_path(user: &UserName, stream_id: StreamId) -> String {
    format!("/v1/users/{}/streams/{stream_id}", utf8_percent_encode(user.as_str(), SEGMENT))
}
