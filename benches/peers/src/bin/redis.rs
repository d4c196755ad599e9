//! What one would write instead: axum, and a sorted set a user in Redis that a script keeps within the limit, on one multiplexed
//! connection. `redis ADDRESS REDIS_URL`

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use redis::Script;
use redis::aio::MultiplexedConnection;
use serde::Serialize;

const LEASE_MS: u64 = 90_000;
const LIMIT: u64 = 3;

/// Key: the user's set. Arguments: stream, now, expiry, limit. Expired ones go first.
const START: &str = "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 3600000)
return 1";

/// Arguments: stream, now, expiry. Only what is live is renewed.
const HEARTBEAT: &str = "local expiry = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not expiry or tonumber(expiry) <= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 3600000)
return 1";

#[derive(Clone)]
struct Streams {
    redis: MultiplexedConnection,
    scripts: Arc<(Script, Script)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    stream_id: String,
    user_name: String,
    started_at: u64,
    expires_at: u64,
    expires_in_seconds: u64,
    heartbeat_interval_seconds: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    user_name: String,
    count: u64,
    limit: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (address, url) = (arguments.next().ok_or("ADDRESS")?, arguments.next().ok_or("REDIS_URL")?);
    let redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let streams = Streams { redis, scripts: Arc::new((Script::new(START), Script::new(HEARTBEAT))) };
    let routes = Router::new()
        .route("/v1/users/{user}/streams", post(start))
        .route("/v1/users/{user}/streams/count", get(count))
        .route("/v1/users/{user}/streams/{stream}", delete(stop))
        .route("/v1/users/{user}/streams/{stream}/heartbeat", post(heartbeat))
        .with_state(streams);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true)), routes).await?;
    Ok(())
}

async fn start(State(mut streams): State<Streams>, Path(user): Path<String>) -> Result<Response, Failed> {
    let now = now();
    let stream = format!(
        "{:032x}",
        u128::from(now) << 64 | u128::from(COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    );
    let mut call = streams.scripts.0.prepare_invoke();
    call.key(&user).arg(&stream).arg(now).arg(now + LEASE_MS).arg(LIMIT);
    let admitted: bool = call.invoke_async(&mut streams.redis).await?;
    if !admitted {
        return Ok(StatusCode::CONFLICT.into_response());
    }
    Ok((StatusCode::CREATED, answer(stream, user, now)).into_response())
}

async fn heartbeat(
    State(mut streams): State<Streams>,
    Path((user, stream)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let now = now();
    let mut call = streams.scripts.1.prepare_invoke();
    call.key(&user).arg(&stream).arg(now).arg(now + LEASE_MS);
    let renewed: bool = call.invoke_async(&mut streams.redis).await?;
    if !renewed {
        return Ok(StatusCode::GONE.into_response());
    }
    Ok(answer(stream, user, now).into_response())
}

async fn stop(
    State(mut streams): State<Streams>,
    Path((user, stream)): Path<(String, String)>,
) -> Result<StatusCode, Failed> {
    let _: u64 = redis::cmd("ZREM").arg(user).arg(stream).query_async(&mut streams.redis).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn count(State(mut streams): State<Streams>, Path(user): Path<String>) -> Result<Json<Count>, Failed> {
    let count = redis::cmd("ZCOUNT").arg(&user).arg(now()).arg("+inf").query_async(&mut streams.redis).await?;
    Ok(Json(Count { user_name: user, count, limit: LIMIT }))
}

fn answer(stream_id: String, user_name: String, now: u64) -> Json<Stream> {
    Json(Stream {
        stream_id,
        user_name,
        started_at: now,
        expires_at: now + LEASE_MS,
        expires_in_seconds: LEASE_MS / 1000,
        heartbeat_interval_seconds: 30,
    })
}

static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[expect(clippy::disallowed_methods, reason = "the peer has no clock of the service's")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

struct Failed;

impl From<redis::RedisError> for Failed {
    fn from(_: redis::RedisError) -> Self {
        Self
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}
