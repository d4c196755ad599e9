//! CORS (<https://fetch.spec.whatwg.org/#http-cors-protocol>): which web origins may call the service from a browser.
//!
//! Replaces poem's middleware, which responds 403 to every request with an unlisted `Origin`. Browsers send that header from
//! the service's own pages too. The middleware also adds no headers to problems, because they are rendered outside of it.

use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{IntoResponse, Response};

/// The allowed origins, spelled as browsers send them. If there are none, responses have no CORS headers.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, traceparent");
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("allow, idempotency-replayed, location, retry-after, www-authenticate, x-request-id");
/// One day, in seconds. Browsers cap it: Chromium at two hours.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");

impl Origins {
    /// Skips invalid header values; `config` has already refused them.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The response to a preflight request; `None` for every other request. For an origin that is not allowed, the response
    /// lacks the headers that would allow it.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let is_preflight = method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.0.is_empty() || !is_preflight {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        if self.allowed(headers).is_some() {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
                (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S),
            ] {
                response.headers_mut().insert(name, value);
            }
        }
        Some(response)
    }

    /// The CORS headers of every response to this request.
    pub(crate) fn headers(&self, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        // Also without an `Origin`: a cache must not serve such a response to another origin's page.
        let mut headers = vec![(header::VARY, HeaderValue::from_static("origin"))];
        if let Some(origin) = self.allowed(request) {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS));
        }
        headers
    }

    fn allowed(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.0.iter().find(|allowed| *allowed == origin)
    }
}
