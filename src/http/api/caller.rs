//! Who calls: the first argument of every operation below `/v1`, so that no such operation can be reached without it,
//! and so that the OpenAPI document says the same.

use std::sync::Arc;

use poem::http::{HeaderMap, header};
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tracing::debug;

use crate::domain::lease::StreamLimit;
use crate::domain::names::UserName;
use crate::http::api::extract::PathParam;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::{AuthMode, RouteContext};
use crate::http::auth::verifier::TokenVerifier;
use crate::http::auth::{Identity, TokenError};

/// Somebody who may act for the user in the path.
pub struct Caller {
    /// What the token says that user's limit is.
    pub token_limit: Option<StreamLimit>,
}

/// Somebody who may set limits.
pub struct Administrator;

const SCHEME: &str = "token";

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        describe(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    fn has_security_fallback() -> bool {
        // One document for both modes: whether a token is needed, the operator decides.
        true
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let Some((tokens, identity)) = identify(request).await? else { return Ok(Self { token_limit: None }) };
        // The same text that the operation takes for the user.
        if RouteContext::path_param(request, UserName::NAME).as_deref() == Some(&*identity.user) {
            return Ok(Self { token_limit: identity.limit });
        }
        if identity.admin {
            return Ok(Self { token_limit: None });
        }
        Err(forbidden(&tokens, "the token is another user's").into())
    }
}

impl<'a> ApiExtractor<'a> for Administrator {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        describe(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    fn has_security_fallback() -> bool {
        true
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        match identify(request).await? {
            Some((tokens, identity)) if !identity.admin => {
                Err(forbidden(&tokens, "only an administrator's token may set limits").into())
            }
            _ => Ok(Self),
        }
    }
}

/// None where no tokens are asked for.
async fn identify(request: &Request) -> Result<Option<(Arc<TokenVerifier>, Identity)>, Problem> {
    let tokens = match request.data::<RouteContext>().map(|context| &context.auth) {
        Some(AuthMode::Disabled) => return Ok(None),
        Some(AuthMode::Jwt(tokens)) => Arc::clone(tokens),
        None => return Err(Problem::new(ProblemCode::Internal, "the service failed")),
    };
    // Before anything is said of the token: a player must not take it for a bad one.
    if !tokens.has_keys() {
        return Err(refused(TokenError::NoKeys));
    }
    let token = bearer(request.headers())?;
    let identity = tokens.check(token).await.map_err(refused)?;
    Ok(Some((tokens, identity)))
}

/// The token of the only `Authorization` header (RFC 6750, section 2.1). One in the query would end up in logs, and is
/// not looked at.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(unauthorized("send a token: Authorization: Bearer …", false)),
        (Some(_), Some(_)) => return Err(unauthorized("Authorization must be sent once", true)),
        (Some(value), None) => value.to_str().unwrap_or_default(),
    };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_start_matches(' ')),
        _ => Err(unauthorized("send a token: Authorization: Bearer …", false)),
    }
}

fn refused(error: TokenError) -> Problem {
    debug!(%error, "token refused");
    match error {
        TokenError::NoKeys => Problem::new(ProblemCode::KeysUnavailable, error.to_string()),
        error => unauthorized(&error.to_string(), true),
    }
}

fn unauthorized(detail: &str, was_sent: bool) -> Problem {
    let mut problem = Problem::new(ProblemCode::Unauthorized, detail);
    let challenge = "Bearer realm=\"stream-manager\"";
    // Without a token there is no error to speak of (RFC 6750, section 3.1).
    let error = if was_sent { ", error=\"invalid_token\"" } else { "" };
    problem.extensions.www_authenticate = Some(format!("{challenge}{error}"));
    problem
}

fn forbidden(tokens: &TokenVerifier, detail: &str) -> Problem {
    let mut problem = Problem::new(ProblemCode::Forbidden, detail);
    let mut challenge = "Bearer realm=\"stream-manager\", error=\"insufficient_scope\"".to_owned();
    let scope = tokens.admin_scope();
    // What else the setting may hold has no place in this header.
    if scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        challenge.push_str(&format!(", scope=\"{scope}\""));
    }
    problem.extensions.www_authenticate = Some(challenge);
    problem
}

fn describe(registry: &mut Registry) {
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

const DESCRIPTION: &str = "A token (JWT) of the issuer that the service trusts. Needed for everything below `/v1` where \
the service is set so (`auth.mode = \"jwt\"`), else not looked at. It speaks for the user that it names, or with the \
administrator's scope for every user; only the latter may set limits.";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_that_is_not_told_whether_tokens_are_asked_for_refuses() {
        let request = || Request::builder().uri_str("/v1/users/ann/limit").finish().split();
        let problem = |error: poem::Error| error.downcast::<Problem>().unwrap().code;
        let ((request, mut body), (other, mut none)) = (request(), request());
        let caller = Caller::from_request(&request, &mut body, ExtractParamOptions::default()).await;
        assert_eq!(problem(caller.err().unwrap()), ProblemCode::Internal);
        let administrator = Administrator::from_request(&other, &mut none, ExtractParamOptions::default()).await;
        assert_eq!(problem(administrator.err().unwrap()), ProblemCode::Internal);
    }
}
