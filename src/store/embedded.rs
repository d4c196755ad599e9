//! DynamoDB inside the process: an HTTP client for the SDK that asks `dynoxide` (SQLite) on a thread of its own, so
//! that the DynamoDB store runs unchanged, without a port or an account. One process holds the file at a time.

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
use dynoxide::{Database, DynoxideError, actions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{mpsc as requests, oneshot};

use crate::clock::Clock;

/// How many requests wait for the engine's thread before further callers wait for a place.
const QUEUE: usize = 256;
/// Expired leases cost room, not slots, so cleaning is not urgent.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How hard a write is pushed to the disk. Either survives the death of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
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
    db: Database,
    connector: Connector,
    /// Disconnected once the threads have let go of the file.
    ended: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Embedded {
    /// Opens or creates the file, and sweeps what has expired from it once a minute.
    pub fn open(path: &Path, sync: Sync) -> Result<Self, OpenError> {
        let io = |problem: String| OpenError::Io { path: path.to_owned(), problem };
        let plain = real_path(path).map_err(|error| io(error.to_string()))?;
        let lock = lock(&plain, path)?;
        let path = &plain;
        let text = path.to_str().ok_or_else(|| io("the path is not UTF-8".to_owned()))?;
        let db = Database::new(text).map_err(|error| io(error.to_string()))?;
        if sync == Sync::Normal {
            // dynoxide's name for "synchronous = NORMAL"; its default is FULL.
            db.disable_bulk_loading().map_err(|error| io(error.to_string()))?;
        }
        let (sweeper, stopped) = mpsc::channel::<()>();
        let (running, ended) = mpsc::channel::<()>();
        let (swept, sweeping_on) = (db.clone(), running.clone());
        let sweeping = thread::Builder::new().name("embedded-ttl".to_owned()).spawn(move || {
            while stopped.recv_timeout(SWEEP_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                match swept.sweep_ttl() {
                    Ok(0) => {}
                    Ok(leases) => tracing::debug!(leases, "deleted what has expired"),
                    Err(error) => tracing::warn!(%error, "could not delete what has expired"),
                }
            }
            drop((swept, sweeping_on));
        });
        sweeping.map_err(|error| io(error.to_string()))?;
        let requests = serve(db.clone(), Some((lock, running))).map_err(io)?;
        let ended = Arc::new(Mutex::new(ended));
        Ok(Self { db, connector: Connector { requests, _sweeper: Some(sweeper) }, ended })
    }

    /// An engine without a file, whose TTL goes by `clock` and deletes only when [`Embedded::sweep`] is called.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let io = |problem: String| OpenError::Io { path: PathBuf::from(":memory:"), problem };
        let db = Database::memory_with_clock(Arc::new(EngineClock(clock))).map_err(|error| io(error.to_string()))?;
        let requests = serve(db.clone(), None).map_err(io)?;
        let ended = Arc::new(Mutex::new(mpsc::channel().1));
        Ok(Self { db, connector: Connector { requests, _sweeper: None }, ended })
    }

    /// The SDK's way in. The engine runs as long as somebody holds one.
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.connector.clone())
    }

    /// Lets go of the file, with everything written into it, once all clients are gone. Whether that was in time. Blocks.
    pub fn close(self, within: Duration) -> bool {
        let Self { db, connector, ended } = self;
        drop((db, connector));
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    /// Deletes what TTL lets go, and says how much. Blocks: never to be called on a runtime worker.
    pub fn sweep(&self) -> Result<usize, String> {
        self.db.sweep_ttl().map_err(|error| error.to_string())
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

struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Starts the thread that answers requests one by one until the last sender is gone; it holds on to `until_then`.
fn serve(db: Database, until_then: Option<(File, mpsc::Sender<()>)>) -> Result<requests::Sender<Request>, String> {
    let (sender, mut receiver) = requests::channel::<Request>(QUEUE);
    let thread = thread::Builder::new().name("embedded-dynamodb".to_owned()).spawn(move || {
        while let Some(request) = receiver.blocking_recv() {
            // Who gave up waiting gets nothing done in their name any more.
            if request.answer.is_closed() {
                continue;
            }
            let answer = catch_unwind(AssertUnwindSafe(|| answer(&db, &request.operation, &request.body)));
            let answer = answer.unwrap_or_else(|_| failed(&DynoxideError::InternalServerError("panic".to_owned())));
            _ = request.answer.send(answer);
        }
        // The database first: its last holder writes the log back into the file.
        drop(db);
        drop(until_then);
    });
    thread.map(|_| sender).map_err(|error| error.to_string())
}

fn answer(db: &Database, operation: &str, body: &[u8]) -> Answer {
    match operation {
        "CreateTable" => run(body, |request| db.create_table(request)),
        "DescribeTable" => run(body, |request| db.describe_table(request)),
        "UpdateTimeToLive" => run(body, |request| db.update_time_to_live(request)),
        "DescribeTimeToLive" => run(body, |request| db.describe_time_to_live(request)),
        "GetItem" => run(body, |request| db.get_item(request)),
        "PutItem" => run(body, |request| db.put_item(request)),
        "UpdateItem" => run(body, |request| db.update_item(request)),
        "Query" => run(body, |request| db.query(request)),
        "Scan" => run(body, |request| db.scan(request)),
        "TransactWriteItems" => run(body, |mut request: actions::transact_write_items::TransactWriteItemsRequest| {
            // The engine walks all tokens of ten minutes at every transaction. They guard against answers lost on a
            // network, and there is none here.
            request.client_request_token = None;
            db.transact_write_items(request)
        }),
        other => failed(&DynoxideError::ValidationException(format!("{other} is not offered here"))),
    }
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Q) -> Result<A, DynoxideError>,
) -> Answer {
    let request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return failed(&DynoxideError::ValidationException(error.to_string())),
    };
    match operation(request) {
        Ok(answer) => match serde_json::to_vec(&answer) {
            Ok(body) => Answer { status: 200, body },
            Err(error) => failed(&DynoxideError::InternalServerError(error.to_string())),
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &DynoxideError) -> Answer {
    Answer { status: error.status_code(), body: error.to_json().into_bytes() }
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

struct EngineClock(Arc<dyn Clock>);

impl dynoxide::storage_backend::Clock for EngineClock {
    fn now_unix_secs(&self) -> u64 {
        u64::try_from(self.0.now().epoch_ms() / 1000).unwrap_or(0)
    }

    fn now_unix_secs_f64(&self) -> f64 {
        self.0.now().epoch_ms() as f64 / 1000.0
    }
}
