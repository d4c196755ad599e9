//! Authentication and authorization of the caller. Every operation below `/v1` takes a [`Caller`] or an [`Administrator`]
//! as its first argument, so that the operation cannot run without the check. The OpenAPI document also takes the
//! security scheme from these types.

use std::sync::Arc;

use poem::http::{HeaderMap, header};
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tracing::debug;

use crate::domain::labels::Labels;
use crate::domain::lease::StreamLimit;
use crate::domain::names::{self, UserName};
use crate::http::api::extract::path::PathParam;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::{AuthMode, RouteContext};
use crate::http::auth::verifier::TokenVerifier;
use crate::http::auth::{Identity, TokenError};

/// A caller who may act for the user in the path.
#[derive(Default)]
pub(crate) struct Caller {
    /// The limit in the token, if the token belongs to the user in the path.
    pub(crate) token_limit: Option<StreamLimit>,
    /// The labels in the token, if the token belongs to the user in the path.
    pub(crate) token_labels: Labels,
}

/// A caller who may set limits.
pub(crate) struct Administrator;

const SCHEME: &str = "token";
const NO_TOKEN: &str = "a bearer token is required: Authorization: Bearer …";

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_scheme(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    fn has_security_fallback() -> bool {
        // Marks the token as optional in the OpenAPI document, which is the same with and without authentication.
        true
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let Some((verifier, identity)) = identify(request).await? else { return Ok(Self::default()) };
        // Compares the token's user with the user name in the path, in the form that the operation uses: decoded, and in
        // NFC.
        let path_user = RouteContext::path_param(request, UserName::NAME);
        if path_user.is_some_and(|text| names::normalize(&text) == identity.user) {
            return Ok(Self { token_limit: identity.limit, token_labels: identity.labels });
        }
        if identity.admin {
            return Ok(Self::default());
        }
        Err(forbidden(&verifier, "the token belongs to another user").into())
    }
}

impl<'a> ApiExtractor<'a> for Administrator {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_scheme(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    fn has_security_fallback() -> bool {
        true
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        match identify(request).await? {
            Some((verifier, identity)) if !identity.admin => {
                Err(forbidden(&verifier, "this operation needs an administrator's token").into())
            }
            _ => Ok(Self),
        }
    }
}

/// `None` if authentication is disabled.
async fn identify(request: &Request) -> Result<Option<(Arc<TokenVerifier>, Identity)>, Problem> {
    let verifier = match request.data::<RouteContext>().map(|context| &context.auth) {
        Some(AuthMode::Disabled) => return Ok(None),
        Some(AuthMode::Jwt(verifier)) => Arc::clone(verifier),
        None => return Err(Problem::new(ProblemCode::Internal, "the service failed")),
    };
    // Without keys, every request gets 503, even one without a token. A 401 would mean that the token is missing or
    // invalid.
    if !verifier.has_keys() {
        return Err(token_problem(TokenError::NoKeys));
    }
    let token = bearer(request.headers())?;
    let identity = verifier.verify(token).await.map_err(token_problem)?;
    Ok(Some((verifier, identity)))
}

/// The token in the `Authorization` header (RFC 6750, section 2.1). Tokens in the query are not accepted, because URLs
/// are often logged.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(unauthorized(NO_TOKEN, false)),
        (Some(_), Some(_)) => return Err(unauthorized("Authorization must be sent once", true)),
        (Some(value), None) => value.to_str().unwrap_or_default(),
    };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_start_matches(' ')),
        _ => Err(unauthorized(NO_TOKEN, false)),
    }
}

fn token_problem(error: TokenError) -> Problem {
    debug!(%error, "token rejected");
    match error {
        TokenError::NoKeys => Problem::new(ProblemCode::KeysUnavailable, error.to_string()),
        error => unauthorized(&error.to_string(), true),
    }
}

/// A 401 with a challenge.
pub(crate) fn unauthorized(detail: &str, token_sent: bool) -> Problem {
    let mut problem = Problem::new(ProblemCode::Unauthorized, detail);
    let challenge = "Bearer realm=\"stream-manager\"";
    // A request without a token gets no error code (RFC 6750, section 3.1).
    let error = if token_sent { ", error=\"invalid_token\"" } else { "" };
    problem.extensions.www_authenticate = Some(format!("{challenge}{error}"));
    problem
}

fn forbidden(verifier: &TokenVerifier, detail: &str) -> Problem {
    let mut problem = Problem::new(ProblemCode::Forbidden, detail);
    let mut challenge = "Bearer realm=\"stream-manager\", error=\"insufficient_scope\"".to_owned();
    let scope = verifier.admin_scope();
    // The setting allows characters that the header does not allow.
    if scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        challenge.push_str(&format!(", scope=\"{scope}\""));
    }
    problem.extensions.www_authenticate = Some(challenge);
    problem
}

fn register_scheme(registry: &mut Registry) {
    let scheme = MetaSecurityScheme {
        ty: "http",
        description: Some(DESCRIPTION),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    };
    registry.create_security_scheme(SCHEME, scheme);
}

const DESCRIPTION: &str = "A JWT of the issuer that the service trusts. Required for every operation below `/v1` if \
authentication is enabled (`auth.mode = \"jwt\"`), otherwise ignored. It allows operations on its own user's streams; with \
the administrator scope, it allows operations on every user's streams and limits.";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_without_a_route_context_are_rejected() {
        let request = || Request::builder().uri_str("/v1/users/ann/limit").finish().split();
        let problem = |error: poem::Error| error.downcast::<Problem>().unwrap().code;
        let ((request, mut body), (other, mut none)) = (request(), request());
        let caller = Caller::from_request(&request, &mut body, ExtractParamOptions::default()).await;
        assert_eq!(problem(caller.err().unwrap()), ProblemCode::Internal);
        let administrator = Administrator::from_request(&other, &mut none, ExtractParamOptions::default()).await;
        assert_eq!(problem(administrator.err().unwrap()), ProblemCode::Internal);
    }
}
