//! The Tokio runtimes of the commands.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// Runs a command to completion on this thread.
pub fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = build()?;
    let result = runtime.block_on(command);
    // Dropping the runtime would wait for blocking DNS lookups, which have no time limit.
    runtime.shutdown_background();
    result
}

/// A single-threaded runtime. Several of them handle more requests than one multi-threaded runtime (docs/PERFORMANCE.md).
pub fn build() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
