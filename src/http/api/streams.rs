//! The operations on streams. Each calls one operation of the limiter and converts its result to HTTP.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use poem_openapi::OpenApi;

use crate::domain::admission::{Denial, StartOutcome, Started};
use crate::domain::lease::{EndReason, Lease, Timestamp};
use crate::domain::names::{StreamId, UserName};
use crate::domain::rules;
use crate::http::api::caller::Caller;
use crate::http::api::extract::body::{EvictionBody, HeartbeatBody, StartBody};
use crate::http::api::extract::params::{FlagQuery, IdempotencyKeyHeader};
use crate::http::api::extract::path::Path;
use crate::http::api::json::Json;
use crate::http::api::model::problem::{EndedBy, Restart, StreamEndReason};
use crate::http::api::model::responses::{Evicted, RuleUse, StartedStream, Stream, StreamCount, Streams};
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::rate_limits::RateLimits;
use crate::http::api::responses::{
    BodyProblems, CountResponse, EvictedResponse, Failure, HeartbeatProblems, NoContentResponse, StartProblems,
    StartResponse, StopProblems, StreamProblems, StreamResponse, StreamsResponse, UserProblems,
};
use crate::http::api::tags::Tag;
use crate::http::grants::authority::GrantAuthority;
use crate::limiter::{Limiter, StartOptions, Timestamped, Usage};
use crate::store::StreamState;

pub(crate) struct StreamsApi {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) rates: Arc<RateLimits>,
    /// `None` if grants are off.
    pub(crate) grants: Option<Arc<GrantAuthority>>,
}

#[OpenApi]
impl StreamsApi {
    /// Start a stream
    ///
    /// Requests a slot. **Play unless the response is 409.** A refused or unanswered start is no free pass: play for at most
    /// one lease duration while retrying, then follow the player's setting.
    ///
    /// A repeated start with the same `Idempotency-Key` or the same `deviceId` takes no second slot. A repeated start
    /// with neither starts another stream.
    #[oai(path = "/v1/users/:userName/streams", method = "post", operation_id = "start", tag = "Tag::Player")]
    async fn start(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        /// Makes the start safe to retry: a start with the same key returns the same stream. 1 to 255 visible ASCII
        /// characters. A key identifies one playback. Do not reuse it after the stop.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKeyHeader,
        body: StartBody,
    ) -> Result<StartResponse, Failure<StartProblems>> {
        let user = user.0;
        self.rates.start(&user)?;
        let has_key = key.0.is_some();
        let Caller { token_limit, token_labels } = caller;
        let options = StartOptions { token_limit, token_labels, ..body.into_options(key)? };
        let Timestamped { now, value: outcome } = self.limiter.start(&user, options).await.map_err(Problem::from)?;
        match outcome {
            StartOutcome::Existing(started) if has_key => {
                Ok(StartResponse::Replayed(Json(self.started_stream(&user, started, now)), "true".to_owned()))
            }
            // Without a key, an existing lease can only be from an earlier attempt of this same request whose result was
            // lost.
            StartOutcome::Started(started) | StartOutcome::Existing(started) => {
                let path = stream_path(&user, started.lease.stream_id);
                Ok(StartResponse::Started(Json(self.started_stream(&user, started, now)), path))
            }
            StartOutcome::Ended(lease) => Err(stream_ended(&lease).into()),
            StartOutcome::KeyReused => {
                let detail = "this Idempotency-Key was used with a different body; use a new key for a new playback";
                Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail).into())
            }
            StartOutcome::Denied(denial) => Err(self.limit_reached(&user, &denial, now).into()),
        }
    }

    /// List the live streams
    ///
    /// Sorted by `startedAt`, then by id, oldest first. This is a consistent read. `rules` contains the use of each rule that counts
    /// at least one of these streams.
    #[oai(path = "/v1/users/:userName/streams", method = "get", operation_id = "list", tag = "Tag::Streams")]
    async fn list(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<StreamsResponse, Failure<UserProblems>> {
        let user = user.0;
        let Timestamped { now, value: Usage { limit, streams } } =
            self.limiter.streams(&user, caller.token_limit).await.map_err(Problem::from)?;
        Ok(StreamsResponse::Streams(Json(Streams {
            count: StreamCount::new(&user, streams.len(), limit),
            streams: streams.iter().map(|lease| self.stream(&user, lease, now)).collect(),
            rules: rules::usage(&self.limiter.policy().rules, &streams).into_iter().map(RuleUse::new).collect(),
        })))
    }

    /// Count the live streams
    ///
    /// This is a consistent read: it reflects all starts and stops that completed before it.
    #[oai(path = "/v1/users/:userName/streams/count", method = "get", operation_id = "count", tag = "Tag::Streams")]
    async fn count(
        &self,
        caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
    ) -> Result<CountResponse, Failure<UserProblems>> {
        let user = user.0;
        let Usage { limit, streams } =
            self.limiter.streams(&user, caller.token_limit).await.map_err(Problem::from)?.value;
        Ok(CountResponse::Count(Json(StreamCount::new(&user, streams.len(), limit))))
    }

    /// Get a stream
    ///
    /// Returns 410 for an expired or ended stream while it is still stored, then 404.
    #[oai(path = "/v1/users/:userName/streams/:streamId", method = "get", operation_id = "get", tag = "Tag::Streams")]
    async fn get(
        &self,
        _caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        #[oai(name = "streamId")] stream: Path<StreamId>,
    ) -> Result<StreamResponse, Failure<StreamProblems>> {
        let user = user.0;
        let Timestamped { now, value: state } = self.limiter.stream(&user, stream.0).await.map_err(Problem::from)?;
        Ok(StreamResponse::Live(Json(self.stream(&user, &live(state)?, now))))
    }

    /// Send a heartbeat
    ///
    /// Renews the stream's lease. Send a heartbeat every `heartbeatIntervalSeconds`. **Stop playing only on 410 with
    /// `restart: "user"`; on `restart: "auto"`, start again.** On 5xx or without a response, keep playing until the
    /// lease expires, and keep retrying.
    ///
    /// If the content has changed, send it as `contentId`. If the lease needs no renewal, the content is not stored; the
    /// response contains the stored one. Any other body is ignored, whatever its media type, encoding and size.
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
        body: HeartbeatBody,
    ) -> Result<StreamResponse, Failure<HeartbeatProblems>> {
        let user = user.0;
        self.rates.heartbeat(&user)?;
        let Timestamped { now, value: state } =
            self.limiter.heartbeat(&user, stream.0, body.0).await.map_err(Problem::from)?;
        Ok(StreamResponse::Live(Json(self.granted_stream(&user, &live(state)?, now))))
    }

    /// Stop or evict a stream
    ///
    /// Frees the slot at once. Returns 204 even if the stream no longer exists. Use `evict=true` if the client is not the
    /// stream's own player, for example another device or support. The player then gets 410 at its next heartbeat.
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
        /// True if the client is not the stream's own player.
        evict: FlagQuery,
    ) -> Result<NoContentResponse, Failure<StopProblems>> {
        if evict.0 {
            self.limiter.evict(&user.0, Some(vec![stream.0]), None).await.map_err(Problem::from)?;
        } else {
            self.limiter.stop(&user.0, stream.0).await.map_err(Problem::from)?;
        }
        Ok(NoContentResponse::Done)
    }

    /// Stop a stream by POST
    ///
    /// The same as DELETE, for `navigator.sendBeacon`, which can only send POST. The request body is ignored, whatever its
    /// media type, encoding and size.
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
    ) -> Result<NoContentResponse, Failure<StopProblems>> {
        self.limiter.stop(&user.0, stream.0).await.map_err(Problem::from)?;
        Ok(NoContentResponse::Done)
    }

    /// Evict streams
    ///
    /// Ends the streams in `streamIds` in one step. **Without `streamIds`, or if it is `null`, ends all live streams.** The
    /// players get 410 with `restart: "user"` and the message at their next heartbeats. A repetition returns only the streams that it ends
    /// itself.
    #[oai(path = "/v1/users/:userName/evictions", method = "post", operation_id = "evict", tag = "Tag::Streams")]
    async fn evict(
        &self,
        _caller: Caller,
        #[oai(name = "userName")] user: Path<UserName>,
        body: EvictionBody,
    ) -> Result<EvictedResponse, Failure<BodyProblems>> {
        let EvictionBody { stream_ids, message } = body;
        let ended = self.limiter.evict(&user.0, stream_ids, message).await.map_err(Problem::from)?;
        Ok(EvictedResponse::Evicted(Json(Evicted { ended: ended.into_iter().map(StreamId::uuid).collect() })))
    }
}

impl StreamsApi {
    fn stream(&self, user: &UserName, lease: &Lease, now: Timestamp) -> Stream {
        Stream::new(user, lease, now, &self.limiter.policy().terms)
    }

    /// The stream with its grant, for responses that start or renew it.
    fn granted_stream(&self, user: &UserName, lease: &Lease, now: Timestamp) -> Stream {
        let grant = self.grants.as_ref().and_then(|grants| grants.sign(user, lease, now));
        Stream { grant, ..self.stream(user, lease, now) }
    }

    fn started_stream(&self, user: &UserName, started: Started, now: Timestamp) -> StartedStream {
        StartedStream {
            stream: self.granted_stream(user, &started.lease, now),
            limit: started.limit.limit.get(),
            ended: started.ended_ids().into_iter().map(StreamId::uuid).collect(),
            over_limit: (!started.over_limit.is_empty()).then_some(true),
        }
    }

    fn limit_reached(&self, user: &UserName, denial: &Denial, now: Timestamp) -> Problem {
        let (count, limit) = (denial.streams.len(), denial.limit);
        let detail = match (&denial.rule, limit.is_blocked()) {
            (None, true) => "the user is blocked: the limit is 0".to_owned(),
            (None, false) if limit != denial.user_limit.limit => {
                format!("{count} of {limit} streams are in use (the maximum in observe mode)")
            }
            (None, false) => format!("{count} of {limit} streams are in use"),
            (Some(rule), true) => format!("rule \"{rule}\": this stream is forbidden"),
            (Some(rule), false) => format!("rule \"{rule}\": {count} of {limit} streams are in use"),
        };
        let mut problem = Problem::new(ProblemCode::StreamLimitReached, detail);
        problem.extensions.slot_frees_in_seconds = denial.slot_frees_at.map(|at| at.seconds_after(now));
        problem.extensions.rule = denial.rule.as_ref().map(ToString::to_string);
        problem.extensions.limit = Some(limit.get());
        problem.extensions.count = Some(count as u32);
        problem.extensions.streams = Some(denial.streams.iter().map(|lease| self.stream(user, lease, now)).collect());
        problem
    }
}

fn live(state: StreamState) -> Result<Lease, Problem> {
    match state {
        StreamState::Live(lease) => Ok(lease),
        StreamState::Inactive(lease) => Err(stream_ended(&lease)),
        StreamState::NotFound => {
            let mut problem = Problem::new(ProblemCode::StreamNotFound, "the user has no such stream");
            problem.extensions.restart = Some(Restart::Auto);
            Err(problem)
        }
    }
}

/// Only an expired stream may be started again automatically. If players restarted automatically after an eviction, they
/// would evict each other endlessly.
fn stream_ended(lease: &Lease) -> Problem {
    let (reason, detail, restart) = match lease.termination.as_ref().map(|termination| termination.reason) {
        None => (StreamEndReason::Expired, "the stream has expired", Restart::Auto),
        Some(EndReason::Evicted) => (StreamEndReason::Evicted, "the stream was evicted", Restart::User),
        Some(EndReason::Replaced) => (StreamEndReason::Replaced, "the stream was replaced", Restart::User),
    };
    let mut problem = Problem::new(ProblemCode::StreamEnded, detail);
    problem.extensions.reason = Some(reason);
    problem.extensions.restart = Some(restart);
    let ended_by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
    problem.extensions.ended_by = ended_by.map(|by| EndedBy {
        stream_id: by.stream_id.map(StreamId::uuid),
        device_name: by.device_name.as_ref().map(ToString::to_string),
        message: by.message.as_ref().map(ToString::to_string),
    });
    problem
}

/// All characters except the unreserved ones of RFC 3986 are percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn stream_path(user: &UserName, stream_id: StreamId) -> String {
    format!("/v1/users/{}/streams/{stream_id}", utf8_percent_encode(user.as_str(), SEGMENT))
}
