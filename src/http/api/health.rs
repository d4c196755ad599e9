//! Liveness and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use poem_openapi::OpenApi;

use crate::http::api::json::Json;
use crate::http::api::model::responses::Health;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::responses::{Failure, HealthResponse, LiveProblems, ReadyProblems};
use crate::http::api::route_context::AuthMode;
use crate::http::api::tags::Tag;
use crate::http::auth::TokenError;
use crate::telemetry::clock_skew::ClockSkew;

/// The readiness of this instance. It is ready from the store's first response until shutdown begins. Later store
/// failures do not change readiness. Otherwise, the load balancer would remove all instances at once, and players would
/// not even get a 503.
#[derive(Debug, Default)]
pub struct Readiness {
    store_seen: AtomicBool,
    draining: AtomicBool,
    clock: Arc<ClockSkew>,
}

impl Readiness {
    /// Reports the clock skew in readiness responses. Clock skew does not make the service unready, because the stream
    /// limit holds with any clock and removing the instance would not help.
    pub fn with_clock_skew(clock: Arc<ClockSkew>) -> Self {
        Self { clock, ..Self::default() }
    }

    pub fn mark_store_seen(&self) {
        self.store_seen.store(true, Ordering::Relaxed);
    }

    /// Begins the shutdown: readiness fails, and each response closes its connection.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

pub(crate) struct HealthApi {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) auth: AuthMode,
}

#[OpenApi]
impl HealthApi {
    /// Liveness
    ///
    /// Returns 200 while the process serves requests.
    #[oai(path = "/health/live", method = "get", operation_id = "live", tag = "Tag::Health")]
    async fn live(&self) -> Result<HealthResponse, Failure<LiveProblems>> {
        Ok(HealthResponse::Ok(Json(health())))
    }

    /// Readiness
    ///
    /// Returns 200 once the store has responded and the token verification keys are loaded, until shutdown begins. Clock
    /// skew is reported in `warnings` and does not make the service unready.
    #[oai(path = "/health/ready", method = "get", operation_id = "ready", tag = "Tag::Health")]
    async fn ready(&self) -> Result<HealthResponse, Failure<ReadyProblems>> {
        self.readiness()
    }

    /// Readiness
    ///
    /// The same as `/health/ready`.
    #[oai(path = "/health", method = "get", operation_id = "health", tag = "Tag::Health")]
    async fn health(&self) -> Result<HealthResponse, Failure<ReadyProblems>> {
        self.readiness()
    }
}

impl HealthApi {
    fn readiness(&self) -> Result<HealthResponse, Failure<ReadyProblems>> {
        if self.readiness.is_draining() {
            return Err(Problem::new(ProblemCode::Draining, "the service is shutting down").into());
        }
        if !self.readiness.store_seen.load(Ordering::Relaxed) {
            let detail = "the store has not responded since startup";
            let mut problem = Problem::new(ProblemCode::StoreUnavailable, detail);
            // Failed probes need no log line, because the events `store_unavailable` and `store_ready` report each change.
            problem.reported = true;
            return Err(problem.into());
        }
        match &self.auth {
            AuthMode::Jwt(verifier) if !verifier.has_keys() => {
                Err(Problem::new(ProblemCode::KeysUnavailable, TokenError::NoKeys.to_string()).into())
            }
            _ => Ok(HealthResponse::Ok(Json(health_with_clock(&self.readiness.clock)))),
        }
    }
}

fn health() -> Health {
    Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock_difference_seconds: None,
        warnings: None,
    }
}

fn health_with_clock(clock: &ClockSkew) -> Health {
    // The store's clock is known only in whole seconds, so more digits would be noise. Adding 0 turns -0 into 0.
    let round = |seconds: f64| (seconds * 10.0).round() / 10.0 + 0.0;
    let warning = clock.seconds_off().map(round).map(|seconds| {
        let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
        format!("this host's clock is {} s {direction} the store's clock; check NTP", seconds.abs())
    });
    Health {
        clock_difference_seconds: clock.seconds().map(round),
        warnings: warning.map(|warning| vec![warning]),
        ..health()
    }
}
