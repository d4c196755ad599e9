//! The embedded database: opens the file, sweeps expired items, and closes the file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use aws_sdk_dynamodb::config::SharedHttpClient;

use super::connector::Connector;
use super::engine::Engine;
use super::error::OpenError;
use super::file_lock::{canonical_path, lock};
use super::sync_mode::SyncMode;
use crate::clock::Clock;

/// Expired leases take disk space but no slots, so sweeping is not urgent.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// A handle to the engine and its threads. Clones share them.
#[derive(Clone)]
pub struct Embedded {
    engine: Engine,
    connector: Connector,
    /// The channel disconnects after both threads have closed the file.
    closed: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Embedded {
    /// Opens the file, or creates it. A thread then deletes expired items once a minute.
    pub fn open(path: &Path, sync: SyncMode) -> Result<Self, OpenError> {
        let failed = |problem: String| OpenError::Io { path: path.to_owned(), problem };
        let canonical = canonical_path(path).map_err(|error| failed(error.to_string()))?;
        let lock = lock(&canonical, path)?;
        let engine = Engine::open(&canonical, sync).map_err(failed)?;
        let (running, closed) = mpsc::channel();
        let sweeper = spawn_sweeper(engine.clone(), running.clone()).map_err(|error| failed(error.to_string()))?;
        let connector = Connector::start(engine.clone(), (lock, running), Some(sweeper));
        let connector = connector.map_err(|error| failed(error.to_string()))?;
        Ok(Self { engine, connector, closed: Arc::new(Mutex::new(closed)) })
    }

    /// A database without a file. `clock` determines which items have expired. Only [`Embedded::sweep`] deletes them.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let failed = |problem: String| OpenError::Io { path: PathBuf::from(":memory:"), problem };
        let engine = Engine::in_memory(clock).map_err(failed)?;
        let connector = Connector::start(engine.clone(), (), None).map_err(|error| failed(error.to_string()))?;
        let (_, closed) = mpsc::channel();
        Ok(Self { engine, connector, closed: Arc::new(Mutex::new(closed)) })
    }

    /// The HTTP client for the SDK. The engine runs until the last client and the last handle are dropped.
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.connector.clone())
    }

    /// Blocks until all clients are dropped and the file is written and unlocked, but at most for `timeout`. Returns
    /// false if the timeout passed first.
    pub fn close(self, timeout: Duration) -> bool {
        let Self { engine, connector, closed } = self;
        drop((engine, connector));
        let closed = closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    /// Deletes items whose TTL has passed, and returns their number. It blocks, so do not call it on a runtime worker
    /// thread.
    pub fn sweep(&self) -> Result<usize, String> {
        self.engine.sweep()
    }
}

/// Starts the thread that deletes expired items. When the returned sender is dropped, the thread drops `running` and
/// ends.
fn spawn_sweeper(engine: Engine, running: mpsc::Sender<()>) -> std::io::Result<mpsc::Sender<()>> {
    let (sender, stop) = mpsc::channel::<()>();
    thread::Builder::new().name("embedded-ttl".to_owned()).spawn(move || {
        while stop.recv_timeout(SWEEP_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            match engine.sweep() {
                Ok(0) => {}
                Ok(items) => tracing::debug!(items, "expired items deleted"),
                Err(error) => tracing::warn!(event = "sweep_failed", %error, "could not delete expired items"),
            }
        }
        drop((engine, running));
    })?;
    Ok(sender)
}
