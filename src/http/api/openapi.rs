//! The OpenAPI document and the operations behind it.

use std::sync::Arc;

use poem_openapi::OpenApiService;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::health::{HealthApi, Readiness};
use super::limits::LimitsApi;
use super::rate_limits::Rates;
use super::route_context::AuthMode;
use super::streams::StreamsApi;
use crate::clock::ManualClock;
use crate::limiter::{Limiter, Policy};
use crate::store::memory::MemoryStore;
use crate::telemetry::metrics::Metrics;

/// The OpenAPI document, as it is served at `/openapi.json`.
pub fn openapi_document() -> String {
    closed(&documented().spec())
}

pub fn documented() -> OpenApiService<Apis, ()> {
    OpenApiService::new(idle(), "stream-manager", env!("CARGO_PKG_VERSION")).description(DESCRIPTION)
}

/// The document comes from types alone, but poem-openapi reads it off an API; nobody asks this one.
pub fn idle() -> Apis {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(ManualClock::default()));
    let (random, metrics) = (StdRng::seed_from_u64(0), Arc::new(Metrics::new()));
    let limiter = Limiter::new(store, clock, random, metrics, Policy::default());
    apis(Arc::new(limiter), Arc::default(), Rates::unbounded(), AuthMode::Disabled)
}

/// Says of both request bodies that they take no unknown fields: poem-openapi has no word for it. In the text, because
/// only that is the same for JSON and YAML.
pub fn closed(document: &str) -> String {
    ["StartRequest", "LimitRequest"].into_iter().fold(document.to_owned(), |document, schema| {
        let (json, yaml) = (format!("\"title\": \"{schema}\","), format!("      title: {schema}\n"));
        document
            .replace(&json, &format!("{json}\n        \"additionalProperties\": false,"))
            .replace(&yaml, &format!("{yaml}      additionalProperties: false\n"))
    })
}

pub type Apis = (StreamsApi, LimitsApi, HealthApi);

pub fn apis(limiter: Arc<Limiter>, readiness: Arc<Readiness>, rates: Rates, access: AuthMode) -> Apis {
    let streams = StreamsApi { limiter: Arc::clone(&limiter), rates };
    (streams, LimitsApi { limiter }, HealthApi { readiness, access })
}

const DESCRIPTION: &str = "Limits how many video streams a user watches at once.\n\n\
A player **starts** a stream and gets a slot, renews it by a **heartbeat** every `heartbeatIntervalSeconds`, and \
**stops** it. A slot that is not renewed is free again after `expiresInSeconds`.\n\n\
The rule for players: play unless the answer is 409; stop only on 410 with `restart: \"user\"`; on \
`restart: \"auto\"`, start again; on 5xx or no answer, keep playing until the lease runs out, and keep trying.\n\n\
`userName` says whose streams are counted: any text of 1 to 256 bytes, case-sensitive, percent-encoded. `streamId` is \
what a start answered.\n\n\
Errors are `application/problem+json` (RFC 9457): go by `code`. Every answer has an `X-Request-Id`.";
