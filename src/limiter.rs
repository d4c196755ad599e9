//! The operations of the service: start, heartbeat, stop, list, and limits. Reads the clock once per attempt, generates
//! stream ids, retries contention and throttled transactions, and logs and counts the outcomes. The admission rules
//! are in [`crate::domain::admission`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tracing::info;

use crate::clock::Clock;
use crate::domain::admission::end::{EndRequest, Selection};
use crate::domain::admission::{AtLimit, Denial, StartOutcome, StartRequest};
use crate::domain::labels::Labels;
use crate::domain::lease::{Fingerprint, Lease, LeaseTerms, StreamLimit, Timestamp, UserLimit};
use crate::domain::names::{ContentId, DeviceId, DeviceName, IdempotencyKey, Message, StreamId, UserName};
use crate::domain::rules::{Rule, RuleName};
use crate::store::{
    Heartbeat, HeartbeatRequest, LeaseStore, Refusal, Result, StartHint, Stop, StoreError, StreamState, UserStreams,
};
use crate::telemetry::log_throttle::DenialLog;
use crate::telemetry::metrics::Metrics;

/// Attempts per operation, for contention and throttled transactions together.
const MAX_ATTEMPTS: u32 = 5;
/// The wait after the n-th attempt is random, at most this value × 2ⁿ.
const CONTENTION_BACKOFF_MS: u64 = 20;
/// The same for throttled transactions. It is longer, so that the table can recover.
const THROTTLING_BACKOFF_MS: u64 = 50;

pub struct Limiter {
    store: Arc<dyn LeaseStore>,
    clock: Arc<dyn Clock>,
    random: Mutex<StdRng>,
    metrics: Arc<Metrics>,
    policy: Policy,
    denial_log: Arc<DenialLog>,
}

/// The settings of the limiter.
#[derive(Clone, Debug)]
pub struct Policy {
    pub default_limit: StreamLimit,
    pub at_limit: AtLimit,
    /// At most [`crate::domain::rules::MAX_RULES`], with different names.
    pub rules: Arc<[Rule]>,
    pub terms: LeaseTerms,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_limit: StreamLimit::DEFAULT,
            at_limit: AtLimit::Reject,
            rules: Arc::default(),
            terms: LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 3600 },
        }
    }
}

/// The options of a start request.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    pub idempotency_key: Option<IdempotencyKey>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    /// The labels in the request body.
    pub labels: Labels,
    pub replaces: Vec<StreamId>,
    pub at_limit: Option<AtLimit>,
    /// The limit in the caller's token. It is not part of the request body and therefore not part of the fingerprint.
    pub token_limit: Option<StreamLimit>,
    /// The labels in the caller's token. They override those in the body, and are not part of the fingerprint either.
    pub token_labels: Labels,
}

/// A value and the time at which it was read or decided.
#[derive(Clone, Debug)]
pub struct Timestamped<T> {
    pub now: Timestamp,
    pub value: T,
}

/// The live streams of a user and the effective limit.
#[derive(Clone, Debug)]
pub struct Usage {
    pub limit: StreamLimit,
    pub streams: Vec<Lease>,
}

impl Limiter {
    /// `random` generates stream ids and jitter. In production, it is seeded from the operating system.
    pub fn new(
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        random: StdRng,
        metrics: Arc<Metrics>,
        policy: Policy,
    ) -> Self {
        metrics.heartbeat_interval.set(i64::from(policy.terms.heartbeat_interval_s));
        metrics.rule_denials.create(policy.rules.iter().map(|rule| &rule.name));
        let denial_log = Arc::default();
        Self { store, clock, random: Mutex::new(random), metrics, policy, denial_log }
    }

    /// Shares `denial_log` with the limiters of other workers, so that its bounds apply to the process.
    pub fn with_denial_log(self, denial_log: Arc<DenialLog>) -> Self {
        Self { denial_log, ..self }
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Starts a stream. With an idempotency key or a device id, a repeated start takes no second slot. Without either,
    /// a repetition starts another stream, and the stream whose start response was lost expires.
    pub async fn start(&self, user: &UserName, options: StartOptions) -> Result<Timestamped<StartOutcome>> {
        let request = self.request(user, options);
        let started = self.retry(|hint, now| self.store.start(user, &request, hint, now)).await;
        self.count_start(&started);
        match started.as_ref().map(|at| &at.value) {
            Ok(StartOutcome::Started(started)) if started.evicted > 0 => {
                let (stream_id, ended) = (request.stream_id, joined(&started.ended));
                info!(event = "streams_evicted", %stream_id, ended, "start evicted streams");
            }
            Ok(StartOutcome::Denied(denial)) => self.log_denial(user, denial),
            _ => {}
        }
        started
    }

    /// Renews a lease. If `content_id` is set, also stores it as the content that the stream plays now.
    pub async fn heartbeat(
        &self,
        user: &UserName,
        stream_id: StreamId,
        content_id: Option<ContentId>,
    ) -> Result<Timestamped<StreamState>> {
        let terms = self.policy.terms;
        let request = HeartbeatRequest { stream_id, content_id, terms };
        let beat = self.retry(|_, now| self.store.heartbeat(user, &request, now)).await;
        self.count_heartbeat(&beat);
        let Timestamped { now, value: Heartbeat { state, previous_expiry } } = beat?;
        if let Some(previous) = previous_expiry {
            self.metrics.heartbeat_lateness.observe(terms.elapsed_fraction(previous, now));
        }
        Ok(Timestamped { now, value: state })
    }

    /// Stops a stream for its own player and frees its slot. Does nothing if the stream holds no slot.
    pub async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop> {
        let stop = self.retry(|_, _| self.store.stop(user, stream_id)).await.map(|stop| stop.value);
        let counters = &self.metrics.stops;
        match stop {
            Ok(Stop::Freed) => counters.stopped.inc(),
            Ok(Stop::AlreadyGone) => counters.already_gone.inc(),
            Err(_) => counters.failed.inc(),
        };
        stop
    }

    /// Ends the streams in `stream_ids`, or all streams if it is `None`. Returns the ended streams that were live, oldest
    /// first. Unknown ids are ignored. The players receive `message` with their next heartbeat.
    pub async fn evict(
        &self,
        user: &UserName,
        stream_ids: Option<Vec<StreamId>>,
        message: Option<Message>,
    ) -> Result<Vec<StreamId>> {
        let selection = stream_ids.map_or(Selection::All, Selection::Listed);
        let ended = self.end(user, selection, message).await?;
        match ended.as_slice() {
            // If no stream was live, the request counts once as `already_gone`, even if it lists several ids.
            [] => _ = self.metrics.stops.already_gone.inc(),
            _ => log_evictions(&ended),
        }
        Ok(ended)
    }

    /// Sets the stored limit of a user, and ends the live streams that exceed it. Returns the ended streams, oldest
    /// first.
    pub async fn set_limit_and_end_excess(&self, user: &UserName, limit: StreamLimit) -> Result<Vec<StreamId>> {
        let ended = self.end(user, Selection::ExcessOver(limit), None).await?;
        if !ended.is_empty() {
            log_evictions(&ended);
        }
        Ok(ended)
    }

    /// Ends all streams of a user and deletes everything that is stored about the user. The two steps are retried
    /// separately, so that contention in the second step does not end streams that have started after the first one.
    pub async fn erase(&self, user: &UserName) -> Result<()> {
        let ended = self.end(user, Selection::Erase, None).await?;
        let purged = self.retry(|_, now| self.store.purge(user, now)).await;
        purged.inspect_err(|_| _ = self.metrics.stops.failed.inc())?;
        info!(event = "user_erased", ended = ended.len(), "user erased");
        Ok(())
    }

    /// Reads one stream.
    pub async fn stream(&self, user: &UserName, stream_id: StreamId) -> Result<Timestamped<StreamState>> {
        self.retry(|_, now| self.store.stream(user, stream_id, now)).await
    }

    /// Reads the live streams, oldest first, and the effective limit.
    pub async fn streams(&self, user: &UserName, token_limit: Option<StreamLimit>) -> Result<Timestamped<Usage>> {
        let Timestamped { now, value } = self.retry(|_, now| self.store.streams(user, now)).await?;
        let UserStreams { stored_limit, live: streams } = value;
        let limit = self.user_limit(token_limit, stored_limit).limit;
        Ok(Timestamped { now, value: Usage { limit, streams } })
    }

    /// Reads the effective limit.
    pub async fn limit(&self, user: &UserName, token_limit: Option<StreamLimit>) -> Result<UserLimit> {
        let stored_limit = self.retry(|_, _| self.store.limit(user)).await?.value;
        Ok(self.user_limit(token_limit, stored_limit))
    }

    /// Sets the stored limit of a user, or removes it if `limit` is `None`.
    pub async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()> {
        self.retry(|_, _| self.store.set_limit(user, limit)).await?;
        Ok(())
    }

    async fn end(&self, user: &UserName, selection: Selection, message: Option<Message>) -> Result<Vec<StreamId>> {
        let request = EndRequest { selection, message, terms: self.policy.terms };
        let ended = self.retry(|_, now| self.store.end(user, &request, now)).await.map(|ended| ended.value);
        match &ended {
            Ok(ended) => {
                self.metrics.streams_ended.evicted.inc_by(ended.len() as u64);
                self.metrics.stops.evicted.inc_by(ended.len() as u64)
            }
            Err(_) => self.metrics.stops.failed.inc(),
        };
        ended
    }

    /// Logs a denial, at most once per user and interval.
    fn log_denial(&self, user: &UserName, denial: &Denial) {
        if let Some(suppressed) = self.denial_log.allow(user, self.clock.monotonic()) {
            let (limit, count) = (denial.limit.get(), denial.streams.len());
            let rule = denial.rule.as_ref().map(RuleName::as_str);
            info!(event = "start_denied", limit, count, rule, suppressed, "start denied");
        }
    }

    fn user_limit(&self, token: Option<StreamLimit>, stored: Option<StreamLimit>) -> UserLimit {
        UserLimit::effective(token, stored, self.policy.default_limit)
    }

    fn request(&self, user: &UserName, options: StartOptions) -> StartRequest {
        let fingerprint = options.idempotency_key.as_ref().map(|_| options.fingerprint());
        let stream_id = match &options.idempotency_key {
            Some(key) => StreamId::from_key(user, key),
            None => {
                let mut bytes = [0; 16];
                self.random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
                StreamId::random(bytes)
            }
        };
        StartRequest {
            stream_id,
            fingerprint,
            device_id: options.device_id,
            device_name: options.device_name,
            content_id: options.content_id,
            labels: options.labels.overridden_by(&options.token_labels),
            replaces: options.replaces,
            at_limit: options.at_limit.unwrap_or(self.policy.at_limit),
            token_limit: options.token_limit,
            default_limit: self.policy.default_limit,
            rules: Arc::clone(&self.policy.rules),
            terms: self.policy.terms,
        }
    }

    /// Runs `attempt` until it succeeds, fails with an error that is not retried, or reaches [`MAX_ATTEMPTS`]. Each
    /// attempt gets a new `now`.
    ///
    /// Retries only contention and throttled transactions, because the SDK does not retry these. The SDK has already retried
    /// all other transient errors, so another retry would multiply the attempts. After throttling, the hint stays
    /// optimistic, so that the retry of a start adds no reads.
    async fn retry<T, F>(&self, attempt: impl Fn(StartHint, Timestamp) -> F) -> Result<Timestamped<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut hint = StartHint::Optimistic;
        let mut tries = 1;
        loop {
            let now = self.clock.now();
            let error = match attempt(hint, now).await {
                Ok(value) => return Ok(Timestamped { now, value }),
                Err(error) => error,
            };
            let backoff_ms = match error {
                _ if tries == MAX_ATTEMPTS => return Err(error),
                StoreError::NotApplied { refusal: Refusal::Contention, .. } => {
                    self.metrics.contention.inc();
                    hint = StartHint::ReadFirst;
                    CONTENTION_BACKOFF_MS
                }
                StoreError::NotApplied { refusal: Refusal::ThrottledTransaction, .. } => THROTTLING_BACKOFF_MS,
                _ => return Err(error),
            };
            tokio::time::sleep(self.jitter(backoff_ms << tries)).await;
            tries += 1;
        }
    }

    fn count_start(&self, result: &Result<Timestamped<StartOutcome>>) {
        let counters = &self.metrics.starts;
        let counter = match result.as_ref().map(|at| &at.value) {
            Ok(StartOutcome::Started(started)) => {
                let (ended, evicted) = (started.ended.len() as u64, started.evicted as u64);
                self.metrics.streams_ended.evicted.inc_by(evicted);
                self.metrics.streams_ended.replaced.inc_by(ended.saturating_sub(evicted));
                self.metrics.leases_reaped.inc_by(started.reaped as u64);
                &counters.started
            }
            Ok(StartOutcome::Existing(_)) => &counters.replayed,
            Ok(StartOutcome::Ended(_)) => &counters.ended,
            Ok(StartOutcome::KeyReused) => &counters.key_reused,
            Ok(StartOutcome::Denied(denial)) => {
                if let Some(rule) = &denial.rule {
                    self.metrics.rule_denials.inc(rule);
                }
                &counters.denied
            }
            Err(_) => &counters.failed,
        };
        counter.inc();
    }

    fn count_heartbeat(&self, result: &Result<Timestamped<Heartbeat>>) {
        let counters = &self.metrics.heartbeats;
        let counter = match result.as_ref().map(|at| &at.value.state) {
            Ok(StreamState::Live(_)) => &counters.renewed,
            Ok(StreamState::Inactive(lease)) if lease.termination.is_some() => &counters.ended,
            Ok(StreamState::Inactive(_)) => &counters.expired,
            Ok(StreamState::NotFound) => &counters.not_found,
            Err(_) => &counters.failed,
        };
        counter.inc();
    }

    /// A random duration of 1 ms to `max_ms`.
    fn jitter(&self, max_ms: u64) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(random.random_range(1..=max_ms))
    }
}

fn log_evictions(ended: &[StreamId]) {
    info!(event = "streams_evicted", ended = joined(ended), "streams evicted");
}

/// The ids, separated by spaces, for a log field.
fn joined(ids: &[StreamId]) -> String {
    ids.iter().map(StreamId::to_string).collect::<Vec<_>>().join(" ")
}

impl StartOptions {
    /// A digest of the request fields. Requests with equal fields have equal fingerprints, regardless of their JSON
    /// formatting. The hashed text contains the length of each value, so that two different requests never have the same text.
    fn fingerprint(&self) -> Fingerprint {
        let mut text = String::new();
        let mut field = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                text.push_str(&format!("{name}={}:{value};", value.len()));
            }
        };
        field("deviceId", self.device_id.as_ref().map(DeviceId::as_str));
        field("deviceName", self.device_name.as_ref().map(DeviceName::as_str));
        field("contentId", self.content_id.as_ref().map(ContentId::as_str));
        for id in &self.replaces {
            field("replaces", Some(&id.to_string()));
        }
        field(
            "atLimit",
            self.at_limit.map(|at_limit| match at_limit {
                AtLimit::Reject => "reject",
                AtLimit::EvictOldest => "evictOldest",
            }),
        );
        for (name, value) in self.labels.iter() {
            field(&format!("labels.{name}"), Some(value.as_str()));
        }
        Fingerprint(uuid::Uuid::new_v5(&FINGERPRINTS, text.as_bytes()))
    }
}

/// Namespace of fingerprints. It is part of the stored format and must never change.
const FINGERPRINTS: uuid::Uuid = uuid::Uuid::from_u128(0x0c67_5f3e_8c5a_4d1b_b1f5_77f0_94a2_1b6e);
