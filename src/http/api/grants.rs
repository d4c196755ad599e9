//! The operations on grants: the check for gateways, and the public keys.

use std::sync::Arc;

use poem::Request;
use poem_openapi::OpenApi;

use crate::domain::names::{UserName, normalize};
use crate::http::api::caller::unauthorized;
use crate::http::api::extract::params::{ContentQuery, FlagQuery};
use crate::http::api::json::Json;
use crate::http::api::model::grants::JwkSet;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::responses::{Failure, GrantCheckProblems, GrantCheckResponse, JwksProblems, JwksResponse};
use crate::http::api::tags::Tag;
use crate::http::grants::authority::GrantAuthority;
use crate::http::grants::content_path::is_unambiguous;
use crate::http::grants::forwarded::Forwarded;
use crate::http::grants::live_leases::LiveLeases;
use crate::http::grants::{Grant, GrantError};
use crate::limiter::Limiter;
use crate::store::StoreError;

pub(crate) struct GrantsApi {
    /// `None` if grants are off.
    enabled: Option<Enabled>,
}

struct Enabled {
    grants: Arc<GrantAuthority>,
    live_leases: LiveLeases,
}

/// The reason why a media request is refused.
enum Refusal {
    NoGrant,
    Invalid(GrantError),
    AmbiguousUri,
    OtherContent,
    NotLive,
    HashedSubject,
    Store(StoreError),
}

/// A new key must be published for at least this time before it signs (docs/ENFORCEMENT.md, "Rotate keys").
const JWKS_CACHE_CONTROL: &str = "public, max-age=300";

#[OpenApi]
impl GrantsApi {
    /// Check a grant
    ///
    /// For reverse proxies that ask before they serve media (`auth_request`, forward auth). The grant is read from the forwarded
    /// URI, else from the cookie, else from `Authorization: Bearer`. The URI is in `X-Original-URI` or `X-Forwarded-Uri`. The proxy
    /// must set one of them and remove the other, or send neither and use the parameter `content`. If `grants.content_path` is set, the path of the URI must contain the grant's content.
    #[oai(path = "/v1/grants/check", method = "get", operation_id = "checkGrant", tag = "Tag::Grants")]
    async fn check(
        &self,
        request: &Request,
        /// Whether to also look up the lease. The result is at most one second old. Not possible with hashed user names.
        live: FlagQuery,
        /// The content that the grant must be for, in addition to the content in the path.
        content: ContentQuery,
    ) -> Result<GrantCheckResponse, Failure<GrantCheckProblems>> {
        let Some(enabled) = &self.enabled else { return Err(grants_are_off().into()) };
        let checked = enabled.check(request, live.0, content.0.as_deref()).await;
        enabled.count(&checked);
        match checked {
            Ok(()) => Ok(GrantCheckResponse::Valid),
            Err(refusal) => Err(problem(refusal).into()),
        }
    }

    /// Get the public keys of grants
    ///
    /// The key set (RFC 7517) that verifies grants. Empty with HS256. May be cached.
    #[oai(path = "/.well-known/jwks.json", method = "get", operation_id = "grantKeys", tag = "Tag::Grants")]
    async fn keys(&self) -> Result<JwksResponse, Failure<JwksProblems>> {
        let Some(enabled) = &self.enabled else { return Err(grants_are_off().into()) };
        let keys = enabled.grants.public_keys().into_iter().map(Into::into).collect();
        Ok(JwksResponse::Keys(Json(JwkSet { keys }), JWKS_CACHE_CONTROL.to_owned()))
    }
}

impl GrantsApi {
    pub(crate) fn new(grants: Option<Arc<GrantAuthority>>, limiter: Arc<Limiter>) -> Self {
        let enable = |grants: Arc<GrantAuthority>| {
            let live_leases = LiveLeases::new(limiter, Arc::clone(&grants.clock));
            Enabled { grants, live_leases }
        };
        Self { enabled: grants.map(enable) }
    }
}

impl Enabled {
    async fn check(&self, request: &Request, live: bool, content: Option<&str>) -> Result<(), Refusal> {
        let settings = &self.grants.settings;
        if live && self.grants.hashes_subjects() {
            return Err(Refusal::HashedSubject);
        }
        let forwarded = Forwarded::parse(request.headers(), &settings.cookie, &settings.query_parameter);
        let forwarded = forwarded.map_err(|_| Refusal::AmbiguousUri)?;
        let token = forwarded.grant.as_deref().ok_or(Refusal::NoGrant)?;
        let grant = self.grants.verify(token).map_err(Refusal::Invalid)?;
        if !self.allows(&grant, &forwarded, content) {
            return Err(Refusal::OtherContent);
        }
        if live {
            // A grant that this service signed contains a valid name.
            let user = UserName::parse(&grant.subject).map_err(|_| Refusal::NotLive)?;
            match self.live_leases.is_live(user, &grant).await {
                Ok(true) => {}
                Ok(false) => return Err(Refusal::NotLive),
                Err(error) => return Err(Refusal::Store(error)),
            }
        }
        Ok(())
    }

    /// Whether the grant is for the requested content. Every content is allowed if neither the query nor the settings limit it.
    fn allows(&self, grant: &Grant, forwarded: &Forwarded<'_>, content: Option<&str>) -> bool {
        // Grants contain the content in NFC, but some file systems and packagers write paths in NFD.
        let is_granted = |content: &str| grant.content.as_deref() == Some(&*normalize(content));
        // Some gateways append the query of the player's request. The parameter must therefore not replace the check of the path.
        let path_allows = match (&self.grants.settings.content_path, forwarded.path()) {
            (Some(pattern), Some(path)) => pattern.content(path).is_some_and(|content| is_granted(&content)),
            (Some(_), None) => content.is_some(),
            (None, path) => content.is_none() || path.is_none_or(is_unambiguous),
        };
        path_allows && content.is_none_or(is_granted)
    }

    fn count(&self, checked: &Result<(), Refusal>) {
        let counters = &self.grants.metrics.grant_checks;
        let counter = match checked {
            Ok(()) => &counters.valid,
            Err(Refusal::NoGrant) => &counters.missing,
            Err(Refusal::Invalid(GrantError::Expired)) => &counters.expired,
            Err(Refusal::Invalid(_) | Refusal::AmbiguousUri) => &counters.invalid,
            Err(Refusal::OtherContent) => &counters.other_content,
            Err(Refusal::NotLive) => &counters.not_live,
            Err(Refusal::HashedSubject | Refusal::Store(_)) => &counters.failed,
        };
        counter.inc();
    }
}

fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NoGrant => unauthorized("a grant is required in the query, a cookie or Authorization", false),
        Refusal::Invalid(error) => unauthorized(&error.to_string(), true),
        Refusal::AmbiguousUri => {
            let detail = "X-Original-URI or X-Forwarded-Uri is repeated or invalid, or the two differ; let the gateway set one \
                          and remove the other";
            unauthorized(detail, true)
        }
        Refusal::OtherContent => unauthorized("the grant is not for the requested path or content", true),
        Refusal::NotLive => unauthorized("the stream of the grant is not live", true),
        Refusal::HashedSubject => Problem::field("live", "is not possible with grants.subject = \"hashed\""),
        Refusal::Store(error) => error.into(),
    }
}

fn grants_are_off() -> Problem {
    Problem::new(ProblemCode::RouteNotFound, "grants are off; see grants.algorithm")
}
