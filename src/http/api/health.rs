//! Whether the process lives, and whether it is ready for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use poem_openapi::OpenApi;

use crate::http::api::json::Json;
use crate::http::api::model::Health;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::responses::{Failure, HealthResponse, LiveProblems, ReadyProblems};
use crate::http::api::route_context::AuthMode;
use crate::http::api::streams::Tag;
use crate::http::auth::TokenError;
use crate::telemetry::clock_skew::ClockSkew;

/// Ready once the store was seen, until the process drains. A store that is slow or away later does not change it:
/// a load balancer would take every instance out at once, and they could not even say 503.
#[derive(Debug, Default)]
pub struct Readiness {
    store_seen: AtomicBool,
    draining: AtomicBool,
    clock: Arc<ClockSkew>,
}

impl Readiness {
    /// Reports how far the host's clock is off, by what `clock` has seen. It changes no answer to be or not to be ready: the
    /// limit holds under any clock, and an instance less would help nobody.
    pub fn watching(clock: Arc<ClockSkew>) -> Self {
        Self { clock, ..Self::default() }
    }

    pub fn store_seen(&self) {
        self.store_seen.store(true, Ordering::Relaxed);
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

pub struct HealthApi {
    pub readiness: Arc<Readiness>,
    pub access: AuthMode,
}

#[OpenApi]
impl HealthApi {
    /// Does the process live?
    #[oai(path = "/health/live", method = "get", operation_id = "live", tag = "Tag::Health")]
    async fn live(&self) -> Result<HealthResponse, Failure<LiveProblems>> {
        Ok(HealthResponse::Ok(Json(ok())))
    }

    /// Is it ready for requests?
    ///
    /// Settings, credentials and table were seen, so were the keys that tokens are checked with, and it is not shutting
    /// down. A clock that is off is told, and does not make the service unready.
    #[oai(path = "/health/ready", method = "get", operation_id = "ready", tag = "Tag::Health")]
    async fn ready(&self) -> Result<HealthResponse, Failure<ReadyProblems>> {
        self.readiness()
    }

    /// Is it ready for requests?
    ///
    /// The same as `/health/ready`.
    #[oai(path = "/health", method = "get", operation_id = "health", tag = "Tag::Health")]
    async fn health(&self) -> Result<HealthResponse, Failure<ReadyProblems>> {
        self.readiness()
    }
}

impl HealthApi {
    fn readiness(&self) -> Result<HealthResponse, Failure<ReadyProblems>> {
        let detail = if self.readiness.draining.load(Ordering::Relaxed) {
            "the service is shutting down"
        } else if !self.readiness.store_seen.load(Ordering::Relaxed) {
            "the store has not answered yet since the start"
        } else {
            return match &self.access {
                AuthMode::Jwt(tokens) if !tokens.has_keys() => {
                    Err(Problem::new(ProblemCode::KeysUnavailable, TokenError::NoKeys.to_string()).into())
                }
                _ => Ok(HealthResponse::Ok(Json(ready(&self.readiness.clock)))),
            };
        };
        Err(Problem::new(ProblemCode::StoreUnavailable, detail).into())
    }
}

fn ok() -> Health {
    Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock_difference_seconds: None,
        warnings: None,
    }
}

/// With what an operator should know, though the service can serve.
fn ready(clock: &ClockSkew) -> Health {
    // More digits than one would pretend to know more than the answers' whole seconds tell.
    // Adding 0 makes 0 of -0.
    let tenths = |seconds: f64| (seconds * 10.0).round() / 10.0 + 0.0;
    let warning = clock.seconds_off().map(tenths).map(|seconds| {
        let side = if seconds > 0.0 { "ahead of" } else { "behind" };
        format!("this host's clock is {} s {side} the store's: set the time (NTP)", seconds.abs())
    });
    Health {
        clock_difference_seconds: clock.seconds().map(tenths),
        warnings: warning.map(|warning| vec![warning]),
        ..ok()
    }
}
