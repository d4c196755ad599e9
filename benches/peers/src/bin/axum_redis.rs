//! A common alternative to stream-manager: an axum server with one sorted set per user in Redis. Redis scripts enforce the limit.
//! All requests share one multiplexed connection to Redis. Usage: `axum_redis ADDRESS REDIS_URL`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Key: the user's set. Arguments: stream, now, expiry, limit. Deletes expired streams before it compares the count with the limit.
const START: &str = "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 3600000)
return 1";

/// Key: the user's set. Arguments: stream, now, expiry. Renews only an active stream.
const HEARTBEAT: &str = "local expiry = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not expiry or tonumber(expiry) <= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 3600000)
return 1";

#[derive(Clone)]
struct Streams {
    redis: MultiplexedConnection,
    scripts: Arc<Scripts>,
}

struct Scripts {
    start: Script,
    heartbeat: Script,
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
    let url = std::env::args().nth(2).ok_or("usage: axum_redis ADDRESS REDIS_URL")?;
    let redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let scripts = Scripts { start: Script::new(START), heartbeat: Script::new(HEARTBEAT) };
    let routes = Router::new()
        .route("/v1/users/{user}/streams", post(start))
        .route("/v1/users/{user}/streams/count", get(count))
        .route("/v1/users/{user}/streams/{stream}", delete(stop))
        .route("/v1/users/{user}/streams/{stream}/heartbeat", post(heartbeat))
        .with_state(Streams { redis, scripts: Arc::new(scripts) });
    let listener = tokio::net::TcpListener::bind(peers::address()).await?;
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true)), routes).await?;
    Ok(())
}

async fn start(State(mut streams): State<Streams>, Path(user): Path<String>) -> Result<Response, Unavailable> {
    let now = now_ms();
    let stream = format!("{:032x}", u128::from(now) << 64 | u128::from(STARTS.fetch_add(1, Ordering::Relaxed)));
    let mut script = streams.scripts.start.prepare_invoke();
    script.key(&user).arg(&stream).arg(now).arg(now + LEASE_MS).arg(LIMIT);
    let admitted: bool = script.invoke_async(&mut streams.redis).await?;
    if !admitted {
        return Ok(StatusCode::CONFLICT.into_response());
    }
    Ok((StatusCode::CREATED, stream_json(stream, user, now)).into_response())
}

async fn heartbeat(
    State(mut streams): State<Streams>,
    Path((user, stream)): Path<(String, String)>,
) -> Result<Response, Unavailable> {
    let now = now_ms();
    let mut script = streams.scripts.heartbeat.prepare_invoke();
    script.key(&user).arg(&stream).arg(now).arg(now + LEASE_MS);
    let renewed: bool = script.invoke_async(&mut streams.redis).await?;
    if !renewed {
        return Ok(StatusCode::GONE.into_response());
    }
    Ok(stream_json(stream, user, now).into_response())
}

async fn stop(
    State(mut streams): State<Streams>,
    Path((user, stream)): Path<(String, String)>,
) -> Result<StatusCode, Unavailable> {
    let _: u64 = redis::cmd("ZREM").arg(user).arg(stream).query_async(&mut streams.redis).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn count(State(mut streams): State<Streams>, Path(user): Path<String>) -> Result<Json<Count>, Unavailable> {
    let count = redis::cmd("ZCOUNT").arg(&user).arg(now_ms()).arg("+inf").query_async(&mut streams.redis).await?;
    Ok(Json(Count { user_name: user, count, limit: LIMIT }))
}

fn stream_json(stream_id: String, user_name: String, now: u64) -> Json<Stream> {
    Json(Stream {
        stream_id,
        user_name,
        started_at: now,
        expires_at: now + LEASE_MS,
        expires_in_seconds: LEASE_MS / 1000,
        heartbeat_interval_seconds: 30,
    })
}

/// Makes stream ids unique.
static STARTS: AtomicU64 = AtomicU64::new(0);

#[expect(clippy::disallowed_methods, reason = "the service's clock is not available here")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

/// A Redis request failed.
struct Unavailable;

impl From<redis::RedisError> for Unavailable {
    fn from(_: redis::RedisError) -> Self {
        Self
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}
