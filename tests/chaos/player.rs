//! One client: a player that starts, renews, stops, is pushed out and crashes, at random but by its seed, and sends
//! each request to any instance. What it was told, it holds the service to.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Answer, Api, LIMIT, StartWith};
use crate::board::Hold;
use crate::process::LEASE_S;

/// The user whose streams nobody evicts and no device replaces.
pub const LEFT_ALONE: usize = 0;

pub struct Player {
    api: Arc<Api>,
    user: usize,
    number: usize,
    random: StdRng,
    keys: u32,
    held: Option<Held>,
}

/// A lease that was acknowledged to this client.
struct Held {
    id: String,
    expires_ms: i64,
    since: Instant,
    /// When the last heartbeat that was acknowledged was sent.
    confirmed: Instant,
    /// False where the time in between is not certainly without a gap.
    unbroken: bool,
}

impl Player {
    pub fn new(api: Arc<Api>, seed: u64, number: usize, users: usize) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { api, user: number % users, number, random, keys: 0, held: None }
    }

    pub async fn play(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.held.take() {
                None => self.start().await,
                Some(held) => self.go_on(held).await,
            }
            let pause = Duration::from_millis(self.pause_ms());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        if let Some(held) = self.held.take() {
            self.forget(&held);
        }
    }

    /// Now and then a lease gets close to its end: only then does it show when somebody takes it too early. Who has
    /// no slot is in less of a hurry than the others, so that they get to do something.
    fn pause_ms(&mut self) -> u64 {
        match (self.held.is_some(), self.random.random_bool(0.2)) {
            (true, true) => self.random.random_range(900..LEASE_S * 1000),
            (true, false) => self.random.random_range(0..120),
            (false, _) => self.random.random_range(0..400),
        }
    }

    async fn start(&mut self) {
        let mut with = StartWith::default();
        match self.random.random_range(0..100) {
            0..35 => {}
            35..60 => return self.start_keyed().await,
            60..80 if self.user != LEFT_ALONE => with.body = json!({"deviceId": self.device(), "deviceName": "A"}),
            80..95 if self.user != LEFT_ALONE => with.body = json!({"atLimit": "evictOldest"}),
            _ => with.body = json!({"contentId": "movie"}),
        }
        let instance = self.instance();
        let answer = self.api.start(instance, self.user, &with).await;
        self.take(&[answer]);
    }

    /// The same key to two instances: at once, one after the other, or only if there was no answer.
    async fn start_keyed(&mut self) {
        self.keys += 1;
        let key = Some(format!("{}-{}", self.number, self.keys));
        let device = self.user != LEFT_ALONE && self.random.random_bool(0.3);
        let body = if device { json!({"deviceId": self.device()}) } else { Value::Null };
        let with = StartWith { key, body };
        let (one, other) = (self.instance(), self.instance());
        let (first, second);
        if self.random.random_bool(0.5) {
            let api = &self.api;
            (first, second) = tokio::join!(api.start(one, self.user, &with), api.start(other, self.user, &with));
        } else {
            first = self.api.start(one, self.user, &with).await;
            let given_up = matches!(first.status, 201 | 409) && self.random.random_bool(0.5);
            if given_up {
                return self.take(&[first]);
            }
            second = self.api.start(other, self.user, &with).await;
        }
        let ids = [first.text("streamId"), second.text("streamId")];
        let same = ids[0].is_empty() || ids[1].is_empty() || ids[0] == ids[1];
        self.api.board.expect(same, || format!("one key, two streams: {ids:?}"));
        self.take(&[first, second]);
    }

    /// Of the answers to one start, the latest expiry that was acknowledged counts.
    fn take(&mut self, answers: &[Answer]) {
        let given = || answers.iter().filter(|answer| matches!(answer.status, 200 | 201));
        let Some(latest) = given().max_by_key(|answer| answer.expires_ms()) else { return };
        for answer in given() {
            let right = answer.count("limit") == LIMIT && answer.expires_ms() != i64::MAX;
            self.api.board.expect(right, || format!("an odd start: {}", answer.body));
        }
        let since = given().map(|answer| answer.end).max().unwrap_or(latest.end);
        self.held = Some(Held {
            id: latest.text("streamId").to_owned(),
            expires_ms: latest.expires_ms(),
            since,
            confirmed: since,
            unbroken: given().count() == answers.len(),
        });
    }

    async fn go_on(&mut self, mut held: Held) {
        match self.random.random_range(0..100) {
            0..62 => {
                if self.heartbeat(&mut held).await {
                    self.held = Some(held);
                } else {
                    self.forget(&held);
                }
            }
            62..78 => self.stop(&held).await,
            78..84 => {
                self.push_someone_out(&held.id).await;
                self.held = Some(held);
            }
            84..90 if self.user != LEFT_ALONE => self.hand_over(&held).await,
            // Crashed: nobody stops it and nobody renews it.
            90..95 => self.forget(&held),
            _ => {
                let instance = self.instance();
                self.api.list(instance, self.user).await;
                self.held = Some(held);
            }
        }
    }

    /// Whether the stream goes on.
    async fn heartbeat(&mut self, held: &mut Held) -> bool {
        let instance = self.instance();
        let answer = self.api.heartbeat(instance, self.user, &held.id).await;
        let board = &self.api.board;
        let left_ms = held.expires_ms - answer.now_ms;
        let clocks_agree = self.api.history.is_none();
        match answer.status {
            200 => {
                let expires_ms = answer.expires_ms();
                let later = !clocks_agree || expires_ms >= held.expires_ms;
                let right = answer.text("streamId") == held.id && later;
                board.expect(right, || format!("acknowledged until {} before: {}", held.expires_ms, answer.body));
                board.expect(expires_ms != i64::MAX, || format!("no time in {}", answer.body));
                (held.expires_ms, held.confirmed) = (expires_ms, answer.begin);
                return true;
            }
            404 | 410 => {
                // Promise G3: before its time, only an eviction or a replacement takes it.
                let pushed_out = matches!(answer.text("reason"), "evicted" | "replaced");
                let by_right = if pushed_out { self.user != LEFT_ALONE } else { !clocks_agree || left_ms <= 0 };
                board.expect(by_right, || {
                    format!("user {} {}: taken {left_ms} ms before its time: {}", self.user, held.id, answer.body)
                });
                let restart = if pushed_out { "user" } else { "auto" };
                board.expect(answer.text("restart") == restart, || format!("wrong restart: {}", answer.body));
                return false;
            }
            _ => {}
        }
        // On a failure, a player goes on until its lease runs out, and keeps trying.
        left_ms > 0 || self.random.random_bool(0.5)
    }

    /// Whatever the answer, the id is not used again.
    async fn stop(&mut self, held: &Held) {
        self.forget(held);
        let begin = Instant::now();
        let by_post = self.random.random_bool(0.5);
        let instance = self.instance();
        let answer = self.api.stop(instance, self.user, &held.id, by_post).await;
        if self.random.random_bool(0.2) {
            let instance = self.instance();
            self.api.stop(instance, self.user, &held.id, !by_post).await;
        }
        if answer.status == 204 && self.random.random_bool(0.2) {
            let instance = self.instance();
            let after = self.api.heartbeat(instance, self.user, &held.id).await;
            // While the store comes and goes, a start that was retried may come after its stop.
            if self.api.board.calm_since(begin) {
                self.api.board.expect(after.status != 200, || format!("stopped, and lives: {}", after.body));
            }
        }
    }

    async fn push_someone_out(&mut self, own: &str) {
        let instance = self.instance();
        let answer = self.api.list(instance, self.user).await;
        let Some(streams) = answer.body["streams"].as_array().filter(|_| self.user != LEFT_ALONE) else { return };
        let ids: Vec<&str> = streams.iter().filter_map(|stream| stream["streamId"].as_str()).collect();
        let others: Vec<&str> = ids.into_iter().filter(|id| *id != own).collect();
        if !others.is_empty() {
            let victim = others[self.random.random_range(0..others.len())];
            let instance = self.instance();
            self.api.evict(instance, self.user, victim).await;
        }
    }

    /// A new stream that takes over from the old one in one step.
    async fn hand_over(&mut self, held: &Held) {
        self.forget(held);
        let with = StartWith { key: None, body: json!({"replaces": [held.id]}) };
        let instance = self.instance();
        let answer = self.api.start(instance, self.user, &with).await;
        self.take(&[answer]);
    }

    fn forget(&self, held: &Held) {
        if held.unbroken && held.confirmed > held.since {
            let hold = Hold { user: self.user, from: held.since, until: held.confirmed };
            self.api.board.lock().holds.push(hold);
        }
    }

    /// Few devices, so that clients of a user share some.
    fn device(&self) -> String {
        format!("device-{}", self.number / 32)
    }

    /// Any, the killed one included now and then.
    fn instance(&mut self) -> usize {
        let any = self.random.random_range(0..self.api.instances.len());
        let another = self.random.random_range(0..self.api.instances.len());
        if self.api.instances[any].brisk() { any } else { another }
    }
}
