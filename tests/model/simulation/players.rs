//! Simulated players. They start, watch, stop, crash, reload, retry on another instance and evict each other, as the
//! seed decides.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use stream_manager::domain::admission::{AtLimit, Denial, StartOutcome};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::names::{ContentId, DeviceId, IdempotencyKey, StreamId, UserName};
use stream_manager::limiter::{StartOptions, Timestamped};
use stream_manager::store::StreamState;
// Uses virtual time, so that sleeping takes no real time and the seed decides the order of events.
use tokio::time::sleep;

use super::api::{ApiRequest, ApiResponse, Operation};
use super::faults::random_ms;
use super::instances::{INSTANCES, Instances, NoResponse};
use super::run::labels_from;

pub struct Player {
    pub instances: Arc<Instances>,
    pub number: usize,
    pub user: UserName,
    pub random: StdRng,
    /// Draws the labels. It is separate from `random`, so that runs without rules draw the same values as before there were rules.
    pub labels: StdRng,
    /// The time after which the player begins no more streams, measured from the beginning of the run.
    pub until: Duration,
    /// Number of idempotency keys that the player has used.
    pub keys: u32,
}

impl Player {
    pub async fn play(mut self) {
        let mut reload = false;
        while self.instances.context.started.elapsed() < self.until {
            if !reload {
                self.pause(200, 2_500).await;
            }
            let (options, key) = self.draw_options(reload);
            reload = match self.start(options, key).await {
                Some(stream_id) => self.watch(stream_id).await,
                None => false,
            };
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    async fn pause(&mut self, min_ms: u64, max_ms: u64) {
        let pause = random_ms(&mut self.random, min_ms, max_ms);
        sleep(pause).await;
    }

    async fn call(&mut self, operation: Operation) -> Result<ApiResponse, NoResponse> {
        let instance = self.random.random_range(0..INSTANCES);
        let timeout = random_ms(&mut self.random, 1_500, 6_000);
        let request = self.request(operation);
        self.instances.call(instance, &request, timeout).await
    }

    fn request(&self, operation: Operation) -> ApiRequest {
        ApiRequest { user: self.user.clone(), operation }
    }

    fn draw_options(&mut self, reload: bool) -> (StartOptions, Option<String>) {
        let mut options = StartOptions::default();
        if reload || self.chance(30) {
            // Players with consecutive numbers share a device, so that players of one user replace each other's
            // streams.
            options.device_id = DeviceId::parse(&format!("tv-{}", self.number / 4)).ok();
        }
        if self.chance(20) {
            options.at_limit = Some(AtLimit::EvictOldest);
        }
        if self.chance(20) {
            options.token_limit = StreamLimit::new(self.random.random_range(0..=4));
        }
        if self.chance(10) {
            options.replaces = self.recent_stream().into_iter().collect();
        }
        if !self.instances.context.policy.rules.is_empty() {
            (options.labels, options.token_labels) = self.draw_labels();
        }
        let keyed = self.chance(50);
        let key = if keyed { Some(self.set_new_key(&mut options)) } else { None };
        (options, key)
    }

    /// The labels in the body and in the token.
    fn draw_labels(&mut self) -> (Labels, Labels) {
        let mut draw = |percent, label| (self.labels.random_range(0..100) < percent).then_some(label);
        let body = [draw(50, ("quality", "uhd")), draw(30, ("channel", "news")).or(draw(40, ("channel", "sport")))];
        let token = [draw(10, ("profile", "child")), draw(10, ("quality", "hd")), draw(10, ("channel", "sport"))];
        let labels = |drawn: &[Option<_>]| labels_from(&drawn.iter().flatten().copied().collect::<Vec<_>>());
        (labels(&body), labels(&token))
    }

    fn set_new_key(&mut self, options: &mut StartOptions) -> String {
        self.keys += 1;
        let key = format!("{}-{}", self.number, self.keys);
        options.idempotency_key = IdempotencyKey::parse(key.as_bytes()).ok();
        key
    }

    /// Picks one of the user's last six streams.
    fn recent_stream(&mut self) -> Option<StreamId> {
        let ids = self.instances.context.created_ids(&self.user);
        let first = ids.len().saturating_sub(6);
        (!ids.is_empty()).then(|| ids[self.random.random_range(first..ids.len())])
    }

    async fn start(&mut self, mut options: StartOptions, mut key: Option<String>) -> Option<StreamId> {
        for _ in 0..4 {
            let response = self.call(Operation::Start(options.clone(), key.clone())).await;
            match response {
                // The response is lost between the service and the player.
                Ok(_) if self.chance(6) => {}
                Ok(ApiResponse::Start(Timestamped {
                    value: StartOutcome::Started(new) | StartOutcome::Existing(new),
                    ..
                })) => {
                    return Some(new.lease.stream_id);
                }
                Ok(ApiResponse::Start(Timestamped { value: StartOutcome::Denied(denial), .. })) => {
                    if !self.retry_after_denial(&denial, &mut options, &mut key).await {
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

    /// Reacts to a denial: evicts the oldest stream, sets the option to evict, changes nothing, or gives up. Returns
    /// whether the player retries.
    async fn retry_after_denial(
        &mut self,
        denial: &Denial,
        options: &mut StartOptions,
        key: &mut Option<String>,
    ) -> bool {
        if self.chance(15) {
            let Some(oldest) = denial.streams.first() else { return false };
            _ = self.call(Operation::Evict(Some(vec![oldest.stream_id]), None)).await;
        } else if self.chance(15) {
            options.at_limit = Some(AtLimit::EvictOldest);
            if key.is_some() {
                *key = Some(self.set_new_key(options));
            }
        } else if self.chance(40) {
            return false;
        }
        true
    }

    /// Sends heartbeats. Then stops the stream, abandons it, or reloads the page. Returns whether the player reloads.
    async fn watch(&mut self, stream_id: StreamId) -> bool {
        for _ in 0..self.random.random_range(1..9) {
            let long_pause = self.chance(8);
            self.pause(if long_pause { 5_000 } else { 1_200 }, if long_pause { 11_000 } else { 3_200 }).await;
            if self.chance(8) {
                let reads = [Operation::List, Operation::Get(stream_id), Operation::GetLimit];
                let operation = reads[self.random.random_range(0..3)].clone();
                _ = self.call(operation).await;
            }
            if self.chance(10) {
                self.send_heartbeat_twice(stream_id).await;
                continue;
            }
            let content = if self.chance(15) { self.draw_content() } else { None };
            match self.call(Operation::Heartbeat(stream_id, content)).await {
                Ok(ApiResponse::Heartbeat(Timestamped {
                    value: StreamState::Inactive(_) | StreamState::NotFound,
                    ..
                })) => return false,
                _ => continue,
            }
        }
        match self.random.random_range(0..10) {
            0..5 => {
                self.stop(stream_id).await;
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

    fn draw_content(&mut self) -> Option<ContentId> {
        ContentId::clean(&format!("movie-{}", self.random.random_range(0..4)))
    }

    /// Sends the same heartbeat to two instances at once.
    async fn send_heartbeat_twice(&mut self, stream_id: StreamId) {
        let content = self.draw_content();
        let request = self.request(Operation::Heartbeat(stream_id, content));
        let timeout = Duration::from_secs(3);
        let calls = [0, 1].map(|instance| self.instances.call(instance, &request, timeout));
        futures_util::future::join_all(calls).await;
    }

    async fn stop(&mut self, stream_id: StreamId) {
        for _ in 0..3 {
            if self.call(Operation::Stop(stream_id)).await.is_ok() {
                break;
            }
            self.pause(20, 800).await;
        }
        if self.chance(25) {
            self.stop_later(stream_id);
        }
    }

    /// Sends a stop after a delay. The player does not wait for it.
    fn stop_later(&mut self, stream_id: StreamId) {
        let (instances, delay) = (Arc::clone(&self.instances), random_ms(&mut self.random, 500, 8_000));
        let request = self.request(Operation::Stop(stream_id));
        let instance = self.random.random_range(0..INSTANCES);
        tokio::spawn(async move {
            sleep(delay).await;
            instances.call(instance, &request, Duration::from_secs(3)).await
        });
    }
}
