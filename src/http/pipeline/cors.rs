//! CORS (<https://fetch.spec.whatwg.org/#http-cors-protocol>): decides which web origins may call the service from a
//! browser.
//!
//! poem's CORS middleware is not used, for two reasons. It responds 403 to every request with an unlisted `Origin`, and
//! browsers send that header even from the service's own pages. It also adds no headers to problems, because they become
//! responses outside of the middleware.

use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{IntoResponse, Response};

/// The allowed origins, written as browsers send them. If there are none, responses have no CORS headers.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, traceparent");
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("allow, idempotency-replayed, location, retry-after, www-authenticate, x-request-id");
/// How long browsers may cache a preflight response: one day, in seconds. Browsers use at most their own maximum, for
/// example two hours in Chromium.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");

impl Origins {
    /// Skips invalid header values. `config` has already rejected them.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The response to a preflight request. `None` for other requests, or if no origins are allowed. For an origin that
    /// is not allowed, the response lacks the headers that would allow it.
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
        // `Vary` is also sent if the request has no `Origin`. Otherwise, a cache could serve this response to a page of
        // another origin.
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
