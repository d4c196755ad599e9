//! The HTTP client. It sends each request to one instance, checks the status of the response, and records the response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use stream_manager::clock::{Clock, SystemClock};
use tokio::time::Instant;

use crate::faults::history::History;
use crate::process::{Instance, LEASE_S};
use crate::recorder::{CONTENTION, CallRecord, Recorder};

pub const LIMIT: usize = 3;
/// The maximum number of streams with the label `quality: uhd`, by the rule of all instances.
pub const UHD_LIMIT: usize = 1;
/// A user's name is this prefix and a number.
pub const USER_PREFIX: &str = "chaos-user-";
/// With fault injection, every fifth request times out on the client side after this time. The service continues to
/// process the request.
const SHORT_TIMEOUT: Duration = Duration::from_millis(900);

pub struct Api {
    pub recorder: Arc<Recorder>,
    pub instances: Vec<Instance>,
    /// Set only with fault injection. The checker then verifies the times and the order of all responses after the run.
    pub history: Option<Arc<History>>,
    http: reqwest::Client,
    sent: AtomicU64,
}

/// The operation and the target of a request.
pub struct Request<'a> {
    pub operation: &'static str,
    pub instance: usize,
    pub user: usize,
    pub stream: Option<&'a str>,
    pub options: Option<&'a StartOptions>,
}

/// A response. `status` is 0 if there was no response.
pub struct Response {
    pub status: u16,
    pub body: Value,
    pub headers: HeaderMap,
    pub label: String,
    pub begin: Instant,
    pub end: Instant,
    /// The host's clock after the response.
    pub now_ms: i64,
}

/// Idempotency key and body of a start.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    pub key: Option<String>,
    pub body: Value,
}

impl Api {
    pub fn new(recorder: Arc<Recorder>, instances: Vec<Instance>, history: Option<Arc<History>>) -> Self {
        // Longer than the service's own request timeout, so that the client receives the service's response.
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15));
        let http = http.pool_idle_timeout(Duration::from_secs(30)).build().unwrap();
        Self { recorder, instances, history, http, sent: AtomicU64::new(0) }
    }

    pub async fn start(&self, instance: usize, user: usize, options: &StartOptions) -> Response {
        let mut request = self.request(Method::POST, instance, user, "");
        if let Some(key) = &options.key {
            request = request.header("Idempotency-Key", key);
        }
        if !options.body.is_null() {
            request = request.json(&options.body);
        }
        // With fault injection, a start without a key can also return 200 or 410. If the store's response is lost, the
        // service retries the start, and the stream may have ended before the retry.
        let expected = if options.key.is_some() || self.history.is_some() {
            &[201, 200, 409, 410, 503][..]
        } else {
            &[201, 409, 503]
        };
        let target = Request { operation: "start", instance, user, stream: None, options: Some(options) };
        let response = self.send(target, request, expected).await;
        let replayed = response.headers.get("idempotency-replayed").is_some_and(|value| value == "true");
        self.recorder.check((response.status == 200) == replayed, || {
            format!("idempotency-replayed is {replayed} on a response with {}", response.label)
        });
        if response.status == 409 {
            let (by_rule, starts_uhd) = (!response.body["rule"].is_null(), is_uhd(&options.body));
            let limit = if by_rule { UHD_LIMIT } else { LIMIT };
            let counts = (response.count("count"), response.streams().len());
            self.recorder.check(counts == (limit, limit) && response.count("limit") == limit, || {
                format!("start denied with {counts:?} streams instead of {limit}: {}", response.body)
            });
            self.recorder.check(!by_rule || (starts_uhd && response.streams().iter().all(is_uhd)), || {
                format!("start denied by a rule that does not apply: {}, {}", options.body, response.body)
            });
        }
        response
    }

    pub async fn heartbeat(&self, instance: usize, user: usize, stream: &str) -> Response {
        let request = self.request(Method::POST, instance, user, &format!("/{stream}/heartbeat"));
        let target = Request { operation: "heartbeat", instance, user, stream: Some(stream), options: None };
        self.send(target, request, &[200, 404, 410, 503]).await
    }

    pub async fn stop(&self, instance: usize, user: usize, stream: &str, by_post: bool) -> Response {
        let request = if by_post {
            let request = self.request(Method::POST, instance, user, &format!("/{stream}/stop"));
            request.header("Content-Type", "text/plain;charset=UTF-8").body("bye")
        } else {
            self.request(Method::DELETE, instance, user, &format!("/{stream}"))
        };
        let target = Request { operation: "stop", instance, user, stream: Some(stream), options: None };
        self.send(target, request, &[204, 503]).await
    }

    pub async fn evict(&self, instance: usize, user: usize, stream: &str) -> Response {
        let request = self.request(Method::DELETE, instance, user, &format!("/{stream}?evict=true"));
        let target = Request { operation: "evict", instance, user, stream: Some(stream), options: None };
        self.send(target, request, &[204, 503]).await
    }

    pub async fn list(&self, instance: usize, user: usize) -> Response {
        let request = self.request(Method::GET, instance, user, "");
        let target = Request { operation: "list", instance, user, stream: None, options: None };
        let response = self.send(target, request, &[200, 503]).await;
        if response.status == 200 {
            let (count, listed) = (response.count("count"), response.streams().len());
            let consistent = count <= LIMIT && count == listed && response.count("remaining") == LIMIT - count;
            let uhd = response.streams().iter().filter(|stream| is_uhd(stream)).count();
            let consistent = consistent
                && uhd <= UHD_LIMIT
                && response.body["rules"][0]["count"].as_u64().unwrap_or(0) == uhd as u64;
            self.recorder.check(consistent, || format!("inconsistent list: {}", response.body));
        }
        response
    }

    fn request(&self, method: Method, instance: usize, user: usize, rest: &str) -> RequestBuilder {
        let url = format!("{}/v1/users/{}/streams{rest}", self.instances[instance].url, user_name(user));
        self.http.request(method, url)
    }

    async fn send(&self, target: Request<'_>, mut request: RequestBuilder, expected: &[u16]) -> Response {
        let Request { operation, instance, .. } = target;
        let short_timeout = self.history.is_some() && self.sent.fetch_add(1, Ordering::Relaxed) % 5 == 0;
        if short_timeout {
            request = request.timeout(SHORT_TIMEOUT);
        }
        let begin = Instant::now();
        let result = async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.bytes().await?))
        };
        let result = result.await;
        let end = Instant::now();
        let now_ms = now_ms();
        // With fault injection, a killed instance restarts, so its current state does not show whether it was down during
        // the call. The history records when it was down.
        let instance_killed = self.history.is_some() || !self.instances[instance].is_alive();
        let response = match result {
            Ok((status, headers, bytes)) => {
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let label = label(status, &body);
                self.recorder.check(expected.contains(&status), || {
                    format!("unexpected status of {operation}: {label}: {body}")
                });
                Response { status, body, headers, label, begin, end, now_ms }
            }
            Err(error) => {
                let label =
                    if instance_killed { NO_RESPONSE.to_owned() } else { format!("{NO_RESPONSE}: {error:?}") };
                let (body, headers) = (Value::Null, HeaderMap::new());
                Response { status: 0, body, headers, label, begin, end, now_ms }
            }
        };
        let status = Some(response.status).filter(|status| *status != 0);
        if let Some(history) = &self.history {
            history.record(&target, short_timeout, &response);
        } else {
            self.check_remaining_time(operation, &response);
        }
        let label = response.label.clone();
        self.recorder.record(CallRecord { operation, instance, instance_killed, begin, status, label });
        response
    }

    /// Players rely on `expiresInSeconds`, so it must not exceed the lease duration.
    fn check_remaining_time(&self, operation: &str, response: &Response) {
        let Response { label, body, now_ms, begin, end, .. } = response;
        let exceeds = body["expiresInSeconds"].as_u64().is_some_and(|seconds| seconds > LEASE_S);
        self.recorder.check(!exceeds, || {
            let took_ms = (*end - *begin).as_millis();
            format!(
                "expiresInSeconds exceeds the lease duration: {operation} {label} at {now_ms} ms, after {took_ms} ms: {body}"
            )
        });
    }
}

impl Response {
    pub fn count(&self, field: &str) -> usize {
        self.body[field].as_u64().and_then(|count| count.try_into().ok()).unwrap_or(usize::MAX)
    }

    /// The streams in a list or a denial.
    pub fn streams(&self) -> &[Value] {
        self.body["streams"].as_array().map_or(&[], Vec::as_slice)
    }

    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    pub fn expires_ms(&self) -> i64 {
        let time = chrono::DateTime::parse_from_rfc3339(self.text("expiresAt"));
        time.map_or(i64::MAX, |time| time.timestamp_millis())
    }
}

/// The label of a start that the rule denied.
pub const DENIED_BY_RULE: &str = "409 by a rule";
/// The label of a request without a response.
pub const NO_RESPONSE: &str = "no response";

/// Whether the rule counts a stream with this JSON, or applies to a start with this body.
fn is_uhd(json: &Value) -> bool {
    json["labels"]["quality"] == "uhd"
}

/// The label of a response: the status, and for 409, 410 and 503 also the reason.
fn label(status: u16, body: &Value) -> String {
    match (status, body["detail"].as_str(), body["reason"].as_str()) {
        // A 503 because of contention and a 503 because of an outage have the same code, store-unavailable. Only the detail
        // differs.
        (503, Some("the store temporarily rejected the request; retry"), _) => CONTENTION.to_owned(),
        (503, Some(detail), _) => format!("503 {detail}"),
        (409, ..) if !body["rule"].is_null() => DENIED_BY_RULE.to_owned(),
        (410, _, Some(reason)) => format!("410 {reason}"),
        _ => status.to_string(),
    }
}

pub fn user_name(user: usize) -> String {
    format!("{USER_PREFIX}{user}")
}

pub fn now_ms() -> i64 {
    SystemClock.now().epoch_ms()
}
