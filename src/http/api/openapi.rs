//! The OpenAPI document, and the operations that it describes.

use std::sync::Arc;

use poem_openapi::{LicenseObject, OpenApiService, ServerObject};
use rand::SeedableRng;
use rand::rngs::StdRng;
use thiserror::Error;

use super::document;
use super::grants::GrantsApi;
use super::health::{HealthApi, Readiness};
use super::rate_limits::RateLimits;
use super::route_context::AuthMode;
use super::streams::StreamsApi;
use super::users::UsersApi;
use crate::clock::ManualClock;
use crate::http::grants::authority::GrantAuthority;
use crate::limiter::{Limiter, Policy};
use crate::store::memory::MemoryStore;
use crate::telemetry::metrics::Metrics;

/// The OpenAPI document in its formats.
pub struct Document {
    pub json: String,
    pub yaml: String,
    /// Swagger UI, which contains the document.
    pub swagger_ui: String,
}

/// An error in the OpenAPI document, detected at startup.
#[derive(Debug, Error)]
pub enum DocumentError {
    #[error("the OpenAPI document as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the OpenAPI document as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("Swagger UI does not contain the OpenAPI document")]
    SwaggerUi,
}

/// # Errors
/// See [`DocumentError`].
pub fn openapi_document() -> Result<Document, DocumentError> {
    let service = OpenApiService::new(apis_for_spec(), "stream-manager", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new(env!("CARGO_PKG_LICENSE")).url(LICENSE_URL))
        .server(ServerObject::new("/").description("The instance that serves this document."));
    let incomplete = service.spec();
    // A `Mapping` of serde_yaml keeps the order of the fields.
    let document = document::complete(serde_json::from_str(&incomplete)?);
    let json = serde_json::to_string_pretty(&document)?;
    let swagger_ui = service.swagger_ui_html();
    let (head, tail) = swagger_ui.split_once(&incomplete).ok_or(DocumentError::SwaggerUi)?;
    let swagger_ui = [head, &json, tail].concat();
    Ok(Document { yaml: serde_yaml::to_string(&document)?, json, swagger_ui })
}

/// Creates the APIs for the OpenAPI document only. poem-openapi needs values, although it reads only their types.
pub(crate) fn apis_for_spec() -> Apis {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(ManualClock::default()));
    let (random, metrics) = (StdRng::seed_from_u64(0), Arc::new(Metrics::new()));
    let limiter = Limiter::new(store, clock, random, metrics, Policy::default());
    apis(Arc::new(limiter), Arc::default(), Arc::new(RateLimits::unbounded()), AuthMode::Disabled, None)
}

pub(crate) type Apis = (StreamsApi, UsersApi, GrantsApi, HealthApi);

/// `grants` is `None` if grants are off.
pub(crate) fn apis(
    limiter: Arc<Limiter>,
    readiness: Arc<Readiness>,
    rates: Arc<RateLimits>,
    auth: AuthMode,
    grants: Option<Arc<GrantAuthority>>,
) -> Apis {
    let streams = StreamsApi { limiter: Arc::clone(&limiter), rates, grants: grants.clone() };
    let grants = GrantsApi::new(grants, Arc::clone(&limiter));
    (streams, UsersApi { limiter }, grants, HealthApi { readiness, auth })
}

const LICENSE_URL: &str = "https://spdx.org/licenses/Apache-2.0.html";

const DESCRIPTION: &str = "Limits how many video streams a user watches at once.\n\n\
A player **starts** a stream and gets a slot, renews it with a **heartbeat** every `heartbeatIntervalSeconds`, and \
**stops** it. A slot that is not renewed becomes free after `expiresInSeconds`.\n\n\
The rule for players:\n\n\
- Play unless the start returns 409.\n\
- Stop on 410 with `restart: \"user\"`.\n\
- On `restart: \"auto\"`, start again.\n\
- On 5xx or no response, keep playing until the lease expires, and keep retrying.\n\
- On any other response, do the same.\n\
- A refused or unanswered start is no free pass: play for at most one lease duration while retrying, then follow the \
player's setting.\n\n\
`userName` identifies the user: any text of 1 to 256 bytes, case-sensitive, percent-encoded. `streamId` is from the \
response to the start.\n\n\
Errors are `application/problem+json` (RFC 9457). Clients should decide by `code`. Every response has an `X-Request-Id`.";
