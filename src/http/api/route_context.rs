//! Data that the pipeline attaches to each request for the extractors: the authentication mode and the path parameters.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use poem::Request;

use crate::http::auth::verifier::TokenVerifier;

/// Authentication mode attached to each request. Extractors reject a request without it.
#[derive(Clone)]
pub enum AuthMode {
    /// Every caller may act for every user.
    Disabled,
    Jwt(Arc<TokenVerifier>),
}

#[derive(Clone)]
pub(crate) struct RouteContext {
    pub(crate) auth: AuthMode,
    pub(crate) path_params: PathParams,
}

impl RouteContext {
    /// A decoded path parameter. `None` if the route has no such parameter or its value is not UTF-8.
    pub(crate) fn path_param<'a>(request: &'a Request, name: &str) -> Option<Cow<'a, str>> {
        request.data::<Self>()?.path_params.get(request.uri().path(), name)
    }
}

/// The positions of the parameters in a request's path.
#[derive(Clone, Default)]
pub(crate) struct PathParams {
    names: Arc<[String]>,
    /// Stored as ranges, because copies of the values would cost two allocations per request.
    ranges: Vec<Range<usize>>,
}

impl PathParams {
    /// `ranges` are in the order of `names`.
    pub(crate) fn new(names: Arc<[String]>, ranges: Vec<Range<usize>>) -> Self {
        Self { names, ranges }
    }

    /// A decoded parameter of `path`. `None` if there is no such parameter or its value is not UTF-8.
    pub(crate) fn get<'a>(&self, path: &'a str, name: &str) -> Option<Cow<'a, str>> {
        let index = self.names.iter().position(|known| known == name)?;
        let value = path.get(self.ranges.get(index)?.clone())?;
        // Most values need no decoding, and this check is faster than the decoder's own.
        if value.contains('%') { percent_decode_str(value).decode_utf8().ok() } else { Some(Cow::Borrowed(value)) }
    }
}
