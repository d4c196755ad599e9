//! Scripted players, and their calls to the real `Limiter`.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::admission::{AtLimit, StartOutcome, Started};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{Lease, LimitSource, StreamLimit, Timestamp};
use stream_manager::domain::names::{DeviceId, IdempotencyKey, StreamId, UserName};
use stream_manager::domain::rules::Rule;
use stream_manager::events::cloud_event::{AppliedRule, CloudEvent, Exceeded, Outcome, StartData};
use stream_manager::limiter::{Limiter, Policy, StartOptions};
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{Stop, StreamState};
use stream_manager::telemetry::metrics::Metrics;

use super::generator::{EventLog, FIRST_DAY_MS, ended, started};
use crate::rules::labels;

/// The calls of all players in the order of time. They are the same in each run, whatever the service answers.
pub struct Script {
    users: Vec<ScriptUser>,
    calls: Vec<Call>,
}

struct ScriptUser {
    name: UserName,
    own_limit: Option<(StreamLimit, LimitSource)>,
}

struct Call {
    at_ms: i64,
    user: usize,
    stream: IdempotencyKey,
    action: Action,
}

enum Action {
    Start(Box<StartOptions>),
    Heartbeat,
    Stop,
}

/// What a run of the script did.
#[derive(Default)]
pub struct Run {
    pub starts: u64,
    pub denied: u64,
    pub evicted: u64,
    pub users_hit: u64,
    pub played_ms: i64,
    /// The events of a run that admits everything.
    pub events: Vec<CloudEvent>,
}

/// The limits of a run.
pub enum Limits {
    /// Admits everything, as observe mode does, and records the events. These rules are in observe mode.
    Observed(Vec<Rule>),
    /// Enforces this default limit, and the users' own limits.
    Default(StreamLimit),
    /// Enforces this rule alone.
    Rule(Rule),
}

/// A running execution of a script.
struct Execution<'a> {
    script: &'a Script,
    limits: &'a Limits,
    limiter: Limiter,
    clock: Arc<ManualClock>,
    log: EventLog,
    /// The start and the expiry of the leases of each user.
    leases: BTreeMap<(usize, StreamId), (i64, i64)>,
    hit: Vec<bool>,
    run: Run,
}

const MINUTE_MS: i64 = 60_000;
const HEARTBEAT_MS: i64 = 30_000;

impl Script {
    /// With `features`, players have devices, replace streams and evict, and users have their own limits.
    pub fn generate(seed: u64, users: usize, features: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut script = Self { users: Vec::new(), calls: Vec::new() };
        for index in 0..users {
            let own_limit = (features && random.u8(..10) < 2).then(|| {
                let source = if random.bool() { LimitSource::User } else { LimitSource::Token };
                (StreamLimit::capped(random.u64(..5)), source)
            });
            let name = UserName::parse(&format!("Zoë {index}")).unwrap();
            script.users.push(ScriptUser { name, own_limit });
            script.add_user(index, features, &mut random);
        }
        script.calls.sort_by_key(|call| call.at_ms);
        script
    }

    fn add_user(&mut self, user: usize, features: bool, random: &mut Rng) {
        let evicts = features && random.u8(..10) < 3;
        let has_devices = features && random.bool();
        let mut ids = Vec::new();
        let mut at_ms = 0;
        for n in 0..random.usize(3..15) {
            // A repeated start must come before the next start of its device.
            at_ms += 5000 + random.i64(0..6 * MINUTE_MS);
            let stream = IdempotencyKey::parse(format!("{user}-{n}").as_bytes()).unwrap();
            let device_id = has_devices.then(|| DeviceId::parse(&format!("device {}", random.u8(..3))).unwrap());
            let replaces = if features && random.u8(..10) == 0 {
                random.choice(&ids).copied().into_iter().collect()
            } else {
                Vec::new()
            };
            ids.push(StreamId::from_key(&self.users[user].name, &stream));
            let options = StartOptions {
                idempotency_key: Some(stream.clone()),
                device_id,
                replaces,
                at_limit: Some(if evicts { AtLimit::EvictOldest } else { AtLimit::Reject }),
                labels: random_labels(random),
                ..StartOptions::default()
            };
            let heartbeats = random.i64(0..40);
            let mut call = |at_ms, action| self.calls.push(Call { at_ms, user, stream: stream.clone(), action });
            call(at_ms, Action::Start(Box::new(options.clone())));
            // Without a heartbeat, the expiry would depend on which of the two starts is admitted.
            if heartbeats > 0 && random.u8(..10) < 2 {
                call(at_ms + random.i64(1..4000), Action::Start(Box::new(options)));
            }
            (1..=heartbeats).for_each(|n| call(at_ms + n * HEARTBEAT_MS, Action::Heartbeat));
            // A crashed stream is evicted first, and events do not show missed heartbeats.
            if evicts || random.u8(..10) < 8 {
                call(at_ms + heartbeats * HEARTBEAT_MS + random.i64(4000..HEARTBEAT_MS), Action::Stop);
            }
        }
        // The last start finds all expired leases, so that each end is known.
        let stream = IdempotencyKey::parse(format!("{user}-last").as_bytes()).unwrap();
        let options = StartOptions { idempotency_key: Some(stream.clone()), ..StartOptions::default() };
        let mut call = |at_ms, action| self.calls.push(Call { at_ms, user, stream: stream.clone(), action });
        call(300 * MINUTE_MS, Action::Start(Box::new(options)));
        call(301 * MINUTE_MS, Action::Stop);
    }

    pub async fn run(&self, limits: &Limits) -> Run {
        let clock = Arc::new(ManualClock::at(Timestamp::from_epoch_ms(FIRST_DAY_MS)));
        let policy = match limits {
            Limits::Observed(_) => policy(StreamLimit::MAX.into(), Vec::new()),
            Limits::Default(limit) => policy(limit.get().into(), Vec::new()),
            Limits::Rule(rule) => policy(StreamLimit::MAX.into(), vec![rule.clone()]),
        };
        let (store, metrics) = (Arc::new(MemoryStore::new()), Arc::new(Metrics::new()));
        let limiter = Limiter::new(store, Arc::clone(&clock) as _, StdRng::seed_from_u64(1), metrics, policy);
        let mut execution = Execution {
            script: self,
            limits,
            limiter,
            clock,
            log: EventLog::new(1),
            leases: BTreeMap::new(),
            hit: vec![false; self.users.len()],
            run: Run::default(),
        };
        execution.set_own_limits().await;
        for call in &self.calls {
            execution.call(call).await;
        }
        execution.finish()
    }
}

fn random_labels(random: &mut Rng) -> Labels {
    let mut chosen = Vec::new();
    if random.u8(..10) < 5 {
        chosen.push(("quality", "uhd"));
    }
    chosen.extend([("channel", "news"), ("channel", "sport")].get(random.usize(..3)));
    labels(&chosen)
}

fn policy(default_limit: u64, rules: Vec<Rule>) -> Policy {
    Policy { default_limit: StreamLimit::capped(default_limit), rules: rules.into(), ..Policy::default() }
}

impl Execution<'_> {
    async fn set_own_limits(&self) {
        for user in &self.script.users {
            if let (Limits::Default(_), Some((limit, LimitSource::User))) = (self.limits, user.own_limit) {
                self.limiter.set_limit(&user.name, Some(limit)).await.unwrap();
            }
        }
    }

    async fn call(&mut self, call: &Call) {
        let now_ms = FIRST_DAY_MS + call.at_ms;
        self.clock.advance_ms(now_ms - self.clock.now().epoch_ms());
        let user = &self.script.users[call.user];
        let id = StreamId::from_key(&user.name, &call.stream);
        match &call.action {
            Action::Start(options) => self.start(call.user, id, options, now_ms).await,
            Action::Heartbeat => {
                let beat = self.limiter.heartbeat(&user.name, id, None).await.unwrap();
                if let StreamState::Live(lease) = beat.value {
                    self.leases.get_mut(&(call.user, id)).unwrap().1 = lease.expires_at.epoch_ms();
                }
            }
            Action::Stop => {
                if self.limiter.stop(&user.name, id).await.unwrap() == Stop::Freed {
                    let start_ms = self.ended(call.user, id, now_ms);
                    self.record(call.user, now_ms, vec![Outcome::Stopped(ended(id.uuid(), start_ms, now_ms, None))]);
                }
            }
        }
    }

    async fn start(&mut self, user: usize, id: StreamId, options: &StartOptions, now_ms: i64) {
        let ScriptUser { name, own_limit } = &self.script.users[user];
        let mut options = options.clone();
        if let (Limits::Default(_), Some((limit, LimitSource::Token))) = (self.limits, own_limit) {
            options.token_limit = Some(*limit);
        }
        let before = self.limiter.streams(name, None).await.unwrap().value.streams;
        let outcome = self.limiter.start(name, options.clone()).await.unwrap().value;
        match outcome {
            StartOutcome::Started(started) => {
                self.run.starts += 1;
                self.run.evicted += started.evicted() as u64;
                self.hit[user] |= started.evicted() > 0;
                let is_kept = |lease: &&Lease| !started.ended_ids().contains(&lease.stream_id);
                let kept: Vec<Labels> = before.iter().filter(is_kept).map(|lease| lease.labels.clone()).collect();
                let data = self.data(user, id, &options, &kept, now_ms);
                let mut outcomes = vec![match data.exceeded.is_empty() {
                    true => Outcome::Started(data),
                    false => Outcome::OverLimit(data),
                }];
                outcomes.extend(self.ends_of_start(user, id, &started, now_ms));
                self.leases.insert((user, id), (now_ms, started.lease.expires_at.epoch_ms()));
                self.record(user, now_ms, outcomes);
            }
            StartOutcome::Existing(_) => {
                let data = self.data(user, id, &options, &[], now_ms);
                self.record(user, now_ms, vec![Outcome::Replayed(data)]);
            }
            StartOutcome::Denied(_) => {
                self.run.starts += 1;
                self.run.denied += 1;
                self.hit[user] = true;
            }
            StartOutcome::Ended(_) => {}
            StartOutcome::KeyReused => panic!("the script repeats each start unchanged"),
        }
    }

    /// The events of the streams that a start replaced, and of the expired leases that it removed.
    fn ends_of_start(&mut self, user: usize, id: StreamId, started: &Started, now_ms: i64) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for stream in &started.ended_ids() {
            let start_ms = self.ended(user, *stream, now_ms);
            outcomes.push(Outcome::Replaced(ended(stream.uuid(), start_ms, now_ms, Some(id.uuid()))));
        }
        let of_user = self.leases.range((user, StreamId::from(uuid::Uuid::nil()))..);
        let of_user = of_user.take_while(|((owner, _), _)| *owner == user);
        let expired: Vec<(StreamId, i64)> = of_user
            .filter(|((_, stream), (_, expires_ms))| *stream != id && *expires_ms <= now_ms)
            .map(|((_, stream), (_, expires_ms))| (*stream, *expires_ms))
            .collect();
        assert_eq!(expired.len(), started.reaped);
        for (stream, expires_ms) in expired {
            let start_ms = self.ended(user, stream, expires_ms);
            outcomes.push(Outcome::Expired(ended(stream.uuid(), start_ms, expires_ms, None)));
        }
        outcomes
    }

    /// Adds the time that the stream played. Returns its start.
    fn ended(&mut self, user: usize, id: StreamId, end_ms: i64) -> i64 {
        let (start_ms, expires_ms) = self.leases.remove(&(user, id)).unwrap();
        self.run.played_ms += end_ms.min(expires_ms) - start_ms;
        start_ms
    }

    /// The event of a start in observe mode. `kept` are the labels of the live streams that it does not replace.
    fn data(&self, user: usize, id: StreamId, options: &StartOptions, kept: &[Labels], now_ms: i64) -> StartData {
        let own_limit = self.script.users[user].own_limit;
        let (limit, limit_source) = own_limit.unwrap_or((StreamLimit::DEFAULT, LimitSource::Default));
        let mut data = StartData {
            device_id: options.device_id.as_ref().map(ToString::to_string),
            labels: options.labels.clone(),
            replaces: options.replaces.iter().map(|id| id.uuid()).collect(),
            at_limit: options.at_limit.unwrap_or(AtLimit::Reject),
            limit: limit.get(),
            limit_source,
            ..started(id.uuid(), now_ms)
        };
        if let Limits::Observed(rules) = self.limits {
            for rule in rules.iter().filter(|rule| rule.applies_to(&options.labels)) {
                let value = |labels: &Labels| rule.per.as_ref().and_then(|per| labels.get(per)).cloned();
                let per = value(&options.labels);
                let counts = |labels: &&Labels| rule.applies_to(labels) && value(labels) == per;
                let count = kept.iter().filter(counts).count();
                let (name, limit) = (rule.name.to_string(), rule.max.get());
                if count >= limit.into() {
                    data.exceeded.push(Exceeded { rule: Some(name.clone()), limit, count: count as u32 });
                }
                let per = per.map(|per| per.as_str().to_owned());
                data.rules.push(AppliedRule { name, mode: data.mode, limit, per });
            }
        }
        if kept.len() >= limit.get().into() {
            data.exceeded.push(Exceeded { rule: None, limit: limit.get(), count: kept.len() as u32 });
        }
        data
    }

    fn record(&mut self, user: usize, now_ms: i64, outcomes: Vec<Outcome>) {
        if matches!(self.limits, Limits::Observed(_)) {
            let name = self.script.users[user].name.as_str();
            self.run.events.extend(self.log.events(Some(name), now_ms, outcomes));
        }
    }

    fn finish(mut self) -> Run {
        for ((user, id), (_, expires_ms)) in self.leases.clone() {
            self.ended(user, id, expires_ms);
        }
        self.run.users_hit = self.hit.iter().filter(|hit| **hit).count() as u64;
        self.run
    }
}
