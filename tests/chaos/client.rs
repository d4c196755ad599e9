//! A client that starts, renews, stops and abandons streams at random, from a seed. It sends each request to a random
//! instance, and checks each response against earlier responses.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, LIMIT, Response, StartOptions};
use crate::process::LEASE_S;
use crate::recorder::HeldLease;

/// The streams of this user are never evicted or replaced.
pub const UNDISTURBED_USER: usize = 0;

pub struct Client {
    api: Arc<Api>,
    user: usize,
    number: usize,
    random: StdRng,
    keys: u32,
    stream: Option<Stream>,
}

/// A stream that a start returned to this client.
struct Stream {
    id: String,
    expires_ms: i64,
    started: Instant,
    /// When the client sent its last successful heartbeat.
    renewed: Instant,
    /// Whether the client certainly held the lease without a gap, because all its starts succeeded.
    continuous: bool,
}

impl Client {
    pub fn new(api: Arc<Api>, seed: u64, number: usize, users: usize) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { api, user: number % users, number, random, keys: 0, stream: None }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.stream.take() {
                None => self.start().await,
                Some(stream) => self.use_stream(stream).await,
            }
            // A real pause, because the instances are real processes with real clocks.
            let pause = Duration::from_millis(self.pause_ms());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        if let Some(stream) = self.stream.take() {
            self.record_held(&stream);
        }
    }

    /// Sometimes the client pauses for up to a lease duration. Without these pauses, the test would rarely detect that
    /// another request ends a lease shortly before its expiry. Clients without a stream send fewer requests than clients
    /// with a stream.
    fn pause_ms(&mut self) -> u64 {
        match (self.stream.is_some(), self.random.random_bool(0.2)) {
            (true, true) => self.random.random_range(900..LEASE_S * 1000),
            (true, false) => self.random.random_range(0..120),
            (false, _) => self.random.random_range(0..400),
        }
    }

    async fn start(&mut self) {
        let mut options = StartOptions::default();
        match self.random.random_range(0..100) {
            0..35 => {}
            35..60 => return self.start_keyed().await,
            60..80 if self.user != UNDISTURBED_USER => {
                options.body = json!({"deviceId": self.device(), "deviceName": "A"})
            }
            80..95 if self.user != UNDISTURBED_USER => options.body = json!({"atLimit": "evictOldest"}),
            _ => options.body = json!({"contentId": "movie"}),
        }
        options.body = self.with_labels(options.body);
        let instance = self.instance();
        let response = self.api.start(instance, self.user, &options).await;
        self.keep(&[response]);
    }

    /// The body of a start. Some starts have a label, so that the rule applies to them.
    fn with_labels(&mut self, mut body: Value) -> Value {
        if self.random.random_bool(0.25) {
            body["labels"] = json!({"quality": "uhd"});
        }
        body
    }

    /// Sends two starts with the same idempotency key, each to a random instance, concurrently or one after the other.
    /// In the second case, the client sometimes skips the second start if the first had a definite result.
    async fn start_keyed(&mut self) {
        self.keys += 1;
        let key = Some(format!("{}-{}", self.number, self.keys));
        let device = self.user != UNDISTURBED_USER && self.random.random_bool(0.3);
        let body = if device { json!({"deviceId": self.device()}) } else { Value::Null };
        let options = StartOptions { key, body: self.with_labels(body) };
        let (one_instance, other_instance) = (self.instance(), self.instance());
        let (first, second);
        if self.random.random_bool(0.5) {
            let api = &self.api;
            (first, second) = tokio::join!(
                api.start(one_instance, self.user, &options),
                api.start(other_instance, self.user, &options)
            );
        } else {
            first = self.api.start(one_instance, self.user, &options).await;
            let sent_once = matches!(first.status, 201 | 409) && self.random.random_bool(0.5);
            if sent_once {
                return self.keep(&[first]);
            }
            second = self.api.start(other_instance, self.user, &options).await;
        }
        let ids = [first.text("streamId"), second.text("streamId")];
        let same_id = ids[0].is_empty() || ids[1].is_empty() || ids[0] == ids[1];
        self.api.recorder.check(same_id, || format!("one idempotency key returned two streams: {ids:?}"));
        self.keep(&[first, second]);
    }

    /// Keeps the stream from the response with the latest expiry. All responses are to the same start.
    fn keep(&mut self, responses: &[Response]) {
        let successful = || responses.iter().filter(|response| matches!(response.status, 200 | 201));
        let Some(latest) = successful().max_by_key(|response| response.expires_ms()) else { return };
        for response in successful() {
            let valid = response.count("limit") == LIMIT && response.expires_ms() != i64::MAX;
            self.api.recorder.check(valid, || format!("start without limit or expiry: {}", response.body));
        }
        let started = successful().map(|response| response.end).max().unwrap_or(latest.end);
        self.stream = Some(Stream {
            id: latest.text("streamId").to_owned(),
            expires_ms: latest.expires_ms(),
            started,
            renewed: started,
            continuous: successful().count() == responses.len(),
        });
    }

    async fn use_stream(&mut self, mut stream: Stream) {
        match self.random.random_range(0..100) {
            0..62 => {
                if self.heartbeat(&mut stream).await {
                    self.stream = Some(stream);
                } else {
                    self.record_held(&stream);
                }
            }
            62..78 => self.stop(&stream).await,
            78..84 => {
                self.evict_another(&stream.id).await;
                self.stream = Some(stream);
            }
            84..90 if self.user != UNDISTURBED_USER => self.replace(&stream).await,
            // Simulates a crash: the client neither stops nor renews the stream.
            90..95 => self.record_held(&stream),
            _ => {
                let instance = self.instance();
                self.api.list(instance, self.user).await;
                self.stream = Some(stream);
            }
        }
    }

    /// Sends a heartbeat. Returns whether the client keeps the stream.
    async fn heartbeat(&mut self, stream: &mut Stream) -> bool {
        let instance = self.instance();
        let response = self.api.heartbeat(instance, self.user, &stream.id).await;
        let recorder = &self.api.recorder;
        let remaining_ms = stream.expires_ms - response.now_ms;
        let same_clock = self.api.history.is_none();
        match response.status {
            200 => {
                let expires_ms = response.expires_ms();
                let same_id = response.text("streamId") == stream.id;
                recorder.check(same_id && (!same_clock || expires_ms >= stream.expires_ms), || {
                    format!("heartbeat with another id or an expiry before {}: {}", stream.expires_ms, response.body)
                });
                recorder.check(expires_ms != i64::MAX, || format!("heartbeat without an expiry: {}", response.body));
                (stream.expires_ms, stream.renewed) = (expires_ms, response.begin);
                return true;
            }
            404 | 410 => {
                // Guarantee G3: unless the client stops the stream, only an eviction or a replacement ends its lease before the expiry.
                let evicted = matches!(response.text("reason"), "evicted" | "replaced");
                let allowed = if evicted { self.user != UNDISTURBED_USER } else { !same_clock || remaining_ms <= 0 };
                recorder.check(allowed, || {
                    format!(
                        "user {}: lease of {} ended {remaining_ms} ms before its expiry: {}",
                        self.user, stream.id, response.body
                    )
                });
                let restart = if evicted { "user" } else { "auto" };
                recorder.check(response.text("restart") == restart, || {
                    format!("unexpected restart hint: {}", response.body)
                });
                return false;
            }
            _ => {}
        }
        // After a 503 or a lost response, real players retry until the lease expires. This client sometimes retries longer.
        remaining_ms > 0 || self.random.random_bool(0.5)
    }

    /// The client gives up the stream, even if the stop fails.
    async fn stop(&mut self, stream: &Stream) {
        self.record_held(stream);
        let begin = Instant::now();
        let by_post = self.random.random_bool(0.5);
        let instance = self.instance();
        let response = self.api.stop(instance, self.user, &stream.id, by_post).await;
        if self.random.random_bool(0.2) {
            let instance = self.instance();
            self.api.stop(instance, self.user, &stream.id, !by_post).await;
        }
        if response.status == 204 && self.random.random_bool(0.2) {
            let instance = self.instance();
            let after = self.api.heartbeat(instance, self.user, &stream.id).await;
            // During an outage, the store may apply a retried start after the stop.
            if self.api.recorder.healthy_since(begin) {
                self.api
                    .recorder
                    .check(after.status != 200, || format!("heartbeat succeeded after the stop: {}", after.body));
            }
        }
    }

    async fn evict_another(&mut self, own: &str) {
        let instance = self.instance();
        let response = self.api.list(instance, self.user).await;
        let Some(streams) = response.body["streams"].as_array().filter(|_| self.user != UNDISTURBED_USER) else {
            return;
        };
        let ids: Vec<&str> = streams.iter().filter_map(|stream| stream["streamId"].as_str()).collect();
        let others: Vec<&str> = ids.into_iter().filter(|id| *id != own).collect();
        if !others.is_empty() {
            let victim = others[self.random.random_range(0..others.len())];
            let instance = self.instance();
            self.api.evict(instance, self.user, victim).await;
        }
    }

    /// Starts a stream that replaces the current one.
    async fn replace(&mut self, stream: &Stream) {
        self.record_held(stream);
        let options = StartOptions { key: None, body: self.with_labels(json!({"replaces": [stream.id]})) };
        let instance = self.instance();
        let response = self.api.start(instance, self.user, &options).await;
        self.keep(&[response]);
    }

    fn record_held(&self, stream: &Stream) {
        if stream.continuous && stream.renewed > stream.started {
            let held = HeldLease { user: self.user, from: stream.started, until: stream.renewed };
            self.api.recorder.lock().held_leases.push(held);
        }
    }

    /// There are fewer devices than clients, so that clients share devices.
    fn device(&self) -> String {
        format!("device-{}", self.number / 32)
    }

    /// Chooses a random instance. An instance that is down or frozen is chosen less often.
    fn instance(&mut self) -> usize {
        let first = self.random.random_range(0..self.api.instances.len());
        let second = self.random.random_range(0..self.api.instances.len());
        if self.api.instances[first].is_responsive() { first } else { second }
    }
}
