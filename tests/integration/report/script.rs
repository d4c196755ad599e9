//! Scripted players, and their calls to the real `Limiter`, whose events the real writer writes to files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use stream_manager::clock::{Clock, ManualClock};
use stream_manager::domain::admission::{AtLimit, StartOutcome};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{Lease, StreamLimit, Timestamp};
use stream_manager::domain::names::{DeviceId, IdempotencyKey, StreamId, UserName};
use stream_manager::events::settings::{EventSettings, Identities, SinkSettings};
use stream_manager::limiter::{Policy, StartOptions};
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{Stop, StreamState};

use super::generator::FIRST_DAY_MS;
use crate::rules::labels;
use crate::service::temp_dir;
use crate::test_app::{BuiltApp, TestApp};

/// The calls of all players in the order of time. They are the same in each run, whatever the service answers.
pub struct Script {
    users: Vec<ScriptUser>,
    calls: Vec<Call>,
}

struct ScriptUser {
    name: UserName,
    stored_limit: Option<StreamLimit>,
    token_limit: Option<StreamLimit>,
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

/// What a run of the script did, according to the responses.
#[derive(Default)]
pub struct Run {
    pub starts: u64,
    pub denied: u64,
    pub evicted: u64,
    pub users_hit: u64,
    pub played_ms: i64,
    /// The contents of the event files, one per instance.
    pub events: Vec<Vec<u8>>,
}

/// A running execution of a script.
struct Execution<'a> {
    users: &'a [ScriptUser],
    /// They share a store and a clock.
    instances: Vec<BuiltApp>,
    clock: Arc<ManualClock>,
    /// The leases of each user that have not ended.
    leases: Vec<HashMap<StreamId, Lease>>,
    hit: Vec<bool>,
    run: Run,
}

const MINUTE_MS: i64 = 60_000;
const HEARTBEAT_MS: i64 = 30_000;
const INSTANCES: usize = 3;
/// The default of `events.user` needs a key.
const HASH_KEY: &str = "a key with at least thirty-two bytes";

impl Script {
    /// With `features`, players have devices, replace streams and evict, and users have their own limits.
    pub fn generate(seed: u64, users: usize, features: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut script = Self { users: Vec::new(), calls: Vec::new() };
        for index in 0..users {
            let has_own_limit = features && random.u8(..10) < 2;
            let (stored_limit, token_limit) = match has_own_limit.then(|| random.bool()) {
                None => (None, None),
                Some(true) => (Some(StreamLimit::capped(random.u64(..5))), None),
                Some(false) => (None, Some(StreamLimit::capped(random.u64(..5)))),
            };
            let name = UserName::parse(&format!("Zoë {index}")).unwrap();
            script.users.push(ScriptUser { name, stored_limit, token_limit });
            script.add_user(index, features, &mut random);
        }
        script.calls.sort_by_key(|call| call.at_ms);
        script
    }

    fn add_user(&mut self, user: usize, features: bool, random: &mut Rng) {
        let evicts = features && random.u8(..10) < 3;
        let has_devices = features && random.bool();
        let token_limit = self.users[user].token_limit;
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
                token_limit,
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
        let options = StartOptions { idempotency_key: Some(stream.clone()), token_limit, ..StartOptions::default() };
        let mut call = |at_ms, action| self.calls.push(Call { at_ms, user, stream: stream.clone(), action });
        call(300 * MINUTE_MS, Action::Start(Box::new(options)));
        call(301 * MINUTE_MS, Action::Stop);
    }

    /// Runs the script on instances with this policy.
    pub async fn run(&self, policy: &Policy) -> Run {
        let folder = temp_dir();
        let folders: Vec<_> = (0..INSTANCES).map(|index| folder.path().join(index.to_string())).collect();
        let clock = Arc::new(ManualClock::at(Timestamp::from_epoch_ms(FIRST_DAY_MS)));
        let store = Arc::new(MemoryStore::new());
        let instance = |directory: &PathBuf| {
            let sink = SinkSettings::File { directory: directory.clone(), keep_days: 1 };
            let events = Some(EventSettings { sink, identities: Identities::Hashed(HASH_KEY.into()) });
            let (store, clock, policy) = (Arc::clone(&store) as _, Arc::clone(&clock), policy.clone());
            TestApp { store, clock, events, policy, ..TestApp::default() }.build()
        };
        let mut execution = Execution {
            users: &self.users,
            instances: folders.iter().map(instance).collect(),
            clock,
            leases: vec![HashMap::new(); self.users.len()],
            hit: vec![false; self.users.len()],
            run: Run::default(),
        };
        execution.store_limits().await;
        for call in &self.calls {
            execution.call(call).await;
        }
        let run = execution.finish();
        Run { events: folders.iter().map(|folder| content(folder)).collect(), ..run }
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

/// The content of the files in a folder. There are two if the day changed during the run.
fn content(folder: &Path) -> Vec<u8> {
    fs::read_dir(folder).unwrap().flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

impl Execution<'_> {
    async fn store_limits(&self) {
        for user in self.users.iter().filter(|user| user.stored_limit.is_some()) {
            self.instances[0].limiter.set_limit(&user.name, user.stored_limit).await.unwrap();
        }
    }

    async fn call(&mut self, call: &Call) {
        let now = Timestamp::from_epoch_ms(FIRST_DAY_MS + call.at_ms);
        self.clock.advance_ms(now.epoch_ms() - self.clock.now().epoch_ms());
        // Calls at the same time go to the same instance, so that the events show their order.
        let limiter = &self.instances[call.at_ms as usize % INSTANCES].limiter;
        let user = &self.users[call.user].name;
        let id = StreamId::from_key(user, &call.stream);
        match &call.action {
            Action::Start(options) => {
                let outcome = limiter.start(user, (**options).clone()).await.unwrap().value;
                self.start(call.user, outcome, now);
            }
            Action::Heartbeat => {
                if let StreamState::Live(lease) = limiter.heartbeat(user, id, None).await.unwrap().value {
                    self.leases[call.user].insert(id, lease).unwrap();
                }
            }
            Action::Stop => {
                if limiter.stop(user, id).await.unwrap() == Stop::Freed {
                    self.ended(call.user, id, now);
                }
            }
        }
    }

    fn start(&mut self, user: usize, outcome: StartOutcome, now: Timestamp) {
        match outcome {
            StartOutcome::Started(started) => {
                self.run.starts += 1;
                self.run.evicted += started.evicted() as u64;
                self.hit[user] |= started.evicted() > 0;
                started.ended_ids().into_iter().for_each(|id| self.ended(user, id, now));
                let expired = self.leases[user].values().filter(|lease| lease.expires_at <= now);
                let expired: Vec<StreamId> = expired.map(|lease| lease.stream_id).collect();
                assert_eq!(expired.len(), started.reaped);
                expired.into_iter().for_each(|id| self.ended(user, id, now));
                self.leases[user].insert(started.lease.stream_id, started.lease);
            }
            StartOutcome::Denied(_) => {
                self.run.starts += 1;
                self.run.denied += 1;
                self.hit[user] = true;
            }
            StartOutcome::Existing(_) | StartOutcome::Ended(_) => {}
            StartOutcome::KeyReused => panic!("the script repeats each start unchanged"),
        }
    }

    /// Adds the time that the stream played until `now`, or until its lease expired.
    fn ended(&mut self, user: usize, id: StreamId, now: Timestamp) {
        let lease = self.leases[user].remove(&id).unwrap();
        self.run.played_ms += now.min(lease.expires_at).epoch_ms() - lease.started_at.epoch_ms();
    }

    fn finish(mut self) -> Run {
        assert!(self.leases.iter().all(HashMap::is_empty), "each end is known");
        for instance in self.instances {
            assert!(instance.event_writer.unwrap().shutdown(Duration::from_secs(10)));
        }
        self.run.users_hit = self.hit.iter().filter(|hit| **hit).count() as u64;
        self.run
    }
}
