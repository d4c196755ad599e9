//! The verbs of the product. Reads the clock once per attempt, draws ids, retries contention within bounds, and logs
//! and counts what came out. Decides nothing: [`crate::domain::admission`] does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tracing::info;

use crate::clock::Clock;
use crate::domain::admission::{AtLimit, StartOutcome, StartRequest};
use crate::domain::lease::{Fingerprint, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{ContentId, DeviceId, DeviceName, IdempotencyKey, StreamId, UserName};
use crate::store::{
    Heartbeat, LeaseStore, Refusal, Result, StartHint, Stop, StoppedBy, StoreError, StreamState, UserStreams,
};
use crate::telemetry::metrics::Metrics;

/// How often a verb is tried when others keep changing the same user's streams.
const MAX_ATTEMPTS: u32 = 5;
/// The longest wait before the second attempt; doubles with each further one.
const BACKOFF_MS: u64 = 20;

pub struct Limiter {
    store: Arc<dyn LeaseStore>,
    clock: Arc<dyn Clock>,
    random: Mutex<StdRng>,
    metrics: Arc<Metrics>,
    policy: Policy,
}

/// What the operator sets.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub default_limit: StreamLimit,
    pub at_limit: AtLimit,
    pub terms: LeaseTerms,
    pub heartbeat_interval_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_limit: StreamLimit::DEFAULT,
            at_limit: AtLimit::Reject,
            terms: LeaseTerms { duration_s: 90, retention_s: 3600 },
            heartbeat_interval_s: 30,
        }
    }
}

/// What a player may say when it starts, and what its token says of it.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    pub idempotency_key: Option<IdempotencyKey>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    pub replaces: Vec<StreamId>,
    pub at_limit: Option<AtLimit>,
    /// What the caller's token says the user's limit is. Not the player's to say, so no part of the fingerprint.
    pub token_limit: Option<StreamLimit>,
}

/// A value and the instant at which it was read or decided.
#[derive(Clone, Debug)]
pub struct Timestamped<T> {
    pub now: Timestamp,
    pub value: T,
}

/// The live streams of a user against the limit in force.
#[derive(Clone, Debug)]
pub struct Usage {
    pub limit: StreamLimit,
    pub streams: Vec<crate::domain::lease::Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLimit {
    pub limit: StreamLimit,
    pub source: LimitSource,
}

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    Default,
    /// The user's own, stored.
    User,
    /// The caller's token, which goes before both.
    Token,
}

impl Limiter {
    /// `random` gives stream ids and jitter; seeded from the system in production.
    pub fn new(
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        random: StdRng,
        metrics: Arc<Metrics>,
        policy: Policy,
    ) -> Self {
        Self { store, clock, random: Mutex::new(random), metrics, policy }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks for a slot. With an idempotency key or a device id it can be repeated without taking a second slot;
    /// without either, a repetition is another stream, and one whose answer was lost runs out by itself.
    pub async fn start(&self, user: &UserName, options: StartOptions) -> Result<Timestamped<StartOutcome>> {
        let request = self.request(user, options);
        let started = self
            .retry_on_contention(|attempt, now| {
                let hint = if attempt == 1 { StartHint::Optimistic } else { StartHint::ReadFirst };
                self.store.start(user, &request, hint, now)
            })
            .await;
        self.metrics.started(started.as_ref().map(|at| &at.value));
        match started.as_ref().map(|at| &at.value) {
            Ok(StartOutcome::Started(started)) if started.evicted > 0 => {
                let ended: Vec<String> = started.ended.iter().map(StreamId::to_string).collect();
                info!(stream_id = %request.stream_id, ended = ended.join(" "), "streams evicted by a start");
            }
            Ok(StartOutcome::Denied(denial)) => {
                info!(limit = %denial.limit, count = denial.streams.len(), "start denied: limit reached");
            }
            _ => {}
        }
        started
    }

    /// Renews a lease.
    pub async fn heartbeat(&self, user: &UserName, stream_id: StreamId) -> Result<Timestamped<StreamState>> {
        let terms = self.policy.terms;
        let beat = self.retry_on_contention(|_, now| self.store.heartbeat(user, stream_id, terms, now)).await;
        self.metrics.heartbeat(beat.as_ref().map(|at| &at.value.state));
        let Timestamped { now, value: Heartbeat { state, previous_expiry } } = beat?;
        if let Some(previous) = previous_expiry {
            self.metrics.heartbeat_lateness(terms.share_passed(previous, now));
        }
        Ok(Timestamped { now, value: state })
    }

    /// Frees a slot; one that is free already stays free.
    pub async fn stop(&self, user: &UserName, stream_id: StreamId, by: StoppedBy) -> Result<Timestamped<Stop>> {
        let terms = self.policy.terms;
        let stop = self.retry_on_contention(|_, now| self.store.stop(user, stream_id, by, terms, now)).await;
        self.metrics.stopped(by, stop.as_ref().map(|at| &at.value));
        if let (StoppedBy::Evictor, Ok(Timestamped { value: Stop::Freed, .. })) = (by, &stop) {
            info!(%stream_id, "stream evicted");
        }
        stop
    }

    pub async fn stream(&self, user: &UserName, stream_id: StreamId) -> Result<Timestamped<StreamState>> {
        self.retry_on_contention(|_, now| self.store.stream(user, stream_id, now)).await
    }

    /// Count and list: the live streams, oldest first.
    pub async fn streams(&self, user: &UserName, token_limit: Option<StreamLimit>) -> Result<Timestamped<Usage>> {
        let Timestamped { now, value: answer } =
            self.retry_on_contention(|_, now| self.store.streams(user, now)).await?;
        let UserStreams { own_limit, live: streams } = answer;
        let limit = self.limit_in_force(token_limit, own_limit).limit;
        Ok(Timestamped { now, value: Usage { limit, streams } })
    }

    pub async fn limit(&self, user: &UserName, token_limit: Option<StreamLimit>) -> Result<UserLimit> {
        let own = self.retry_on_contention(|_, _| self.store.limit(user)).await?.value;
        Ok(self.limit_in_force(token_limit, own))
    }

    /// Gives the user a limit of their own, or with `None` takes it away.
    pub async fn set_limit(&self, user: &UserName, limit: Option<StreamLimit>) -> Result<()> {
        self.retry_on_contention(|_, _| self.store.set_limit(user, limit)).await?;
        Ok(())
    }

    fn limit_in_force(&self, token: Option<StreamLimit>, own: Option<StreamLimit>) -> UserLimit {
        match (token, own) {
            (Some(limit), _) => UserLimit { limit, source: LimitSource::Token },
            (None, Some(limit)) => UserLimit { limit, source: LimitSource::User },
            (None, None) => UserLimit { limit: self.policy.default_limit, source: LimitSource::Default },
        }
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
            replaces: options.replaces,
            at_limit: options.at_limit.unwrap_or(self.policy.at_limit),
            token_limit: options.token_limit,
            default_limit: self.policy.default_limit,
            terms: self.policy.terms,
        }
    }

    /// Each attempt has one `now`. By hand, because only contention is worth another try: the SDK has retried
    /// everything else, and it retries neither a conflict nor a cancelled transaction.
    async fn retry_on_contention<T, F>(&self, attempt: impl Fn(u32, Timestamp) -> F) -> Result<Timestamped<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut tries = 1;
        loop {
            let now = self.clock.now();
            match attempt(tries, now).await {
                Ok(answer) => return Ok(Timestamped { now, value: answer }),
                Err(StoreError::NotApplied { refusal: Refusal::Contention, .. }) if tries < MAX_ATTEMPTS => {
                    self.metrics.contention.inc();
                    tokio::time::sleep(self.jitter(tries)).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn jitter(&self, tries: u32) -> Duration {
        let longest = BACKOFF_MS << tries.min(10);
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(random.random_range(1..=longest))
    }
}

impl StartOptions {
    /// The same for the same request, whatever its spelling. Lengths keep the fields apart.
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
        Fingerprint(uuid::Uuid::new_v5(&FINGERPRINTS, text.as_bytes()))
    }
}

/// Namespace of fingerprints; part of the stored format, never to be changed.
const FINGERPRINTS: uuid::Uuid = uuid::Uuid::from_u128(0x0c67_5f3e_8c5a_4d1b_b1f5_77f0_94a2_1b6e);
