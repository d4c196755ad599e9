//! The operations of the service: start, heartbeat, stop, list, and limits. Reads the clock once per attempt, generates
//! stream ids, retries contention and throttled transactions, and counts, logs and records the outcomes. The admission
//! rules are in [`crate::domain::admission`].

mod options;
mod outcomes;
mod random;
mod retry;

use std::sync::Arc;

use rand::rngs::StdRng;

pub use self::options::StartOptions;
use self::outcomes::Outcomes;
use self::random::Random;
pub use self::retry::Timestamped;
use crate::clock::Clock;
use crate::domain::admission::end::{EndRequest, Selection};
use crate::domain::admission::{AtLimit, StartOutcome, StartRequest};
use crate::domain::lease::{Lease, LeaseTerms, StreamLimit, Timestamp, UserLimit};
use crate::domain::names::{ContentId, Message, StreamId, UserName};
use crate::domain::rules::{LimitMode, Rule};
use crate::events::queue::EventSender;
use crate::store::{
    Ended, Heartbeat, HeartbeatRequest, LeaseStore, Result, StartHint, Stop, StreamState, UserStreams,
};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::start_log::StartLog;

pub struct Limiter {
    store: Arc<dyn LeaseStore>,
    clock: Arc<dyn Clock>,
    random: Random,
    policy: Policy,
    outcomes: Outcomes,
}

/// The settings of the limiter.
#[derive(Clone, Debug)]
pub struct Policy {
    pub default_limit: StreamLimit,
    pub at_limit: AtLimit,
    /// The mode of the user's own limit.
    pub limit_mode: LimitMode,
    /// See [`StartRequest::hard_limit`].
    pub hard_limit: StreamLimit,
    /// At most [`crate::domain::rules::MAX_RULES`], with different names.
    pub rules: Arc<[Rule]>,
    pub terms: LeaseTerms,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_limit: StreamLimit::DEFAULT,
            at_limit: AtLimit::Reject,
            limit_mode: LimitMode::Enforce,
            hard_limit: StreamLimit::HIGHEST,
            rules: Arc::default(),
            terms: LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 3600 },
        }
    }
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
        metrics.rules.create(policy.rules.iter().map(|rule| &rule.name));
        let outcomes = Outcomes { metrics, clock: Arc::clone(&clock), start_log: Arc::default(), events: None };
        Self { store, clock, random: Random::new(random), policy, outcomes }
    }

    /// Shares `start_log` with the limiters of other workers.
    pub fn with_start_log(mut self, start_log: Arc<StartLog>) -> Self {
        self.outcomes.start_log = start_log;
        self
    }

    /// Records the outcomes as events, unless `events` is `None`.
    pub fn with_events(mut self, events: Option<EventSender>) -> Self {
        self.outcomes.events = events;
        self
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Starts a stream. With an idempotency key or a device id, a repeated start takes no second slot. Without either,
    /// a repetition starts another stream, and the stream whose start response was lost expires.
    pub async fn start(&self, user: &UserName, options: StartOptions) -> Result<Timestamped<StartOutcome>> {
        let request = self.request(user, options);
        let started = self.retry(|hint, now| self.store.start(user, &request, hint, now)).await;
        self.outcomes.start(user, request, &started);
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
        self.outcomes.heartbeat(&beat, terms);
        let Timestamped { now, value: Heartbeat { state, .. } } = beat?;
        Ok(Timestamped { now, value: state })
    }

    /// Stops a stream for its own player and frees its slot. Does nothing if the stream holds no slot.
    pub async fn stop(&self, user: &UserName, stream_id: StreamId) -> Result<Stop> {
        let stop = self.retry(|_, _| self.store.stop(user, stream_id)).await;
        self.outcomes.stop(user, stream_id, &stop);
        stop.map(|stop| stop.value)
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
        let ended = self.end(user, selection, message).await;
        self.outcomes.eviction(user, &ended);
        ended.map(|ended| ended.value.ids())
    }

    /// Sets the stored limit of a user, and ends the live streams that exceed it. Returns the ended streams, oldest
    /// first.
    pub async fn set_limit_and_end_excess(&self, user: &UserName, limit: StreamLimit) -> Result<Vec<StreamId>> {
        let ended = self.end(user, Selection::ExcessOver(limit), None).await;
        self.outcomes.limit_and_excess(user, limit, &ended);
        ended.map(|ended| ended.value.ids())
    }

    /// Ends all streams of a user and deletes everything that is stored about the user. The two steps are retried
    /// separately, so that contention in the second step does not end streams that have started after the first one.
    pub async fn erase(&self, user: &UserName) -> Result<()> {
        let ended = self.end(user, Selection::Erase, None).await;
        self.outcomes.count_ended(&ended);
        let ended = ended?;
        let purged = self.retry(|_, now| self.store.purge(user, now)).await;
        self.outcomes.erasure(user, ended, &purged);
        purged.map(|_| ())
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
        let set = self.retry(|_, _| self.store.set_limit(user, limit)).await?;
        self.outcomes.limit(user, limit, &set);
        Ok(())
    }

    async fn end(
        &self,
        user: &UserName,
        selection: Selection,
        message: Option<Message>,
    ) -> Result<Timestamped<Ended>> {
        let request = EndRequest { selection, message, terms: self.policy.terms };
        self.retry(|_, now| self.store.end(user, &request, now)).await
    }

    fn user_limit(&self, token: Option<StreamLimit>, stored: Option<StreamLimit>) -> UserLimit {
        UserLimit::effective(token, stored, self.policy.default_limit)
    }

    fn request(&self, user: &UserName, options: StartOptions) -> StartRequest {
        let fingerprint = options.idempotency_key.as_ref().map(|_| options.fingerprint());
        let stream_id = match &options.idempotency_key {
            Some(key) => StreamId::from_key(user, key),
            None => self.random.stream_id(),
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
            limit_mode: self.policy.limit_mode,
            hard_limit: self.policy.hard_limit,
            rules: Arc::clone(&self.policy.rules),
            terms: self.policy.terms,
        }
    }

    async fn retry<T, F>(&self, attempt: impl Fn(StartHint, Timestamp) -> F) -> Result<Timestamped<T>>
    where
        F: Future<Output = Result<T>>,
    {
        retry::retry(&*self.clock, &self.random, &self.outcomes.metrics, attempt).await
    }
}
