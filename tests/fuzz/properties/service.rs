//! The whole service in this process, without a network: one request in, one answer out, checked for what holds of all.

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
use stream_manager::http::api::rate_limits::Rates;
use stream_manager::http::pipeline::app::{App, Bounds};
use stream_manager::http::pipeline::cors::Origins;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};

pub const MAX_BODY_BYTES: usize = 16384;

/// After so many requests it is made anew, so that what is stored stays small.
const REQUESTS: usize = 20_000;

pub struct Service {
    runtime: Runtime,
    app: Arc<App>,
    document: Value,
    asked: usize,
}

pub struct Answer {
    pub status: u16,
    pub body: Value,
}

pub type Headers = Vec<(HeaderName, HeaderValue)>;

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

/// Runs `ask` on the service of this thread.
pub fn with(ask: impl FnOnce(&mut Service)) {
    SERVICE.with_borrow_mut(|service| {
        if service.as_ref().is_some_and(|service| service.asked > REQUESTS) {
            *service = None;
        }
        ask(service.get_or_insert_with(Service::new));
    });
}

/// Lines of `name: value`, as far as HTTP knows them for headers.
pub fn headers(lines: &[u8]) -> Headers {
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    lines.split(|byte| *byte == b'\n').filter_map(header).collect()
}

/// What stands before the first empty line, and what after it.
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
        let limiter = Limiter::new(store, clock, random, Arc::clone(&metrics), Policy::default());
        let bounds = Bounds {
            max_uri_bytes: 65_536,
            max_body_bytes: MAX_BODY_BYTES,
            max_in_flight: 8,
            request_timeout: Duration::from_secs(60),
        };
        let readiness = Arc::new(Readiness::default());
        readiness.store_seen();
        Self {
            runtime: Builder::new_current_thread().enable_time().build().expect("a runtime"),
            app: http::app(AppDeps {
                limiter: Arc::new(limiter),
                readiness,
                metrics,
                tokens: None,
                rates: Rates::unbounded(),
                origins: Origins::default(),
                demo: true,
                bounds,
            })
            .expect("an app"),
            document: serde_json::from_str(&http::api::openapi::openapi_document()).expect("a document"),
            asked: 0,
        }
    }

    /// One request with its answer, which is whole, documented, and speaks of nothing inside.
    pub fn ask(&mut self, method: &Method, uri: &Uri, headers: &Headers, body: &[u8]) -> Answer {
        self.asked += 1;
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        // Its own tests hold that there is exactly one; here it would hide everything else.
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("fuzz"));
        for (name, value) in headers.iter().filter(|(name, _)| name != header::HOST) {
            request.headers_mut().append(name.clone(), value.clone());
        }
        let app = &self.app;
        let (answer, bytes) = self.runtime.block_on(async {
            let mut answer = app.handle(request).await;
            let bytes = answer.take_body().into_vec().await.expect("a body");
            (answer, bytes)
        });
        let status = answer.status().as_u16();
        let asked = format!("{method} {uri} answered {status}");
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(status < 500, "{asked}: {}", String::from_utf8_lossy(&bytes));
        assert!(self.documents(method, uri, status), "{asked}, which is not documented");
        assert_eq!((text("cache-control"), text("x-request-id").len()), ("no-store", 36), "{asked}");
        if status == 204 {
            assert!(bytes.is_empty(), "{asked}");
        }
        let answered: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status >= 400 {
            assert_eq!(text("content-type"), "application/problem+json", "{asked}");
            assert_eq!(
                answered["instance"],
                format!("urn:stream-manager:request:{}", text("x-request-id")),
                "{asked}"
            );
            let decoded: Value = serde_json::from_slice(body).unwrap_or_default();
            let brought = [body, format!("{uri} {headers:?} {decoded}").as_bytes()].concat();
            problem(&answered, status, &brought);
        }
        if status == 405 {
            let allow = text("allow");
            assert!(
                !allow.is_empty() && allow.split(", ").all(|allowed| allowed != method.as_str()),
                "{asked}: {allow}"
            );
        }
        Answer { status, body: answered }
    }

    /// Whether the OpenAPI document has this answer. Of what is no operation, as a path with an empty part, it says nothing.
    fn documents(&self, method: &Method, uri: &Uri, status: u16) -> bool {
        let fits = |template: &str| {
            let (mut parts, mut given) = (template.split('/'), uri.path().split('/'));
            parts
                .by_ref()
                .all(|part| given.next().is_some_and(|p| part == p || (part.starts_with('{') && !p.is_empty())))
                && given.next().is_none()
        };
        let paths = self.document["paths"].as_object().expect("paths");
        let found =
            paths.keys().filter(|template| fits(template)).min_by_key(|template| template.matches('{').count());
        // Methods are case-sensitive, and the document's are in lower case.
        let name = match method.as_str() {
            "HEAD" => "get".to_owned(),
            name if name.bytes().all(|byte| byte.is_ascii_uppercase()) => name.to_lowercase(),
            _ => String::new(),
        };
        let operation = found.map_or(&Value::Null, |template| &paths[template.as_str()][name]);
        operation.is_null() || operation["responses"].get(status.to_string()).is_some()
    }
}

/// A problem names itself, and a refusal says what is wrong.
fn problem(problem: &Value, status: u16, brought: &[u8]) {
    let said = |name: &str| problem[name].as_str().filter(|text| !text.is_empty()).expect("each problem says it");
    assert_eq!(problem["status"], json!(status));
    assert_eq!(said("type"), format!("urn:stream-manager:problem:{}", said("code")));
    assert!(!said("title").is_empty());
    super::assert_no_jargon(said("detail"), brought);
    for error in problem["errors"].as_array().into_iter().flatten() {
        let (field, reason) =
            (error["field"].as_str().expect("a field"), error["reason"].as_str().expect("a reason"));
        assert!(!field.is_empty() && !reason.is_empty(), "{problem}");
    }
}
