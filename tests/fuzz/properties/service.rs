//! Runs the whole HTTP service in this process, without a network. Checks the properties that every response must have.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use poem::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::domain::lease::Timestamp;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::RateLimits;
use stream_manager::http::pages::Pages;
use stream_manager::http::pipeline::app::{App, Bounds};
use stream_manager::http::pipeline::load_shedding::InFlightLimiter;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};

pub const MAX_BODY_BYTES: usize = 16384;

/// After this many requests, a new service replaces the old one, which limits the size of the store.
const MAX_REQUESTS: usize = 20_000;

pub struct Service {
    runtime: Runtime,
    app: Arc<App>,
    clock: Arc<ManualClock>,
    document: Value,
    requests: usize,
}

pub struct Response {
    pub status: u16,
    pub body: Value,
}

pub type Headers = Vec<(HeaderName, HeaderValue)>;

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

/// Runs `action` with the service of this thread.
pub fn with(action: impl FnOnce(&mut Service)) {
    SERVICE.with_borrow_mut(|service| {
        if service.as_ref().is_some_and(|service| service.requests > MAX_REQUESTS) {
            *service = None;
        }
        action(service.get_or_insert_with(Service::new));
    });
}

/// Parses lines of `name: value`, and skips lines that are not valid HTTP headers.
pub fn headers(lines: &[u8]) -> Headers {
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    lines.split(|byte| *byte == b'\n').filter_map(header).collect()
}

/// Splits the input at the first empty line.
pub fn head_and_body(input: &[u8]) -> (&[u8], &[u8]) {
    match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[]),
    }
}

impl Service {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_epoch_ms(1_790_000_000_000)));
        let metrics = Arc::new(Metrics::new());
        let random = StdRng::seed_from_u64(7);
        let store = Arc::new(MemoryStore::new());
        let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), Policy::default());
        let bounds = Bounds {
            max_uri_bytes: 65_536,
            max_body_bytes: MAX_BODY_BYTES,
            max_in_flight: 8,
            request_timeout: Duration::from_secs(60),
        };
        let readiness = Arc::new(Readiness::default());
        readiness.mark_store_seen();
        Self {
            runtime: Builder::new_current_thread().enable_time().build().unwrap(),
            app: http::app(AppDeps {
                limiter: Arc::new(limiter),
                readiness,
                in_flight: InFlightLimiter::new(bounds.max_in_flight, &metrics),
                metrics,
                tracer: None,
                tokens: None,
                grants: None,
                rates: Arc::new(RateLimits::unbounded()),
                cors: Arc::default(),
                pages: Pages { demo: true, swagger: true },
                bounds,
            })
            .unwrap(),
            clock,
            document: serde_json::from_str(&http::api::openapi::openapi_document().unwrap().json).unwrap(),
            requests: 0,
        }
    }

    pub fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }

    /// Sends a request. Checks that the response is complete and documented, is not a 5xx, and exposes no internals.
    pub fn send(&mut self, method: &Method, uri: &Uri, headers: &Headers, body: &[u8]) -> Response {
        self.requests += 1;
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        // The service rejects requests without exactly one Host header. Other tests cover this rule, so this one sends
        // a valid header.
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("fuzz"));
        for (name, value) in headers.iter().filter(|(name, _)| name != header::HOST) {
            request.headers_mut().append(name.clone(), value.clone());
        }
        let app = &self.app;
        let (response, bytes) = self.runtime.block_on(async {
            let mut response = app.handle(request).await;
            let bytes = response.take_body().into_vec().await.unwrap();
            (response, bytes)
        });
        let status = response.status().as_u16();
        let context = format!("{method} {uri} returned {status}");
        let text =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(status < 500, "{context}: {}", String::from_utf8_lossy(&bytes));
        assert!(self.is_documented(method, uri, status), "{context}, which is not documented");
        let is_document = ["/openapi", "/swagger", "/demo"].iter().any(|prefix| uri.path().starts_with(prefix));
        let cached = if is_document && status < 400 { "no-cache" } else { "no-store" };
        assert_eq!((text("cache-control"), text("x-request-id").len()), (cached, 36), "{context}");
        if status == 204 {
            assert!(bytes.is_empty(), "{context}");
        }
        let response_body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status >= 400 {
            assert_eq!(text("content-type"), "application/problem+json", "{context}");
            assert_eq!(
                response_body["instance"],
                format!("urn:stream-manager:request:{}", text("x-request-id")),
                "{context}"
            );
            let decoded: Value = serde_json::from_slice(body).unwrap_or_default();
            let input = [body, format!("{uri} {headers:?} {decoded}").as_bytes()].concat();
            assert_problem(&response_body, status, &input);
        }
        if status == 405 {
            let allow = text("allow");
            assert!(
                !allow.is_empty() && allow.split(", ").all(|allowed| allowed != method.as_str()),
                "{context}: {allow}"
            );
        }
        Response { status, body: response_body }
    }

    /// Whether the OpenAPI document contains the response status of this operation. Requests without an operation pass,
    /// for example requests with an empty path segment.
    fn is_documented(&self, method: &Method, uri: &Uri, status: u16) -> bool {
        let matches = |template: &str| {
            let (mut segments, mut actual) = (template.split('/'), uri.path().split('/'));
            segments.by_ref().all(|segment| {
                actual.next().is_some_and(|value| segment == value || (segment.starts_with('{') && !value.is_empty()))
            }) && actual.next().is_none()
        };
        let paths = self.document["paths"].as_object().unwrap();
        let template =
            paths.keys().filter(|template| matches(template)).min_by_key(|template| template.matches('{').count());
        // HTTP methods are case-sensitive and in upper case. The document has them in lower case.
        let name = match method.as_str() {
            "HEAD" => "get".to_owned(),
            name if name.bytes().all(|byte| byte.is_ascii_uppercase()) => name.to_lowercase(),
            _ => String::new(),
        };
        let operation = template.map_or(&Value::Null, |template| &paths[template.as_str()][name]);
        operation.is_null() || operation["responses"].get(status.to_string()).is_some()
    }
}

/// Checks that a problem has a type, a code, a title, a detail and its status. Each of its errors must have a field and
/// a reason.
fn assert_problem(problem: &Value, status: u16, input: &[u8]) {
    let text = |name: &str| problem[name].as_str().filter(|text| !text.is_empty()).unwrap();
    assert_eq!(problem["status"], json!(status));
    assert_eq!(text("type"), format!("urn:stream-manager:problem:{}", text("code")));
    assert!(!text("title").is_empty());
    super::assert_no_jargon(text("detail"), input);
    for error in problem["errors"].as_array().into_iter().flatten() {
        let (field, reason) = (error["field"].as_str().unwrap(), error["reason"].as_str().unwrap());
        assert!(!field.is_empty() && !reason.is_empty(), "{problem}");
    }
}
