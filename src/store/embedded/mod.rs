//! DynamoDB inside the process: an HTTP client for the SDK that asks `dynoxide` (SQLite) on a thread of its own, so
//! that the DynamoDB store runs unchanged, without a port or an account. One process holds the file at a time.

pub mod engine;

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use thiserror::Error;
use tokio::sync::{mpsc as requests, oneshot};

use self::engine::{Answer, Engine};
use crate::clock::Clock;

/// How many requests wait for the engine's thread before further callers wait for a place.
const QUEUE: usize = 256;
/// Expired leases cost room, not slots, so cleaning is not urgent.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How hard a write is pushed to the disk. Either survives the death of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// The last writes before a power cut may be lost; the file stays sound.
    Normal,
    /// A power cut loses nothing; several times slower.
    Full,
}

#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "{0} is in use by another process: one process at a time can hold it; use store.kind = \"dynamodb\" for several instances"
    )]
    InUse(PathBuf),
    #[error("cannot open {path}: {problem}")]
    Io { path: PathBuf, problem: String },
}

/// The engine, and the thread that answers for it. Clones share both.
#[derive(Clone)]
pub struct Embedded {
    engine: Engine,
    connector: Connector,
    /// Disconnected once the threads have let go of the file.
    ended: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Embedded {
    /// Opens or creates the file, and sweeps what has expired from it once a minute.
    pub fn open(path: &Path, sync: SyncMode) -> Result<Self, OpenError> {
        let io = |problem: String| OpenError::Io { path: path.to_owned(), problem };
        let plain = real_path(path).map_err(|error| io(error.to_string()))?;
        let lock = lock(&plain, path)?;
        let path = &plain;
        let engine = Engine::open(path, sync == SyncMode::Normal).map_err(io)?;
        let (sweeper, stopped) = mpsc::channel::<()>();
        let (running, ended) = mpsc::channel::<()>();
        let (swept, sweeping_on) = (engine.clone(), running.clone());
        let sweeping = thread::Builder::new().name("embedded-ttl".to_owned()).spawn(move || {
            while stopped.recv_timeout(SWEEP_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                match swept.sweep() {
                    Ok(0) => {}
                    Ok(leases) => tracing::debug!(leases, "deleted what has expired"),
                    Err(error) => tracing::warn!(%error, "could not delete what has expired"),
                }
            }
            drop((swept, sweeping_on));
        });
        sweeping.map_err(|error| io(error.to_string()))?;
        let requests = serve(engine.clone(), Some((lock, running))).map_err(io)?;
        let ended = Arc::new(Mutex::new(ended));
        Ok(Self { engine, connector: Connector { requests, _sweeper: Some(sweeper) }, ended })
    }

    /// An engine without a file, whose TTL goes by `clock` and deletes only when [`Embedded::sweep`] is called.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let io = |problem: String| OpenError::Io { path: PathBuf::from(":memory:"), problem };
        let engine = Engine::in_memory(clock).map_err(io)?;
        let requests = serve(engine.clone(), None).map_err(io)?;
        let ended = Arc::new(Mutex::new(mpsc::channel().1));
        Ok(Self { engine, connector: Connector { requests, _sweeper: None }, ended })
    }

    /// The SDK's way in. The engine runs as long as somebody holds one.
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.connector.clone())
    }

    /// Lets go of the file, with everything written into it, once all clients are gone. Whether that was in time. Blocks.
    pub fn close(self, within: Duration) -> bool {
        let Self { engine, connector, ended } = self;
        drop((engine, connector));
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    /// Deletes what TTL lets go, and says how much. Blocks: never to be called on a runtime worker.
    pub fn sweep(&self) -> Result<usize, String> {
        self.engine.sweep()
    }
}

/// The path without symbolic links, so that one file has one lock however it is spelt; its folder is made if need be.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    if path.exists() {
        // What cannot be written is better known now than at the first start.
        File::options().write(true).open(path)?;
        return path.canonicalize();
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    Ok(folder.canonicalize()?.join(path.file_name().unwrap_or_default()))
}

/// Holds the lock as long as the returned file is open. Beside the database, because SQLite has locks of its own in it.
fn lock(plain: &Path, path: &Path) -> Result<File, OpenError> {
    let mut beside = plain.as_os_str().to_owned();
    beside.push(".lock");
    let io = |error: std::io::Error| OpenError::Io { path: PathBuf::from(&beside), problem: error.to_string() };
    let file = File::options().create(true).truncate(false).write(true).open(&beside).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

struct Request {
    operation: String,
    body: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// Starts the thread that answers requests one by one until the last sender is gone; it holds on to `until_then`.
fn serve(engine: Engine, until_then: Option<(File, mpsc::Sender<()>)>) -> Result<requests::Sender<Request>, String> {
    let (sender, mut receiver) = requests::channel::<Request>(QUEUE);
    let thread = thread::Builder::new().name("embedded-dynamodb".to_owned()).spawn(move || {
        while let Some(request) = receiver.blocking_recv() {
            // Who gave up waiting gets nothing done in their name any more.
            if request.answer.is_closed() {
                continue;
            }
            let answer = catch_unwind(AssertUnwindSafe(|| engine.answer(&request.operation, &request.body)));
            let answer = answer.unwrap_or_else(|_| Answer::internal_error("panic"));
            _ = request.answer.send(answer);
        }
        // The database first: its last holder writes the log back into the file.
        drop(engine);
        drop(until_then);
    });
    thread.map(|_| sender).map_err(|error| error.to_string())
}

#[derive(Clone, Debug)]
struct Connector {
    requests: requests::Sender<Request>,
    // Dropping the last one ends the sweeping thread.
    _sweeper: Option<mpsc::Sender<()>>,
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let requests = self.requests.clone();
        HttpConnectorFuture::new(async move {
            let gone = || ConnectorError::io("the embedded engine has stopped".into());
            let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
            let operation = operation.unwrap_or_default().to_owned();
            let body = request.body().bytes().unwrap_or_default().to_vec();
            let (sender, receiver) = oneshot::channel();
            requests.send(Request { operation, body, answer: sender }).await.map_err(|_| gone())?;
            let answer = receiver.await.map_err(|_| gone())?;
            let status = answer.status.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))?;
            let mut response = HttpResponse::new(status, answer.body.into());
            response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
            Ok(response)
        })
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.operation)
    }
}
