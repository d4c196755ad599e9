//! One simulated player. It follows docs/PROTOCOL.md, and collects observations for the limit check.

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

use crate::connection_pool::{Response, request};
use crate::limit_check::{Observations, ObservedLease};
use crate::measurements::{Operation, is_failure};
use crate::options::StartBy;
use crate::worker::Worker;

const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Heartbeat interval that is used until a response contains one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DAY_S: u64 = 86_400;
const MAX_STOP_ATTEMPTS: u32 = 3;

pub struct Player {
    worker: Rc<Worker>,
    number: usize,
    random: fastrand::Rng,
    /// The path of the user's streams.
    streams: String,
    /// Part of the device id; incremented after a crash.
    device: u32,
    /// Part of the idempotency key; incremented for each new playback.
    playback: u32,
    first_heartbeat_scheduled: bool,
    interval: Duration,
    /// Remaining length of the session.
    remaining: Duration,
    failures: u32,
    active: Option<ActiveStream>,
    last_stream_id: Option<Uuid>,
    observations: Observations,
}

struct ActiveStream {
    lease: ObservedLease,
    heartbeat: Uri,
    stop: Uri,
}

#[derive(Clone, Copy)]
enum Step {
    Start,
    Heartbeat,
    /// The session is over. The player stops, crashes or reloads.
    End,
    Stop,
}

type NextStep = (Step, Instant);

/// The response to a start or a heartbeat.
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

/// The response to a heartbeat of a stream that is no longer active.
#[derive(Deserialize)]
struct Inactive<'a> {
    restart: &'a str,
}

impl Player {
    pub fn new(worker: Rc<Worker>, number: usize) -> Self {
        let options = &worker.run.options;
        let user = number / options.streams_per_user;
        let mut random = fastrand::Rng::with_seed(options.seed().wrapping_add(number as u64));
        let remaining = exponential(&mut random, options.session_seconds);
        Self {
            number,
            streams: format!("/v1/users/{}/streams", worker.run.user_name(user)),
            random,
            device: 0,
            playback: 0,
            first_heartbeat_scheduled: false,
            interval: DEFAULT_INTERVAL,
            remaining,
            failures: 0,
            active: None,
            last_stream_id: None,
            observations: Observations { user, ..Observations::default() },
            worker,
        }
    }

    /// Plays until the end of the run. Then stops the active stream, but does not measure this request.
    pub async fn run(mut self, first_start: Instant) -> Observations {
        let mut next = (Step::Start, first_start);
        while let Some(due) = self.worker.wait_until(next.1).await {
            next = match next.0 {
                Step::Start => self.start(due).await,
                Step::Heartbeat => self.heartbeat(due).await,
                Step::End => self.end(due),
                Step::Stop => self.stop(due).await,
            };
        }
        if let Some(stream) = self.release(Instant::now()) {
            let response = self.worker.connections.send(request(Method::DELETE, &stream)).await;
            let mut measurements = self.worker.measurements.borrow_mut();
            let stopped = response.status == Some(204);
            *(if stopped { &mut measurements.stopped_after_run } else { &mut measurements.not_stopped }) += 1;
        }
        self.observations
    }

    async fn start(&mut self, due: Instant) -> NextStep {
        let sent = Instant::now();
        self.release(sent);
        let response = self.worker.send(Operation::Start, due, self.start_request()).await;
        match response.status {
            Some(200 | 201) => match serde_json::from_slice::<Stream>(&response.body) {
                Ok(stream) => self.started(&stream, sent, due),
                Err(_) => self.malformed(Step::Start, sent),
            },
            Some(409) => {
                self.observations.starts_at_limit += 1;
                self.worker.run.progress.denials.fetch_add(1, Ordering::Relaxed);
                self.retry_after(Step::Start, &response)
            }
            Some(429) => self.retry_after(Step::Start, &response),
            status => {
                self.unknown_start(sent);
                // The stream of this idempotency key has ended, so the next start needs another key.
                self.playback += u32::from(status == Some(410));
                self.back_off(Step::Start)
            }
        }
    }

    fn started(&mut self, stream: &Stream, sent: Instant, due: Instant) -> NextStep {
        let now = Instant::now();
        self.failures = 0;
        self.observations.limit = self.observations.limit.max(stream.limit);
        // After a start with an unknown outcome, the ended stream may be the player's own.
        let ended_another = stream.ended.iter().any(|id| Some(*id) != self.last_stream_id);
        let ended_another = ended_another && self.observations.unknown_start.is_none();
        self.observations.starts_at_limit += u64::from(ended_another);
        self.observations.ended.extend(stream.ended.iter().map(|id| (*id, sent)));
        self.last_stream_id = Some(stream.stream_id);
        let path = format!("{}/{}", self.streams, stream.stream_id);
        let connections = &self.worker.connections;
        self.active = Some(ActiveStream {
            lease: ObservedLease {
                stream_id: stream.stream_id,
                from: now,
                confirmed_until: now,
                expires: self.expiry(stream, sent).max(now),
            },
            heartbeat: connections.target(&format!("{path}/heartbeat")),
            stop: connections.target(&path),
        });
        self.worker.run.progress.active_streams.fetch_add(1, Ordering::Relaxed);
        self.schedule_heartbeat(stream, due)
    }

    async fn heartbeat(&mut self, due: Instant) -> NextStep {
        let Some(active) = &self.active else { return (Step::Start, due) };
        let stream_id = active.lease.stream_id;
        let sent = Instant::now();
        let response = self.worker.send(Operation::Heartbeat, due, request(Method::POST, &active.heartbeat)).await;
        match response.status {
            Some(200) => match serde_json::from_slice::<Stream>(&response.body) {
                Ok(stream) if stream.stream_id == stream_id => {
                    self.failures = 0;
                    let expires = self.expiry(&stream, sent);
                    if let Some(ActiveStream { lease, .. }) = &mut self.active {
                        lease.confirmed_until = lease.confirmed_until.max(sent);
                        lease.expires = expires.max(lease.confirmed_until);
                    }
                    self.schedule_heartbeat(&stream, due)
                }
                _ => self.malformed(Step::Heartbeat, sent),
            },
            Some(404 | 410) => {
                // The lease may have ended at any time since the last confirmed heartbeat.
                self.end_lease(|lease| lease.confirmed_until);
                self.playback += 1;
                let inactive = serde_json::from_slice::<Inactive<'_>>(&response.body);
                let evicted = inactive.is_ok_and(|inactive| inactive.restart == "user");
                (Step::Start, if evicted { self.pause(Instant::now()) } else { Instant::now() })
            }
            Some(429) => self.retry_after(Step::Heartbeat, &response),
            _ => {
                let (step, at) = self.back_off(Step::Heartbeat);
                self.remaining = self.remaining.saturating_sub(at - Instant::now());
                if self.remaining.is_zero() { (Step::End, at) } else { (step, at) }
            }
        }
    }

    /// Returns the next heartbeat, or the end of the session if the session ends earlier. A closed loop has the same number of
    /// heartbeats but does not wait between them.
    fn schedule_heartbeat(&mut self, stream: &Stream, due: Instant) -> NextStep {
        self.interval = Duration::from_secs(stream.heartbeat_interval_seconds.clamp(1, DAY_S));
        // The first heartbeat is at a random time in the interval. Otherwise, players that start together would always send their
        // heartbeats together.
        let first = !std::mem::replace(&mut self.first_heartbeat_scheduled, true);
        let wait = self.interval.mul_f64(if first { self.random.f64() } else { 0.95 + self.random.f64() / 10.0 });
        let (step, wait) = if self.remaining <= wait { (Step::End, self.remaining) } else { (Step::Heartbeat, wait) };
        self.remaining -= wait;
        (step, self.after(due, wait))
    }

    fn end(&mut self, due: Instant) -> NextStep {
        let options = &self.worker.run.options;
        self.remaining = exponential(&mut self.random, options.session_seconds);
        let percentile = self.random.u8(0..100);
        if percentile < options.ends.stop {
            return (Step::Stop, due);
        }
        if percentile < options.ends.stop + options.ends.reload {
            return (Step::Start, due);
        }
        // A crashed player sends nothing, so the lease lasts until it expires.
        self.end_lease(|lease| lease.expires);
        self.device += 1;
        self.playback += 1;
        (Step::Start, self.pause(due))
    }

    async fn stop(&mut self, due: Instant) -> NextStep {
        let Some(stream) = self.release(Instant::now()) else { return (Step::Start, self.pause(due)) };
        let mut next = Some(due);
        for _ in 0..MAX_STOP_ATTEMPTS {
            let Some(due) = next else { break };
            let response = self.worker.send(Operation::Stop, due, request(Method::DELETE, &stream)).await;
            if !is_failure(response.status) {
                break;
            }
            let (_, retry_at) = self.back_off(Step::Stop);
            next = self.worker.wait_until(retry_at).await;
        }
        self.failures = 0;
        self.playback += 1;
        (Step::Start, self.pause(Instant::now()))
    }

    fn start_request(&self) -> Request<Full<Bytes>> {
        let mut start = request(Method::POST, &self.worker.connections.target(&self.streams));
        match self.worker.run.options.start_by {
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

    fn expiry(&self, stream: &Stream, sent: Instant) -> Instant {
        let expires_in = Duration::from_secs(stream.expires_in_seconds.min(7 * DAY_S));
        sent + expires_in.saturating_sub(self.worker.run.options.tolerance_seconds)
    }

    fn malformed(&mut self, step: Step, sent: Instant) -> NextStep {
        self.worker.measurements.borrow_mut().malformed += 1;
        self.unknown_start(sent);
        self.back_off(step)
    }

    fn unknown_start(&mut self, sent: Instant) {
        self.observations.unknown_start.get_or_insert(sent);
    }

    /// Counts the lease only until `now`, because the player is about to send a request that ends it. Returns the target of a stop
    /// request.
    fn release(&mut self, now: Instant) -> Option<Uri> {
        self.end_lease(|lease| lease.expires.min(now))
    }

    fn end_lease(&mut self, expires: impl FnOnce(&ObservedLease) -> Instant) -> Option<Uri> {
        let ActiveStream { mut lease, stop, .. } = self.active.take()?;
        lease.expires = expires(&lease);
        self.observations.leases.push(lease);
        self.worker.run.progress.active_streams.fetch_sub(1, Ordering::Relaxed);
        Some(stop)
    }

    /// Schedules a retry, never earlier than `Retry-After`.
    fn retry_after(&mut self, step: Step, response: &Response) -> NextStep {
        let wait = response.retry_after.unwrap_or(MIN_BACKOFF).clamp(MIN_BACKOFF, Duration::from_secs(DAY_S));
        (step, Instant::now() + wait.mul_f64(1.0 + self.random.f64() / 10.0))
    }

    /// Schedules a retry with exponential backoff up to the heartbeat interval.
    fn back_off(&mut self, step: Step) -> NextStep {
        let backoff = MIN_BACKOFF * 2_u32.pow(self.failures.min(16));
        self.failures += 1;
        (step, Instant::now() + backoff.min(self.interval).mul_f64(1.0 + self.random.f64() / 2.0))
    }

    fn pause(&mut self, due: Instant) -> Instant {
        let pause = exponential(&mut self.random, self.worker.run.options.pause_seconds);
        self.after(due, pause)
    }

    fn after(&self, due: Instant, wait: Duration) -> Instant {
        if self.worker.run.options.closed_loop { Instant::now() } else { due + wait }
    }
}

/// A random duration with an exponential distribution. The remaining length of a session then does not depend on its elapsed
/// length, so a run needs no warm-up.
fn exponential(random: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - random.f64()).ln())
}
