//! Which other origins' pages may call the service from a browser (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! By hand and not poem's middleware: that answers 403 to every request with an origin that is not listed, which browsers
//! also send from the service's own pages, and it never sees the problems, which are rendered outside of it.

use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{IntoResponse, Response};

/// The allowed origins, as browsers send them.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, traceparent");
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("allow, idempotency-replayed, location, retry-after, www-authenticate, x-request-id");
/// A day, in seconds. Browsers take less: Chromium two hours.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");

impl Origins {
    /// Leaves out what is no header; `config` has refused it before.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The answer to a preflight, which never reaches an operation; `None` for every other request. Whoever is not
    /// allowed gets it without the headers that would allow it.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.0.is_empty() || !asks {
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

    /// What every answer says to the page that asked.
    pub fn headers(&self, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        // Also where no origin was sent: a cache must not give that answer to a page.
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
