//! Players: they start, watch, stop, die, reload, try again elsewhere, and push each other out, by seed.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use stream_manager::domain::admission::{AtLimit, StartOutcome};
use stream_manager::domain::names::{DeviceId, IdempotencyKey, StreamId, UserName};
use stream_manager::limiter::{StartOptions, Timestamped};
use stream_manager::store::{StoppedBy, StreamState};
// Virtual time: it costs none, and is what the seed says.
use tokio::time::sleep;

use super::asks::{Answer, Ask, Verb};
use super::faults::ms;
use super::instances::{INSTANCES, Instances, NoAnswer};

pub struct Player {
    pub instances: Arc<Instances>,
    pub number: usize,
    pub user: UserName,
    pub random: StdRng,
    /// When the player goes to bed, since the beginning of the run.
    pub until: Duration,
    pub keys: u32,
}

impl Player {
    pub async fn play(mut self) {
        let mut reload = false;
        while self.instances.world.started.elapsed() < self.until {
            if !reload {
                self.pause(200, 2_500).await;
            }
            let (options, key) = self.wish(reload);
            reload = match self.start(options, key).await {
                Some(stream_id) => self.watch(stream_id).await,
                None => false,
            };
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let pause = ms(&mut self.random, least, most);
        sleep(pause).await;
    }

    async fn call(&mut self, verb: Verb) -> Result<Answer, NoAnswer> {
        let instance = self.random.random_range(0..INSTANCES);
        let patience = ms(&mut self.random, 1_500, 6_000);
        let ask = Ask { user: self.user.clone(), verb };
        self.instances.call(instance, &ask, patience).await
    }

    fn wish(&mut self, reload: bool) -> (StartOptions, Option<String>) {
        let mut options = StartOptions::default();
        if reload || self.chance(30) {
            // Four in a row, so that two players of one user share a device: the later one replaces the earlier.
            options.device_id = DeviceId::parse(&format!("tv-{}", self.number / 4)).ok();
        }
        if self.chance(20) {
            options.at_limit = Some(AtLimit::EvictOldest);
        }
        if self.chance(10) {
            options.replaces = self.some_of_the_users().into_iter().collect();
        }
        let keyed = self.chance(50);
        let key = if keyed { Some(self.next_key(&mut options)) } else { None };
        (options, key)
    }

    fn next_key(&mut self, options: &mut StartOptions) -> String {
        self.keys += 1;
        let key = format!("{}-{}", self.number, self.keys);
        options.idempotency_key = IdempotencyKey::parse(key.as_bytes()).ok();
        key
    }

    fn some_of_the_users(&mut self) -> Option<StreamId> {
        let ids = self.instances.world.ids(&self.user);
        let recent = ids.len().saturating_sub(6);
        (!ids.is_empty()).then(|| ids[self.random.random_range(recent..ids.len())])
    }

    async fn start(&mut self, mut options: StartOptions, mut key: Option<String>) -> Option<StreamId> {
        for _ in 0..4 {
            let answer = self.call(Verb::Start(options.clone(), key.clone())).await;
            match answer {
                // Between service and player an answer can be lost, too.
                Ok(_) if self.chance(6) => {}
                Ok(Answer::Start(Timestamped {
                    value: StartOutcome::Started(new) | StartOutcome::Existing(new),
                    ..
                })) => {
                    return Some(new.lease.stream_id);
                }
                Ok(Answer::Start(Timestamped { value: StartOutcome::Denied(denial), .. })) => {
                    if self.chance(15) {
                        let oldest = denial.streams.first()?.stream_id;
                        _ = self.call(Verb::Stop(oldest, StoppedBy::Evictor)).await;
                    } else if self.chance(15) {
                        options.at_limit = Some(AtLimit::EvictOldest);
                        if key.is_some() {
                            key = Some(self.next_key(&mut options));
                        }
                    } else if self.chance(40) {
                        return None;
                    }
                    self.pause(300, 2_000).await;
                    continue;
                }
                Ok(_) => return None,
                Err(_) => {}
            }
            self.pause(20, 1_200).await;
        }
        None
    }

    /// Whether the page is reloaded at the end, without a stop.
    async fn watch(&mut self, stream_id: StreamId) -> bool {
        for _ in 0..self.random.random_range(1..9) {
            let nap = self.chance(8);
            self.pause(if nap { 5_000 } else { 1_200 }, if nap { 11_000 } else { 3_200 }).await;
            if self.chance(8) {
                let verb = [Verb::List, Verb::Look(stream_id), Verb::Limit][self.random.random_range(0..3)].clone();
                _ = self.call(verb).await;
            }
            if self.chance(10) {
                // The same heartbeat by way of two instances at once.
                let ask = Ask { user: self.user.clone(), verb: Verb::Beat(stream_id) };
                let patience = Duration::from_secs(3);
                let twice = [0, 1].map(|instance| self.instances.call(instance, &ask, patience));
                futures_util::future::join_all(twice).await;
                continue;
            }
            match self.call(Verb::Beat(stream_id)).await {
                Ok(Answer::Beat(Timestamped { value: StreamState::Inactive(_) | StreamState::NotFound, .. })) => {
                    return false;
                }
                _ => continue,
            }
        }
        match self.random.random_range(0..10) {
            0..5 => {
                for _ in 0..3 {
                    if self.call(Verb::Stop(stream_id, StoppedBy::Player)).await.is_ok() {
                        break;
                    }
                    self.pause(20, 800).await;
                }
                if self.chance(25) {
                    self.stop_later(stream_id);
                }
                false
            }
            5 => {
                self.stop_later(stream_id);
                false
            }
            6..8 => true,
            _ => false,
        }
    }

    /// A stop that arrives when the player has long gone on.
    fn stop_later(&mut self, stream_id: StreamId) {
        let (instances, after) = (Arc::clone(&self.instances), ms(&mut self.random, 500, 8_000));
        let ask = Ask { user: self.user.clone(), verb: Verb::Stop(stream_id, StoppedBy::Player) };
        let instance = self.random.random_range(0..INSTANCES);
        tokio::spawn(async move {
            sleep(after).await;
            instances.call(instance, &ask, Duration::from_secs(3)).await
        });
    }
}
