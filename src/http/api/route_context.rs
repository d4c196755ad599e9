//! What the router attaches to each request for the extractors: the authentication mode and the path parameters.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use poem::Request;

use crate::http::auth::verifier::TokenVerifier;

/// The most parameters that any route has.
pub const MAX_PARAMS: usize = 2;

/// Authentication mode attached to each request; extractors refuse a request without it.
#[derive(Clone)]
pub enum AuthMode {
    /// Everybody may do everything.
    Disabled,
    Jwt(Arc<TokenVerifier>),
}

/// The part of a request that the router knows and extractors need.
#[derive(Clone)]
pub struct RouteContext {
    pub access: AuthMode,
    pub parameters: PathParams,
}

impl RouteContext {
    /// One of the parameters of the path, decoded. None when it does not decode to UTF-8.
    pub fn parameter<'a>(request: &'a Request, name: &str) -> Option<Cow<'a, str>> {
        request.data::<Self>()?.parameters.get(request.uri().path(), name)
    }
}

/// Where a request's path has its parameters.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathParams(pub(crate) [(&'static str, usize, usize); MAX_PARAMS]);

impl PathParams {
    /// One of the parameters of this path, decoded. None when it does not decode to UTF-8.
    pub fn get<'a>(&self, path: &'a str, name: &str) -> Option<Cow<'a, str>> {
        let (_, begin, end) = self.0.iter().find(|(known, ..)| *known == name)?;
        let part = path.get(*begin..*end)?;
        // Most have nothing to decode, and the decoder is slow to find that out.
        if part.contains('%') { percent_decode_str(part).decode_utf8().ok() } else { Some(Cow::Borrowed(part)) }
    }
}
