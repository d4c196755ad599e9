//! Starts the threads of a run, shows the progress, and combines the results.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection_pool::{ConnectionPool, Connector};
use crate::limit_check::check_limit;
use crate::measurements::Measurements;
use crate::options::Options;
use crate::report::Report;
use crate::worker::Worker;

/// Shared by all threads of a run.
#[derive(Clone)]
pub struct Run {
    pub options: Arc<Options>,
    pub connector: Connector,
    pub progress: Arc<Progress>,
    pub cancel: CancellationToken,
    pub start: Instant,
    /// Prefix of the user names, so that each run has its own users.
    pub id: String,
}

/// Counters for the progress bar.
#[derive(Default)]
pub struct Progress {
    pub responses: AtomicU64,
    pub failures: AtomicU64,
    pub denials: AtomicU64,
    pub active_streams: AtomicI64,
}

/// Runs until the duration is over or `cancel` is cancelled, and then waits for the requests in flight.
pub async fn run(options: Options, cancel: CancellationToken) -> Result<Report, String> {
    let connector = Connector::new(&options.base_url)?;
    let probe = ConnectionPool::new(&options, connector.clone(), 1)?;
    LocalSet::new().run_until(probe.check()).await?;
    let options = Arc::new(options);
    let run = Run {
        options: Arc::clone(&options),
        connector,
        progress: Arc::default(),
        cancel,
        start: Instant::now(),
        id: format!("load-{:08x}", fastrand::u32(..)),
    };
    let mut results = Vec::new();
    for thread in 0..options.threads() {
        let (run, (sender, result)) = (run.clone(), oneshot::channel());
        let spawned = std::thread::Builder::new().name(format!("players-{thread}")).spawn(move || {
            _ = sender.send(Worker::run(run, thread));
        });
        spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        results.push(result);
    }
    let progress = tokio::spawn(show_progress(run.clone()));
    let (mut measurements, mut observations) = (Measurements::default(), Vec::new());
    for result in results {
        let (measured, observed) = result.await.map_err(|_| "a thread failed".to_owned())??;
        measurements.merge(&measured);
        observations.extend(observed);
    }
    progress.abort();
    let elapsed = run.start.elapsed().min(options.duration);
    let limit_check = check_limit(observations, options.limit, run.start, |user| run.user_name(user));
    Ok(Report::new(&options, elapsed, &measurements, limit_check))
}

impl Run {
    pub fn user_name(&self, user: usize) -> String {
        format!("{}-{user}", self.id)
    }

    pub fn end(&self) -> Instant {
        self.start + self.options.duration
    }
}

/// Draws the progress bar on standard error, if standard error is a terminal.
async fn show_progress(run: Run) {
    let seconds = run.options.duration.as_secs();
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut previous = 0;
    loop {
        ticks.tick().await;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Progress { responses, failures, denials, active_streams } = &*run.progress;
        let total = load(responses) + load(failures);
        bar.set_position(run.start.elapsed().as_secs().min(seconds));
        bar.set_message(format!(
            "{}/s, {} active streams, {} denials, {} failures",
            total - previous,
            active_streams.load(Ordering::Relaxed),
            load(denials),
            load(failures)
        ));
        previous = total;
    }
}
