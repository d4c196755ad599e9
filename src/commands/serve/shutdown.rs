//! The running service: waits for a signal or a failed task, and then shuts down in order.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use stream_manager::events::writer::EventWriter;
use stream_manager::http::api::health::Readiness;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::store::CloseStore;
use super::tasks::BackgroundTasks;

/// Time limit for the embedded store to write its log into its file at shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for writing the queued events at shutdown.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Service {
    /// The result is whether all requests completed in time.
    pub public_server: JoinHandle<bool>,
    pub management_server: JoinHandle<bool>,
    pub readiness: Arc<Readiness>,
    /// When this token is cancelled, the servers stop accepting connections.
    pub stop: CancellationToken,
    pub close_store: Option<CloseStore>,
    /// `None` if events are off.
    pub event_writer: Option<EventWriter>,
    pub tasks: BackgroundTasks,
}

/// Why the service stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Signal(SignalKind),
    TaskEnded,
}

/// Maximum durations of the steps of a shutdown.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownSettings {
    /// Time after SIGTERM during which the servers still accept connections.
    pub deregistration_s: u64,
    /// Time for requests in flight after `deregistration_s`. The servers enforce it; this module only logs it.
    pub drain_s: u64,
}

impl Service {
    /// Runs until a signal arrives or a task ends, and then completes the requests in flight. Each further signal skips the
    /// current wait.
    pub async fn run(mut self, settings: ShutdownSettings, mut signals: ShutdownSignals) -> ExitCode {
        let reason = tokio::select! {
            signal = signals.received() => Reason::Signal(signal),
            task = self.tasks.ended() => {
                error!(event = "task_ended", task, "a background task ended unexpectedly; stopping");
                Reason::TaskEnded
            }
        };
        self.drain(reason, settings.deregistration_s, &mut signals).await;
        let completed = self.stop(&mut signals).await;
        if completed {
            info!(event = "stopped", "stopped");
        } else {
            let drain_s = settings.drain_s;
            warn!(event = "stop_incomplete", drain_s, "stopped with requests or connections still open");
        }
        match reason {
            Reason::Signal(_) => ExitCode::SUCCESS,
            Reason::TaskEnded => ExitCode::FAILURE,
        }
    }

    /// Fails readiness but still accepts connections, so that load balancers have time to stop sending requests. Ctrl-C skips
    /// this wait, because an interactive run has no load balancer.
    async fn drain(&self, reason: Reason, deregistration_s: u64, signals: &mut ShutdownSignals) {
        self.readiness.drain();
        if reason == Reason::Signal(SignalKind::interrupt()) || deregistration_s == 0 {
            return;
        }
        info!(event = "draining", deregistration_s, "draining: readiness fails, still accepting connections");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(deregistration_s)) => {}
            _ = signals.received() => {}
        }
    }

    /// Stops the servers and closes the store. Returns whether everything completed in time.
    async fn stop(self, signals: &mut ShutdownSignals) -> bool {
        info!(event = "stopping", "stopping: finishing requests in flight");
        self.stop.cancel();
        let completed = tokio::select! {
            // An error means that the server panicked.
            completed = self.public_server => completed.unwrap_or(false),
            _ = signals.received() => false,
        };
        self.management_server.abort();
        _ = self.management_server.await;
        // Unfinished requests keep the file open, so there is no point in waiting. SQLite recovers from its log when the file
        // is opened again.
        let timeout = if completed { CLOSE_TIMEOUT } else { Duration::ZERO };
        let flushing = tokio::task::spawn_blocking(|| flush_events(self.event_writer));
        let closing = tokio::task::spawn_blocking(move || self.close_store.is_none_or(|close| close(timeout)));
        let closed = tokio::select! {
            closed = closing => closed.unwrap_or(false),
            _ = signals.received() => false,
        };
        tokio::select! {
            _ = flushing => {}
            _ = signals.received() => {}
        }
        completed && closed
    }
}

/// Blocks for at most [`EVENTS_TIMEOUT`].
fn flush_events(writer: Option<EventWriter>) {
    if !writer.is_none_or(|writer| writer.shutdown(EVENTS_TIMEOUT)) {
        warn!(event = "events_not_flushed", "the sink of events does not accept them; the queued events are lost");
    }
}

/// SIGTERM and SIGINT (Ctrl-C).
pub struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    pub fn new() -> Result<Self> {
        let handler = |kind| signal(kind).context("cannot install signal handlers");
        Ok(Self { terminate: handler(SignalKind::terminate())?, interrupt: handler(SignalKind::interrupt())? })
    }

    pub async fn received(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a service in which a task with this name ends at once. Returns the exit code.
    async fn exit_code_after_the_end_of(task: &'static str) -> String {
        let (tasks, stop) = (BackgroundTasks::new(), CancellationToken::new());
        let until_stopped = |stop: CancellationToken| async move {
            stop.cancelled().await;
            true
        };
        let public_server = tasks.spawn("public_server", until_stopped(stop.clone()));
        let management_server = tasks.spawn("management_server", until_stopped(stop.clone()));
        tasks.spawn(task, async {});
        let readiness = Arc::default();
        let (close_store, event_writer) = (None, None);
        let service = Service { public_server, management_server, readiness, stop, close_store, event_writer, tasks };
        let settings = ShutdownSettings { deregistration_s: 0, drain_s: 0 };
        format!("{:?}", service.run(settings, ShutdownSignals::new().unwrap()).await)
    }

    #[tokio::test]
    async fn the_process_fails_if_a_background_task_ends() {
        for task in ["management_server", "jwks_refresh", "memory_sweep"] {
            assert_eq!(exit_code_after_the_end_of(task).await, format!("{:?}", ExitCode::FAILURE), "{task}");
        }
    }
}
