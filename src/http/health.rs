//! Whether the process lives, and whether it is ready for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use poem_openapi::OpenApi;
use poem_openapi::payload::Json;

use super::answers::{Failure, HealthAnswer, LiveProblems, ReadyProblems};
use super::auth::caller::Access;
use super::problems::{Problem, ProblemCode};
use super::streams::Tag;
use super::wire::HealthObject;

/// Ready once the store was seen, until the process drains. A store that is slow or away later does not change it:
/// a load balancer would take every instance out at once, and they could not even say 503.
#[derive(Debug, Default)]
pub struct Readiness {
    store_seen: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    pub fn store_seen(&self) {
        self.store_seen.store(true, Ordering::Relaxed);
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

pub struct HealthApi {
    pub readiness: Arc<Readiness>,
    pub access: Access,
}

#[OpenApi]
impl HealthApi {
    /// Does the process live?
    #[oai(path = "/health/live", method = "get", operation_id = "live", tag = "Tag::Health")]
    async fn live(&self) -> Result<HealthAnswer, Failure<LiveProblems>> {
        Ok(ok())
    }

    /// Is it ready for requests?
    ///
    /// Settings, credentials and table were seen, so were the keys that tokens are checked with, and it is not shutting down.
    #[oai(path = "/health/ready", method = "get", operation_id = "ready", tag = "Tag::Health")]
    async fn ready(&self) -> Result<HealthAnswer, Failure<ReadyProblems>> {
        self.readiness()
    }

    /// Is it ready for requests?
    ///
    /// The same as `/health/ready`.
    #[oai(path = "/health", method = "get", operation_id = "health", tag = "Tag::Health")]
    async fn health(&self) -> Result<HealthAnswer, Failure<ReadyProblems>> {
        self.readiness()
    }
}

impl HealthApi {
    fn readiness(&self) -> Result<HealthAnswer, Failure<ReadyProblems>> {
        let detail = if self.readiness.draining.load(Ordering::Relaxed) {
            "the service is shutting down"
        } else if !self.readiness.store_seen.load(Ordering::Relaxed) {
            "the store has not answered yet since the start"
        } else {
            return match &self.access {
                Access::Tokens(tokens) if !tokens.has_keys() => {
                    let detail = "the keys that tokens are checked with have not been fetched yet";
                    Err(Problem::new(ProblemCode::KeysUnavailable, detail).into())
                }
                _ => Ok(ok()),
            };
        };
        Err(Problem::new(ProblemCode::StoreUnavailable, detail).into())
    }
}

fn ok() -> HealthAnswer {
    HealthAnswer::Ok(Json(HealthObject { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }))
}
