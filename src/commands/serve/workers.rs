//! The workers of the public server: one thread with a single-threaded runtime for each.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use stream_manager::http::pipeline::app::App;
use stream_manager::http::server::{self, ServerSettings};
use stream_manager::http::worker::Worker;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::tasks::BackgroundTasks;
use crate::commands::runtime;

/// Serves with one worker per app until `stop` is cancelled, then completes the requests in flight. The result of the task is
/// whether all completed in time.
///
/// A single worker runs on the current runtime. Otherwise, each worker has its own thread and runtime, so that workers do not
/// wait for each other. The current runtime then accepts the connections and runs the background tasks.
pub fn serve(
    listener: TcpListener,
    mut apps: Vec<Arc<App>>,
    settings: ServerSettings,
    stop: CancellationToken,
    tasks: &BackgroundTasks,
) -> Result<JoinHandle<bool>> {
    if apps.len() == 1 {
        return Ok(tasks.spawn("public_server", server::serve(listener, apps.remove(0), settings, stop)));
    }
    let (mut queues, mut workers) = (Vec::new(), Vec::new());
    for app in apps {
        let (worker, queue) = Worker::new(app, settings);
        queues.push(queue);
        workers.push(tasks.spawn("worker", spawn(worker)?));
    }
    Ok(tasks.spawn("public_server", async move {
        server::accept_connections(listener, queues, settings.max_connections, stop).await;
        join_all(workers).await.into_iter().all(|completed| completed.unwrap_or(false))
    }))
}

/// Starts a worker's thread. The future completes when the worker has ended.
fn spawn(worker: Worker) -> Result<impl Future<Output = bool> + Send + 'static> {
    let runtime = runtime::build()?;
    let (sender, completed) = oneshot::channel();
    let thread = thread::Builder::new().name("worker".to_owned());
    let run = move || {
        let completed = runtime.block_on(worker.run());
        runtime.shutdown_background();
        _ = sender.send(completed);
    };
    thread.spawn(run).context("cannot start a worker thread")?;
    Ok(async move { completed.await.unwrap_or(false) })
}
