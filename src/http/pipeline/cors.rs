//! CORS (<https://fetch.spec.whatwg.org/#http-cors-protocol>): decides which web origins may call the service from a
//! browser, and which request headers they may send.
//!
//! poem's CORS middleware is not used, for two reasons. It responds 403 to every request with an unlisted `Origin`, and
//! browsers send that header even from the service's own pages. It also adds no headers to problems, because they become
//! responses outside of the middleware.

use std::sync::Arc;
use std::time::Duration;

use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{IntoResponse, Response};
use tracing::{info, warn};

use crate::clock::{Clock, SystemClock};
use crate::telemetry::log_throttle::LogThrottle;

/// The allowed origins and headers. `config` has already validated them, and converted them to the form that browsers send.
#[derive(Clone, Debug, Default)]
pub struct CorsSettings {
    pub allowed_origins: Vec<String>,
    /// Request headers in addition to `REQUEST_HEADERS`. `*` allows all.
    pub allowed_headers: Vec<String>,
}

/// Adds the CORS headers. Without allowed origins, adds no headers.
pub struct Cors {
    origins: Vec<HeaderValue>,
    headers: Vec<HeaderName>,
    any_header: bool,
    clock: Arc<dyn Clock>,
    throttle: LogThrottle<Refused>,
}

/// The reason why a browser may not send a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Refused {
    Origin,
    Headers,
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
/// The request headers that are always allowed: those of the API, and those of W3C Trace Context and Baggage, which
/// monitoring libraries add to every request of a page.
const REQUEST_HEADERS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    HeaderName::from_static("baggage"),
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("allow, idempotency-replayed, location, retry-after, www-authenticate, x-request-id");
/// How long browsers may cache a preflight response: one day, in seconds. Browsers use at most their own maximum, for
/// example two hours in Chromium.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");

/// Maximum number of requested headers that are read, and the maximum total length of their names in bytes. Headers
/// beyond these maximums are not allowed.
const MAX_REQUESTED: usize = 64;
const MAX_REQUESTED_BYTES: usize = 2048;

const LOG_INTERVAL: Duration = Duration::from_secs(60);
const MAX_LOGGED_ORIGIN: usize = 256;

/// CORS is off.
impl Default for Cors {
    fn default() -> Self {
        Self::new(&CorsSettings::default(), Arc::new(SystemClock))
    }
}

impl Cors {
    /// Skips invalid items. `config` has already rejected them.
    pub fn new(settings: &CorsSettings, clock: Arc<dyn Clock>) -> Self {
        let CorsSettings { allowed_origins, allowed_headers } = settings;
        let configured = allowed_headers.iter().filter(|name| *name != "*").filter_map(|name| name.parse().ok());
        Self {
            origins: allowed_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
            headers: without_duplicates(REQUEST_HEADERS.into_iter().chain(configured)),
            any_header: allowed_headers.iter().any(|name| name == "*"),
            clock,
            throttle: LogThrottle::new(LOG_INTERVAL, 2),
        }
    }

    /// The response to a preflight request. `None` for other requests, or if no origins are allowed. For an origin that
    /// is not allowed, the response lacks the headers that would allow it.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let is_preflight = method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.origins.is_empty() || !is_preflight {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        if self.allowed(headers).is_some() {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers(&requested_headers(headers))),
                (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S),
            ] {
                response.headers_mut().insert(name, value);
            }
        } else if let Some(suppressed) = self.throttle.allow(&Refused::Origin, self.clock.monotonic()) {
            let origin: String = String::from_utf8_lossy(origin.as_bytes()).chars().take(MAX_LOGGED_ORIGIN).collect();
            info!(
                event = "cors_origin_refused",
                origin, suppressed, "cors.allowed_origins lacks the origin of a web page"
            );
        }
        Some(response)
    }

    /// The value of `Access-Control-Allow-Headers`. Never `*`, because older browsers treat it as the name of a header, and
    /// because it does not include `Authorization`.
    fn allow_headers(&self, requested: &[HeaderName]) -> HeaderValue {
        let mut allowed = self.headers.clone();
        if self.any_header {
            allowed = without_duplicates(allowed.into_iter().chain(requested.iter().cloned()));
        } else {
            self.log_refused(requested);
        }
        // The names are valid header values, so the conversion cannot fail.
        HeaderValue::from_str(&join(&allowed)).unwrap_or(HeaderValue::from_static("authorization, content-type"))
    }

    /// A browser blocks the whole request if one of its headers is not allowed. The service never receives that request, so
    /// this log line is the only sign of it.
    fn log_refused(&self, requested: &[HeaderName]) {
        let refused: Vec<HeaderName> =
            requested.iter().filter(|name| !self.headers.contains(name)).cloned().collect();
        if refused.is_empty() {
            return;
        }
        if let Some(suppressed) = self.throttle.allow(&Refused::Headers, self.clock.monotonic()) {
            let headers = join(&refused);
            warn!(
                event = "cors_headers_refused",
                headers, suppressed, "browsers block requests with these headers; add them to cors.allowed_headers"
            );
        }
    }

    /// The CORS headers of every response to this request.
    pub(crate) fn headers(&self, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        if self.origins.is_empty() {
            return Vec::new();
        }
        // `Vary` is also sent if the request has no `Origin`. Otherwise, a cache could serve this response, which lacks the
        // headers below, to a page of an allowed origin.
        let mut headers = vec![(header::VARY, HeaderValue::from_static("origin"))];
        if let Some(origin) = self.allowed(request) {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS));
        }
        headers
    }

    fn allowed(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.origins.iter().find(|allowed| *allowed == origin)
    }
}

/// The names in `Access-Control-Request-Headers`, up to the maximum number and length. Skips invalid names.
fn requested_headers(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let mut bytes = 0;
    let within_bound = |name: &HeaderName| {
        bytes += name.as_str().len();
        bytes <= MAX_REQUESTED_BYTES
    };
    without_duplicates(names.take_while(within_bound).take(MAX_REQUESTED))
}

fn without_duplicates(names: impl Iterator<Item = HeaderName>) -> Vec<HeaderName> {
    names.fold(Vec::new(), |mut kept, name| {
        if !kept.contains(&name) {
            kept.push(name);
        }
        kept
    })
}

fn join(names: &[HeaderName]) -> String {
    names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ")
}
