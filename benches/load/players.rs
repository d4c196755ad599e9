//! One player: what it does when, by the rule that docs/PROTOCOL.md publishes. Sends through `Connections`, writes down
//! what it was told, judges nothing.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::connections::{Reply, request};
use crate::holds::{History, Hold};
use crate::measurements::{Verb, is_failure};
use crate::options::StartBy;
use crate::world::World;

const SHORTEST_BACK_OFF: Duration = Duration::from_secs(1);
/// Until an answer says another one.
const USUAL_INTERVAL: Duration = Duration::from_secs(30);
const DAY_S: u64 = 86_400;
const STOP_TRIES: u32 = 3;

pub struct Player {
    world: Rc<World>,
    number: usize,
    random: fastrand::Rng,
    streams: String,
    /// Counted up after a crash, and at each new playback.
    device: u32,
    playback: u32,
    first: bool,
    interval: Duration,
    /// How much longer this stream is watched.
    remaining: Duration,
    failures: u32,
    playing: Option<Playing>,
    last: Option<Uuid>,
    history: History,
}

struct Playing {
    hold: Hold,
    heartbeat: Uri,
    stream: Uri,
}

#[derive(Clone, Copy)]
enum Step {
    Start,
    Heartbeat,
    /// The stream has been watched: by a stop, a crash or a reload.
    End,
    Stop,
}

type Next = (Step, Instant);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    stream_id: Uuid,
    expires_in_seconds: u64,
    heartbeat_interval_seconds: u64,
    limit: Option<u32>,
    #[serde(default)]
    ended: Vec<Uuid>,
}

#[derive(Deserialize)]
struct Over<'a> {
    restart: &'a str,
}

impl Player {
    pub fn new(world: Rc<World>, number: usize) -> Self {
        let options = &world.options;
        let user = number / options.streams_per_user;
        let mut random = fastrand::Rng::with_seed(options.seed().wrapping_add(number as u64));
        let remaining = spread(&mut random, options.session_seconds);
        Self {
            number,
            streams: format!("/v1/users/{}/streams", World::user_name(&world.run, user)),
            random,
            device: 0,
            playback: 0,
            first: true,
            interval: USUAL_INTERVAL,
            remaining,
            failures: 0,
            playing: None,
            last: None,
            history: History { user, ..History::default() },
            world,
        }
    }

    /// Until the run is over; then whatever it still plays is stopped, which is not measured.
    pub async fn play(mut self, first_start: Instant) -> History {
        let mut next = (Step::Start, first_start);
        while let Some(due) = self.world.wait(next.1).await {
            next = match next.0 {
                Step::Start => self.start(due).await,
                Step::Heartbeat => self.beat(due).await,
                Step::End => self.end(due),
                Step::Stop => self.stop(due).await,
            };
        }
        if let Some(stream) = self.let_go(Instant::now()) {
            let reply = self.world.connections.ask(request(Method::DELETE, &stream, "")).await;
            let mut measurements = self.world.measurements.borrow_mut();
            if reply.status == 204 { measurements.cleared += 1 } else { measurements.left += 1 }
        }
        self.history
    }

    async fn start(&mut self, due: Instant) -> Next {
        let sent = Instant::now();
        self.let_go(sent);
        let reply = self.ask(Verb::Start, due, self.start_request()).await;
        match reply.status {
            200 | 201 => match serde_json::from_slice::<Stream>(&reply.body) {
                Ok(stream) => self.started(&stream, sent, due),
                Err(_) => self.malformed(Step::Start, sent),
            },
            409 => {
                self.history.refusals += 1;
                self.world.live.denials.fetch_add(1, Ordering::Relaxed);
                self.later(Step::Start, &reply)
            }
            429 => self.later(Step::Start, &reply),
            410 => {
                self.unknown_start(sent);
                self.playback += 1;
                self.back_off(Step::Start)
            }
            _ => {
                self.unknown_start(sent);
                self.back_off(Step::Start)
            }
        }
    }

    fn started(&mut self, stream: &Stream, sent: Instant, due: Instant) -> Next {
        let now = Instant::now();
        self.failures = 0;
        self.history.limit = self.history.limit.max(stream.limit);
        let others = stream.ended.iter().any(|id| Some(*id) != self.last);
        // Behind a start whose answer was lost it may be the player's own.
        self.history.refusals += u64::from(others && self.history.unknown_start.is_none());
        self.last = Some(stream.stream_id);
        self.history.ended.extend(stream.ended.iter().map(|id| (*id, sent)));
        let path = format!("{}/{}", self.streams, stream.stream_id);
        let connections = &self.world.connections;
        let hold = Hold {
            stream: stream.stream_id,
            from: now,
            confirmed: now,
            promised: self.promised(stream, sent).max(now),
        };
        self.playing = Some(Playing {
            hold,
            heartbeat: connections.target(&format!("{path}/heartbeat")),
            stream: connections.target(&path),
        });
        self.world.live.playing.fetch_add(1, Ordering::Relaxed);
        self.play_on(stream, due)
    }

    async fn beat(&mut self, due: Instant) -> Next {
        let Some(playing) = &self.playing else { return (Step::Start, due) };
        let beaten = playing.hold.stream;
        let sent = Instant::now();
        let reply = self.ask(Verb::Heartbeat, due, request(Method::POST, &playing.heartbeat, "")).await;
        match reply.status {
            200 => match serde_json::from_slice::<Stream>(&reply.body) {
                Ok(stream) if stream.stream_id == beaten => {
                    self.failures = 0;
                    let promised = self.promised(&stream, sent);
                    if let Some(Playing { hold, .. }) = &mut self.playing {
                        hold.confirmed = hold.confirmed.max(sent);
                        hold.promised = promised.max(hold.confirmed);
                    }
                    self.play_on(&stream, due)
                }
                _ => self.malformed(Step::Heartbeat, sent),
            },
            404 | 410 => {
                self.lose();
                self.playback += 1;
                let over = serde_json::from_slice::<Over<'_>>(&reply.body);
                if over.is_ok_and(|over| over.restart == "user") {
                    (Step::Start, self.pause(Instant::now()))
                } else {
                    (Step::Start, Instant::now())
                }
            }
            429 => self.later(Step::Heartbeat, &reply),
            _ => {
                let (step, at) = self.back_off(Step::Heartbeat);
                let wait = at - Instant::now();
                self.remaining = self.remaining.saturating_sub(wait);
                if self.remaining.is_zero() { (Step::End, at) } else { (step, at) }
            }
        }
    }

    /// The next heartbeat, or the end if that comes sooner. In a closed loop as many heartbeats, with no time between.
    fn play_on(&mut self, stream: &Stream, due: Instant) -> Next {
        self.interval = Duration::from_secs(stream.heartbeat_interval_seconds.clamp(1, DAY_S));
        // The first ones fall anywhere in the interval: else all who began together would beat together for ever.
        let part = if std::mem::take(&mut self.first) { self.random.f64() } else { 0.95 + self.random.f64() / 10.0 };
        let wait = self.interval.mul_f64(part);
        let (step, wait) = if self.remaining <= wait { (Step::End, self.remaining) } else { (Step::Heartbeat, wait) };
        self.remaining -= wait;
        (step, self.after(due, wait))
    }

    fn end(&mut self, due: Instant) -> Next {
        self.remaining = spread(&mut self.random, self.world.options.session_seconds);
        let ends = self.world.options.ends;
        let lot = self.random.u8(0..100);
        if lot < ends.stop {
            return (Step::Stop, due);
        }
        if lot < ends.stop + ends.reload {
            return (Step::Start, due);
        }
        // Nothing is said, so the slot is held until the lease runs out.
        self.forget();
        self.device += 1;
        self.playback += 1;
        (Step::Start, self.pause(due))
    }

    async fn stop(&mut self, due: Instant) -> Next {
        let Some(stream) = self.let_go(Instant::now()) else { return (Step::Start, self.pause(due)) };
        let mut due = Some(due);
        for _ in 0..STOP_TRIES {
            let Some(since) = due else { break };
            let reply = self.ask(Verb::Stop, since, request(Method::DELETE, &stream, "")).await;
            if !is_failure(reply.status) {
                break;
            }
            let (_, again) = self.back_off(Step::Stop);
            due = self.world.wait(again).await;
        }
        self.failures = 0;
        self.playback += 1;
        (Step::Start, self.pause(Instant::now()))
    }

    fn start_request(&self) -> Request<Full<Bytes>> {
        let target = self.world.connections.target(&self.streams);
        let mut start = request(Method::POST, &target, "");
        match self.world.options.start_by {
            StartBy::Device => {
                let body = format!(r#"{{"deviceId":"player-{}-{}"}}"#, self.number, self.device);
                *start.body_mut() = Full::from(body);
                start.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            StartBy::Key => {
                if let Ok(key) = HeaderValue::from_str(&format!("player-{}-{}", self.number, self.playback)) {
                    start.headers_mut().insert("idempotency-key", key);
                }
            }
        }
        start
    }

    async fn ask(&self, verb: Verb, due: Instant, request: Request<Full<Bytes>>) -> Reply {
        if self.world.connections.all_busy() {
            self.world.measurements.borrow_mut().queued += 1;
        }
        let reply = self.world.connections.ask(request).await;
        self.world.measurements.borrow_mut().record(verb, reply.status, due);
        let live = &self.world.live;
        let count = if is_failure(reply.status) { &live.failures } else { &live.answers };
        count.fetch_add(1, Ordering::Relaxed);
        reply
    }

    fn promised(&self, stream: &Stream, sent: Instant) -> Instant {
        let expires = Duration::from_secs(stream.expires_in_seconds.min(7 * DAY_S));
        sent + expires.saturating_sub(self.world.options.tolerance_seconds)
    }

    fn malformed(&mut self, step: Step, sent: Instant) -> Next {
        self.world.measurements.borrow_mut().malformed += 1;
        self.unknown_start(sent);
        self.back_off(step)
    }

    fn unknown_start(&mut self, sent: Instant) {
        self.history.unknown_start.get_or_insert(sent);
    }

    /// From now on this player may have no lease, by what it does itself. Gives the stream that it had.
    fn let_go(&mut self, now: Instant) -> Option<Uri> {
        let mut playing = self.playing.take()?;
        playing.hold.promised = playing.hold.promised.min(now);
        self.gone(playing.hold);
        Some(playing.stream)
    }

    /// The service says that it is over, nobody knows since when.
    fn lose(&mut self) {
        if let Some(mut playing) = self.playing.take() {
            playing.hold.promised = playing.hold.confirmed;
            self.gone(playing.hold);
        }
    }

    /// A crash: what was promised stays promised.
    fn forget(&mut self) {
        if let Some(playing) = self.playing.take() {
            self.gone(playing.hold);
        }
    }

    fn gone(&mut self, hold: Hold) {
        self.history.holds.push(hold);
        self.world.live.playing.fetch_sub(1, Ordering::Relaxed);
    }

    /// As `Retry-After` says, never sooner.
    fn later(&mut self, step: Step, reply: &Reply) -> Next {
        let wait =
            reply.retry_after.unwrap_or(SHORTEST_BACK_OFF).clamp(SHORTEST_BACK_OFF, Duration::from_secs(DAY_S));
        (step, Instant::now() + wait.mul_f64(1.0 + self.random.f64() / 10.0))
    }

    fn back_off(&mut self, step: Step) -> Next {
        let doubled = SHORTEST_BACK_OFF * 2_u32.pow(self.failures.min(16));
        self.failures += 1;
        (step, Instant::now() + doubled.min(self.interval).mul_f64(1.0 + self.random.f64() / 2.0))
    }

    fn pause(&mut self, due: Instant) -> Instant {
        let pause = spread(&mut self.random, self.world.options.pause_seconds);
        self.after(due, pause)
    }

    fn after(&self, due: Instant, wait: Duration) -> Instant {
        if self.world.options.closed_loop { Instant::now() } else { due + wait }
    }
}

/// Exponentially: how long a stream has been watched says nothing of how long it will be, so a run needs no time to settle.
fn spread(random: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - random.f64()).ln())
}
