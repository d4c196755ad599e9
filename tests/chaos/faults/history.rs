//! The history of a run: every client request with its response, and every instance fault, each with its start and
//! end time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use stream_manager::domain::names::{IdempotencyKey, StreamId, UserName};
use tokio::time::Instant;

use super::clock_skew::SkewedClock;
use crate::api::{Request, Response, StartOptions, now_ms, user_name};

/// Widens the clock ranges at both ends, because clock readings are truncated to milliseconds.
const ROUNDING_MS: i64 = 2;

pub struct History {
    pub clocks: Vec<Arc<SkewedClock>>,
    /// The same instant on the monotonic clock and on the host's clock.
    anchor: (Instant, i64),
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Vec<InstanceFault>>,
}

/// A request of a client and its response.
#[derive(Clone, Debug)]
pub struct Call {
    pub operation: &'static str,
    pub instance: usize,
    pub user: usize,
    /// The stream in the request. For a start with an idempotency key, the id derived from the key. For other starts,
    /// the id in the response.
    pub id: Option<String>,
    pub options: Option<StartOptions>,
    /// Whether the client used the short timeout.
    pub short_timeout: bool,
    pub begin: Instant,
    pub end: Instant,
    /// The earliest and the latest possible reading of the instance's clock during the call.
    pub clock_ms: (i64, i64),
    /// The end of the call on the host's clock.
    pub end_ms: i64,
    pub status: u16,
    pub label: String,
    pub reason: String,
    pub started_ms: Option<i64>,
    pub expires_ms: Option<i64>,
    /// The streams in a list or a denial, with their expiry.
    pub listed: Vec<(String, i64)>,
    pub ended: Vec<String>,
    pub ended_by: Option<String>,
    pub response_id: Option<String>,
}

/// A fault of one instance.
#[derive(Clone, Copy, Debug)]
pub struct InstanceFault {
    pub kind: FaultKind,
    pub instance: usize,
    pub from: Instant,
    pub to: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// From SIGKILL until the instance was ready again.
    Killed,
    /// From SIGSTOP to SIGCONT.
    Frozen,
    /// The proxy to the store refused connections.
    Disconnected,
}

impl History {
    pub fn new(clocks: Vec<Arc<SkewedClock>>) -> Self {
        Self { clocks, anchor: (Instant::now(), now_ms()), calls: Mutex::default(), faults: Mutex::default() }
    }

    pub fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn faults(&self) -> MutexGuard<'_, Vec<InstanceFault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest possible reading of the instance's clock at the instant `at`.
    pub fn latest_ms(&self, instance: usize, at: Instant) -> i64 {
        let (anchor, anchor_ms) = self.anchor;
        let elapsed = i64::try_from((at - anchor).as_millis()).unwrap_or(i64::MAX);
        anchor_ms + elapsed + self.clocks[instance].range_ms(at, at).1 + ROUNDING_MS
    }

    /// Records a fault that ends now.
    pub fn record_fault(&self, kind: FaultKind, instance: usize, from: Instant) {
        self.faults().push(InstanceFault { kind, instance, from, to: Instant::now() });
    }

    pub fn record(&self, request: &Request<'_>, short_timeout: bool, response: &Response) {
        let &Request { operation, instance, user, stream, options } = request;
        let (begin, end) = (response.begin, response.end);
        let (min_skew, max_skew) = self.clocks[instance].range_ms(begin, end);
        // This assumes that the host's clock is not adjusted during a call.
        let begin_ms = response.now_ms - i64::try_from((end - begin).as_millis()).unwrap_or(i64::MAX);
        let text = |field: &str| Some(response.text(field)).filter(|text| !text.is_empty()).map(str::to_owned);
        let response_id = text("streamId");
        let key = options.and_then(|options| options.key.as_ref());
        let id = stream.map(str::to_owned).or_else(|| key.map(|key| id_of_key(user, key))).or(response_id.clone());
        let streams = response.body["streams"].as_array();
        let listed = streams.into_iter().flatten().map(|stream| {
            (stream["streamId"].as_str().unwrap_or_default().to_owned(), time_ms(&stream["expiresAt"]).unwrap_or(0))
        });
        let ended = response.body["ended"].as_array();
        let ended = ended.into_iter().flatten().filter_map(|id| Some(id.as_str()?.to_owned()));
        self.calls().push(Call {
            operation,
            instance,
            user,
            id,
            options: options.cloned(),
            short_timeout,
            begin,
            end,
            clock_ms: (begin_ms + min_skew - ROUNDING_MS, response.now_ms + max_skew + ROUNDING_MS),
            end_ms: response.now_ms,
            status: response.status,
            label: response.label.clone(),
            reason: response.text("reason").to_owned(),
            started_ms: time_ms(&response.body["startedAt"]),
            expires_ms: time_ms(&response.body["expiresAt"]),
            listed: listed.collect(),
            ended: ended.collect(),
            ended_by: response.body["endedBy"]["streamId"].as_str().map(str::to_owned),
            response_id,
        });
    }
}

impl Call {
    /// Whether the response acknowledged a lease.
    pub fn acknowledged_a_lease(&self) -> bool {
        matches!(self.status, 200 | 201) && matches!(self.operation, "start" | "heartbeat")
    }

    /// Whether the client cannot know the outcome of the request.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self.status, 0 | 503)
    }

    /// A field in the request body of a start, or null.
    pub fn body(&self, field: &str) -> &Value {
        self.options.as_ref().map_or(&Value::Null, |options| &options.body[field])
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, instance, user, label, .. } = self;
        let took = (self.end - self.begin).as_millis();
        write!(
            f,
            "{operation} on instance {instance} for user {user}: {label}, after {took} ms, at {}",
            self.end_ms
        )?;
        write!(f, " (instance clock {}..{})", self.clock_ms.0, self.clock_ms.1)?;
        for (name, value) in [("id", &self.id), ("ended by", &self.ended_by)] {
            value.iter().try_for_each(|value| write!(f, ", {name} {value}"))?;
        }
        if let Some(options) = self.options.as_ref().filter(|options| !options.body.is_null()) {
            write!(f, ", request body {}", options.body)?;
        }
        if let (Some(started), Some(expires)) = (self.started_ms, self.expires_ms) {
            write!(f, ", started at {started}, expires at {expires}")?;
        }
        if self.listed.is_empty() { Ok(()) } else { write!(f, ", lists {:?}", self.listed) }
    }
}

impl InstanceFault {
    /// Whether the call used this instance during the fault or during the time `aftermath` after it.
    pub fn affects(&self, call: &Call, aftermath: Duration) -> bool {
        self.instance == call.instance && self.from <= call.end && call.begin <= self.to + aftermath
    }
}

/// The id that the service derives from an idempotency key. This function calls the production code, because the
/// derivation is part of the storage format.
fn id_of_key(user: usize, key: &str) -> String {
    let user = UserName::parse(&user_name(user)).unwrap();
    StreamId::from_key(&user, &IdempotencyKey::parse(key.as_bytes()).unwrap()).to_string()
}

fn time_ms(value: &Value) -> Option<i64> {
    Some(chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp_millis())
}
