//! One thread of a run. Its players share connections and measurements without locks.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::connection_pool::{ConnectionPool, Response};
use crate::limit_check::Observations;
use crate::measurements::{Measurements, Operation, is_failure};
use crate::player::Player;
use crate::run::Run;

/// Timers of tokio fire up to 2 ms late. This delay is not counted as latency.
const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

pub struct Worker {
    pub run: Run,
    pub connections: ConnectionPool,
    pub measurements: RefCell<Measurements>,
}

impl Worker {
    /// Runs the players of this thread until the end of the run.
    pub fn run(run: Run, thread: usize) -> Result<(Measurements, Vec<Observations>), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        let options = run.options.clone();
        let (threads, players) = (options.threads(), options.players);
        let connections = options.connections / threads + usize::from(thread < options.connections % threads);
        let worker = Rc::new(Self {
            connections: ConnectionPool::new(&options, run.connector.clone(), connections)?,
            measurements: RefCell::default(),
            run,
        });
        let local = LocalSet::new();
        let tasks: Vec<_> = (0..players)
            .filter(|player| player / options.streams_per_user % threads == thread)
            .map(|player| {
                let first_start = worker.run.start + options.ramp_up.mul_f64(player as f64 / players as f64);
                local.spawn_local(Player::new(Rc::clone(&worker), player).run(first_start))
            })
            .collect();
        let observations = local.block_on(&runtime, async {
            let mut observations = Vec::with_capacity(tasks.len());
            for task in tasks {
                observations.push(task.await.map_err(|error| format!("a player failed: {error}"))?);
            }
            Ok::<_, String>(observations)
        })?;
        let mut measurements = worker.measurements.take();
        measurements.connections_opened = worker.connections.opened.get();
        Ok((measurements, observations))
    }

    /// Waits until a request is due. Returns the time from which to measure its latency, or `None` if the run is over.
    pub async fn wait_until(&self, due: Instant) -> Option<Instant> {
        let (now, end) = (Instant::now(), self.run.end());
        if now >= end || self.run.cancel.is_cancelled() {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        tokio::select! {
            biased;
            () = self.run.cancel.cancelled() => return None,
            () = tokio::time::sleep_until(due.min(end)) => {}
        }
        if due >= end {
            return None;
        }
        let now = Instant::now();
        let delay = now.saturating_duration_since(due);
        self.measurements.borrow_mut().timer_delay.record(delay);
        Some(if delay <= TIMER_RESOLUTION { now } else { due })
    }

    /// Sends a request and measures it. Latency counts from `due`, so it includes the time that the request was delayed by a slow
    /// previous response.
    pub async fn send(&self, operation: Operation, due: Instant, request: Request<Full<Bytes>>) -> Response {
        if self.connections.all_busy() {
            self.measurements.borrow_mut().queued += 1;
        }
        let response = self.connections.send(request).await;
        let now = Instant::now();
        let second = usize::try_from((now - self.run.start).as_secs()).unwrap_or(usize::MAX);
        self.measurements.borrow_mut().record(operation, response.status, now - due, second);
        let progress = &self.run.progress;
        let count = if is_failure(response.status) { &progress.failures } else { &progress.responses };
        count.fetch_add(1, Ordering::Relaxed);
        response
    }
}
