//! The Tokio runtime of a command.

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use stream_manager::config::Config;
use tokio::runtime::{Builder, Runtime};

/// Runs a command to completion on `server.worker_threads` threads.
pub fn block_on<T>(config: &Config, command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = build(config.worker_threads()).context("cannot start the runtime")?;
    let result = runtime.block_on(command);
    // Dropping the runtime would wait for blocking DNS lookups, which have no time limit.
    runtime.shutdown_background();
    result
}

/// With one worker thread, the single-threaded scheduler handles 1.5 times as many requests on DynamoDB as the multi-threaded
/// scheduler (docs/PERFORMANCE.md). It alternates between connections, so that the same code runs for many requests in a row.
fn build(worker_threads: NonZeroUsize) -> std::io::Result<Runtime> {
    match worker_threads.get() {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}
