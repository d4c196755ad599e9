//! Data that the pipeline attaches to each request for the extractors: the authentication mode and the path parameters.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use poem::Request;

use crate::http::auth::verifier::TokenVerifier;

/// Authentication mode attached to each request; extractors refuse a request without it.
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
    /// A decoded path parameter. None if the route has no such parameter or its value is not UTF-8.
    pub(crate) fn path_param<'a>(request: &'a Request, name: &str) -> Option<Cow<'a, str>> {
        request.data::<Self>()?.path_params.get(name)
    }
}

/// The path parameters of a request.
#[derive(Clone, Default)]
pub(crate) struct PathParams {
    names: Arc<[String]>,
    /// Still percent-encoded: an encoded `/` must not split a value.
    values: Vec<String>,
}

impl PathParams {
    /// `values` are in the order of `names`.
    pub(crate) fn new(names: Arc<[String]>, values: Vec<String>) -> Self {
        Self { names, values }
    }

    /// A decoded parameter. None if there is no such parameter or its value is not UTF-8.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let index = self.names.iter().position(|known| known == name)?;
        let value = self.values.get(index)?;
        // Most values need no decoding, and the decoder takes longer to find that out.
        if value.contains('%') { percent_decode_str(value).decode_utf8().ok() } else { Some(Cow::Borrowed(value)) }
    }
}
