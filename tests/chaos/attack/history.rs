//! What clients asked and were told, and what was done to the instances, each with its begin and end. Judges nothing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stream_manager::domain::names::{IdempotencyKey, StreamId, UserName};
use tokio::time::Instant;

use super::shift::ShiftedClock;
use crate::api::{Answer, Asked, StartWith, name, now_ms};

/// Every reading of a clock is cut to a millisecond.
const ROUNDED_MS: i64 = 2;

pub struct History {
    pub clocks: Vec<Arc<ShiftedClock>>,
    /// One instant by both of the harness's clocks.
    anchor: (Instant, i64),
    calls: Mutex<Vec<Call>>,
    spells: Mutex<Vec<Spell>>,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: &'static str,
    pub instance: usize,
    pub user: usize,
    /// The stream that was asked about or started; of a start without a key, none before it is answered.
    pub id: Option<String>,
    pub with: Option<StartWith>,
    /// Whether the client gave up soon.
    pub impatient: bool,
    pub begin: Instant,
    pub end: Instant,
    /// What the instance's own clock can have shown from begin to end.
    pub clock_ms: (i64, i64),
    /// The end by the host's clock.
    pub end_ms: i64,
    pub status: u16,
    pub label: String,
    pub reason: String,
    pub started_ms: Option<i64>,
    pub expires_ms: Option<i64>,
    /// The streams in a list or a denial, and until when they said to live.
    pub listed: Vec<(String, i64)>,
    pub ended: Vec<String>,
    pub ended_by: Option<String>,
    pub answered_id: Option<String>,
}

/// A time in which one instance was not itself.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    pub kind: Kind,
    pub instance: usize,
    pub from: Instant,
    pub to: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From SIGKILL until it was ready again.
    Killed,
    /// From SIGSTOP to SIGCONT.
    Frozen,
    /// The store refused its connections.
    CutOff,
}

impl History {
    pub fn new(clocks: Vec<Arc<ShiftedClock>>) -> Self {
        Self { clocks, anchor: (Instant::now(), now_ms()), calls: Mutex::default(), spells: Mutex::default() }
    }

    pub fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn spells(&self) -> MutexGuard<'_, Vec<Spell>> {
        self.spells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest that an instance's clock can have shown.
    pub fn latest_ms(&self, instance: usize, at: Instant) -> i64 {
        let (then, then_ms) = self.anchor;
        let since = i64::try_from((at - then).as_millis()).unwrap_or(i64::MAX);
        then_ms + since + self.clocks[instance].between(at, at).1 + ROUNDED_MS
    }

    pub fn spell(&self, kind: Kind, instance: usize, from: Instant) {
        self.spells().push(Spell { kind, instance, from, to: Instant::now() });
    }

    pub fn record(&self, asked: &Asked<'_>, impatient: bool, answer: &Answer) {
        let &Asked { verb, instance, user, stream, with } = asked;
        let (begin, end) = (answer.begin, answer.end);
        let (least, most) = self.clocks[instance].between(begin, end);
        // The host's clock is taken to be steady for as long as a call lasts.
        let begin_ms = answer.now_ms - i64::try_from((end - begin).as_millis()).unwrap_or(i64::MAX);
        let text = |field: &str| Some(answer.text(field)).filter(|text| !text.is_empty()).map(str::to_owned);
        let answered_id = text("streamId");
        let key = with.and_then(|with| with.key.as_ref());
        let id = stream.map(str::to_owned).or_else(|| key.map(|key| id_of_key(user, key))).or(answered_id.clone());
        let streams = answer.body["streams"].as_array();
        let listed = streams.into_iter().flatten().map(|stream| {
            (stream["streamId"].as_str().unwrap_or_default().to_owned(), time_ms(&stream["expiresAt"]).unwrap_or(0))
        });
        let ended = answer.body["ended"].as_array();
        let ended = ended.into_iter().flatten().filter_map(|id| Some(id.as_str()?.to_owned()));
        self.calls().push(Call {
            verb,
            instance,
            user,
            id,
            with: with.cloned(),
            impatient,
            begin,
            end,
            clock_ms: (begin_ms + least - ROUNDED_MS, answer.now_ms + most + ROUNDED_MS),
            end_ms: answer.now_ms,
            status: answer.status,
            label: answer.label.clone(),
            reason: answer.text("reason").to_owned(),
            started_ms: time_ms(&answer.body["startedAt"]),
            expires_ms: time_ms(&answer.body["expiresAt"]),
            listed: listed.collect(),
            ended: ended.collect(),
            ended_by: answer.body["endedBy"]["streamId"].as_str().map(str::to_owned),
            answered_id,
        });
    }
}

impl Call {
    pub fn gave_a_lease(&self) -> bool {
        matches!(self.status, 200 | 201) && matches!(self.verb, "start" | "heartbeat")
    }

    /// Whether the client cannot know what was done.
    pub fn is_open(&self) -> bool {
        matches!(self.status, 0 | 503)
    }

    pub fn body(&self, field: &str) -> &serde_json::Value {
        self.with.as_ref().map_or(&serde_json::Value::Null, |with| &with.body[field])
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, instance, user, label, .. } = self;
        let took = (self.end - self.begin).as_millis();
        write!(f, "{verb} by instance {instance} for user {user}: {label}, after {took} ms at {}", self.end_ms)?;
        write!(f, " ({}..{} there)", self.clock_ms.0, self.clock_ms.1)?;
        for (name, value) in [("id", &self.id), ("ended by", &self.ended_by)] {
            value.iter().try_for_each(|value| write!(f, ", {name} {value}"))?;
        }
        if let Some(with) = self.with.as_ref().filter(|with| !with.body.is_null()) {
            write!(f, ", asked with {}", with.body)?;
        }
        if let (Some(started), Some(expires)) = (self.started_ms, self.expires_ms) {
            write!(f, ", from {started} to {expires}")?;
        }
        if self.listed.is_empty() { Ok(()) } else { write!(f, ", lists {:?}", self.listed) }
    }
}

impl Spell {
    /// Whether a call fell into it or into what came right after.
    pub fn meets(&self, call: &Call, aftermath: Duration) -> bool {
        self.instance == call.instance && self.from <= call.end && call.begin <= self.to + aftermath
    }
}

/// The product's own derivation: that one key has one id is part of what is stored.
fn id_of_key(user: usize, key: &str) -> String {
    let user = UserName::parse(&name(user)).expect("a user name");
    StreamId::from_key(&user, &IdempotencyKey::parse(key.as_bytes()).expect("a key")).to_string()
}

fn time_ms(value: &serde_json::Value) -> Option<i64> {
    Some(chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp_millis())
}
