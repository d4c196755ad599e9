//! The OpenAPI document, and the operations that it describes.

use std::sync::Arc;

use poem_openapi::OpenApiService;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::health::{HealthApi, Readiness};
use super::rate_limits::Rates;
use super::route_context::AuthMode;
use super::streams::StreamsApi;
use super::users::UsersApi;
use crate::clock::ManualClock;
use crate::limiter::{Limiter, Policy};
use crate::store::memory::MemoryStore;
use crate::telemetry::metrics::Metrics;

/// The OpenAPI document that `/openapi.json` serves.
pub fn openapi_document() -> String {
    openapi_service().spec()
}

pub(crate) fn openapi_service() -> OpenApiService<Apis, ()> {
    OpenApiService::new(apis_for_spec(), "stream-manager", env!("CARGO_PKG_VERSION")).description(DESCRIPTION)
}

/// Creates the APIs for the OpenAPI document only. poem-openapi needs values, although it reads only their types.
pub(crate) fn apis_for_spec() -> Apis {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(ManualClock::default()));
    let (random, metrics) = (StdRng::seed_from_u64(0), Arc::new(Metrics::new()));
    let limiter = Limiter::new(store, clock, random, metrics, Policy::default());
    apis(Arc::new(limiter), Arc::default(), Rates::unbounded(), AuthMode::Disabled)
}

pub(crate) type Apis = (StreamsApi, UsersApi, HealthApi);

pub(crate) fn apis(limiter: Arc<Limiter>, readiness: Arc<Readiness>, rates: Rates, auth: AuthMode) -> Apis {
    let streams = StreamsApi { limiter: Arc::clone(&limiter), rates };
    (streams, UsersApi { limiter }, HealthApi { readiness, auth })
}

const DESCRIPTION: &str = "Limits how many video streams a user watches at once.\n\n\
A player **starts** a stream and gets a slot, renews it with a **heartbeat** every `heartbeatIntervalSeconds`, and \
**stops** it. A slot that is not renewed becomes free after `expiresInSeconds`.\n\n\
The rule for players: play unless the response is 409. Stop only on 410 with `restart: \"user\"`. On \
`restart: \"auto\"`, start again. On 5xx or no response, keep playing until the lease expires, and keep trying.\n\n\
`userName` identifies the user: any text of 1 to 256 bytes, case-sensitive, percent-encoded. `streamId` is from the \
response to the start.\n\n\
Errors are `application/problem+json` (RFC 9457). Clients should decide by `code`. Every response has an `X-Request-Id`.";
