//! The HTTP calls: each is sent to one instance, held against what that verb may answer, and written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use stream_manager::clock::{Clock, SystemClock};
use tokio::time::Instant;

use crate::attack::history::History;
use crate::board::{Board, Call, NOT_APPLIED};
use crate::process::{Instance, LEASE_S};

pub const LIMIT: usize = 3;
/// How long every fifth client waits in an attack: what it asked for goes on without it.
const IMPATIENCE: Duration = Duration::from_millis(900);

pub struct Api {
    pub board: Arc<Board>,
    pub instances: Vec<Instance>,
    /// In an attack: then it is judged afterwards what an answer may say about time and order.
    pub history: Option<Arc<History>>,
    http: reqwest::Client,
    sent: AtomicU64,
}

/// What a request is about.
pub struct Asked<'a> {
    pub verb: &'static str,
    pub instance: usize,
    pub user: usize,
    pub stream: Option<&'a str>,
    pub with: Option<&'a StartWith>,
}

/// What came back, `status` 0 for nothing.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: HeaderMap,
    pub label: String,
    pub begin: Instant,
    pub end: Instant,
    /// The host's clock after the answer.
    pub now_ms: i64,
}

/// What a start says.
#[derive(Clone, Debug, Default)]
pub struct StartWith {
    pub key: Option<String>,
    pub body: Value,
}

impl Api {
    pub fn new(board: Arc<Board>, instances: Vec<Instance>, history: Option<Arc<History>>) -> Self {
        // Longer than the service may take, so that it is the service's answer that is seen.
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15));
        let http = http.pool_idle_timeout(Duration::from_secs(30)).build().expect("a client");
        Self { board, instances, history, http, sent: AtomicU64::new(0) }
    }

    pub async fn start(&self, instance: usize, user: usize, with: &StartWith) -> Answer {
        let mut request = self.request(Method::POST, instance, user, "");
        if let Some(key) = &with.key {
            request = request.header("Idempotency-Key", key);
        }
        if !with.body.is_null() {
            request = request.json(&with.body);
        }
        // Without a key too, if the store's answer was lost and the stream ended before the store was asked again.
        let may = if with.key.is_some() || self.history.is_some() {
            &[201, 200, 409, 410, 503][..]
        } else {
            &[201, 409, 503]
        };
        let answer =
            self.send(Asked { verb: "start", instance, user, stream: None, with: Some(with) }, request, may).await;
        let replayed = answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true");
        self.board.expect((answer.status == 200) == replayed, || format!("replayed {replayed}: {}", answer.label));
        if answer.status == 409 {
            let seen = (answer.count("count"), answer.body["streams"].as_array().map_or(0, Vec::len));
            self.board.expect(seen == (LIMIT, LIMIT), || format!("denied at {seen:?} streams: {}", answer.body));
        }
        answer
    }

    pub async fn heartbeat(&self, instance: usize, user: usize, stream: &str) -> Answer {
        let request = self.request(Method::POST, instance, user, &format!("/{stream}/heartbeat"));
        self.send(
            Asked { verb: "heartbeat", instance, user, stream: Some(stream), with: None },
            request,
            &[200, 404, 410, 503],
        )
        .await
    }

    pub async fn stop(&self, instance: usize, user: usize, stream: &str, by_post: bool) -> Answer {
        let request = if by_post {
            let request = self.request(Method::POST, instance, user, &format!("/{stream}/stop"));
            request.header("Content-Type", "text/plain;charset=UTF-8").body("bye")
        } else {
            self.request(Method::DELETE, instance, user, &format!("/{stream}"))
        };
        self.send(Asked { verb: "stop", instance, user, stream: Some(stream), with: None }, request, &[204, 503])
            .await
    }

    pub async fn evict(&self, instance: usize, user: usize, stream: &str) -> Answer {
        let request = self.request(Method::DELETE, instance, user, &format!("/{stream}?evict=true"));
        self.send(Asked { verb: "evict", instance, user, stream: Some(stream), with: None }, request, &[204, 503])
            .await
    }

    pub async fn list(&self, instance: usize, user: usize) -> Answer {
        let answer = self
            .send(
                Asked { verb: "list", instance, user, stream: None, with: None },
                self.request(Method::GET, instance, user, ""),
                &[200, 503],
            )
            .await;
        if answer.status == 200 {
            let (count, listed) = (answer.count("count"), answer.body["streams"].as_array().map_or(0, Vec::len));
            let right = count <= LIMIT && count == listed && answer.count("remaining") == LIMIT - count;
            self.board.expect(right, || format!("a wrong list: {}", answer.body));
        }
        answer
    }

    /// A player goes by `expiresInSeconds`: more than a lease lasts is more than it has.
    fn overstated(&self, verb: &str, answer: &Answer) {
        let Answer { label, body, now_ms, begin, end, .. } = answer;
        let took_ms = (*end - *begin).as_millis();
        let text = format!(
            "more seconds than a lease lasts: {verb} {label}, answered at {now_ms} ms after {took_ms} ms: {body}"
        );
        self.board.violation(text);
    }

    fn request(&self, method: Method, instance: usize, user: usize, rest: &str) -> RequestBuilder {
        let url = format!("{}/v1/users/{}/streams{rest}", self.instances[instance].url, name(user));
        self.http.request(method, url)
    }

    async fn send(&self, asked: Asked<'_>, mut request: RequestBuilder, may: &[u16]) -> Answer {
        let Asked { verb, instance, .. } = asked;
        let impatient = self.history.is_some() && self.sent.fetch_add(1, Ordering::Relaxed) % 5 == 0;
        if impatient {
            request = request.timeout(IMPATIENCE);
        }
        let begin = Instant::now();
        let got = async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        };
        let got = got.await;
        let end = Instant::now();
        let now_ms = now_ms();
        // In an attack an instance comes back: the history knows when it was away.
        let instance_killed = self.history.is_some() || !self.instances[instance].alive();
        let answer = match got {
            Ok((status, headers, bytes)) => {
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let label = label(status, &body);
                self.board.expect(may.contains(&status), || format!("{verb} was answered {label}: {body}"));
                Answer { status, body, headers, label, begin, end, now_ms }
            }
            Err(error) => {
                let label = if instance_killed { "no answer".to_owned() } else { format!("no answer: {error:?}") };
                let (body, headers) = (Value::Null, HeaderMap::new());
                Answer { status: 0, body, headers, label, begin, end, now_ms }
            }
        };
        let status = Some(answer.status).filter(|status| *status != 0);
        if let Some(history) = &self.history {
            history.record(&asked, impatient, &answer);
        } else if answer.body["expiresInSeconds"].as_u64().is_some_and(|seconds| seconds > LEASE_S) {
            self.overstated(verb, &answer);
        }
        self.board.record(Call { verb, instance, instance_killed, begin, status, label: answer.label.clone() });
        answer
    }
}

impl Answer {
    pub fn count(&self, field: &str) -> usize {
        self.body[field].as_u64().and_then(|count| count.try_into().ok()).unwrap_or(usize::MAX)
    }

    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    pub fn expires_ms(&self) -> i64 {
        let time = chrono::DateTime::parse_from_rfc3339(self.text("expiresAt"));
        time.map_or(i64::MAX, |time| time.timestamp_millis())
    }
}

/// A status, and what tells it from others of the same number.
fn label(status: u16, body: &Value) -> String {
    match (status, body["detail"].as_str(), body["reason"].as_str()) {
        (503, Some("the store refused it for now: repeat the request"), _) => NOT_APPLIED.to_owned(),
        (503, Some(detail), _) => format!("503 {detail}"),
        (410, _, Some(reason)) => format!("410 {reason}"),
        _ => status.to_string(),
    }
}

pub fn name(user: usize) -> String {
    format!("racer-{user}")
}

pub fn now_ms() -> i64 {
    SystemClock.now().epoch_ms()
}
