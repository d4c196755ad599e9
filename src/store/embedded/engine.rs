//! The embedded engine: `dynoxide` (DynamoDB on SQLite) behind DynamoDB's JSON protocol. Each request runs on the
//! calling thread and blocks it.

use std::path::Path;
use std::sync::Arc;

use dynoxide::{Database, DynoxideError, actions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sync_mode::SyncMode;
use crate::clock::Clock;

/// A handle to one database; clones share the database. Requests run one at a time, and each request is atomic.
#[derive(Clone)]
pub struct Engine(Database);

/// The status and JSON body of a DynamoDB response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Engine {
    pub(crate) fn open(path: &Path, sync: SyncMode) -> Result<Self, String> {
        let path = path.to_str().ok_or("the path is not UTF-8")?;
        let db = Database::new(path).map_err(|error| error.to_string())?;
        if sync == SyncMode::Normal {
            // `disable_bulk_loading` sets SQLite's `synchronous = NORMAL`. dynoxide's default is FULL.
            db.disable_bulk_loading().map_err(|error| error.to_string())?;
        }
        Ok(Self(db))
    }

    /// A database without a file. `clock` determines which items have expired.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, String> {
        let db = Database::memory_with_clock(Arc::new(EngineClock(clock)));
        db.map(Self).map_err(|error| error.to_string())
    }

    /// Deletes items whose TTL has passed, and returns their number.
    pub fn sweep(&self) -> Result<usize, String> {
        self.0.sweep_ttl().map_err(|error| error.to_string())
    }

    /// Executes a request. `operation` is the DynamoDB operation name, and `body` is the request in JSON.
    pub fn execute(&self, operation: &str, body: &[u8]) -> Response {
        let db = &self.0;
        match operation {
            "CreateTable" => run(body, |request| db.create_table(request)),
            "DescribeTable" => run(body, |request| db.describe_table(request)),
            "UpdateTimeToLive" => run(body, |request| db.update_time_to_live(request)),
            "DescribeTimeToLive" => run(body, |request| db.describe_time_to_live(request)),
            "GetItem" => run(body, |request| db.get_item(request)),
            "PutItem" => run(body, |request| db.put_item(request)),
            "DeleteItem" => run(body, |request| db.delete_item(request)),
            "UpdateItem" => run(body, |request| db.update_item(request)),
            "Query" => run(body, |request| db.query(request)),
            "Scan" => run(body, |request| db.scan(request)),
            "TransactWriteItems" => {
                run(body, |mut request: actions::transact_write_items::TransactWriteItemsRequest| {
                    // Remove the idempotency token, because the engine scans all tokens of the last ten minutes in
                    // every transaction. The token protects a retry after a response was lost on the network, and there is no
                    // network here.
                    request.client_request_token = None;
                    db.transact_write_items(request)
                })
            }
            other => failed(&DynoxideError::ValidationException(format!("operation {other} is not supported"))),
        }
    }
}

impl Response {
    pub(crate) fn internal_error(problem: &str) -> Self {
        failed(&DynoxideError::InternalServerError(problem.to_owned()))
    }
}

fn run<Q: DeserializeOwned, R: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Q) -> Result<R, DynoxideError>,
) -> Response {
    let request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return failed(&DynoxideError::ValidationException(error.to_string())),
    };
    match operation(request) {
        Ok(output) => match serde_json::to_vec(&output) {
            Ok(body) => Response { status: 200, body },
            Err(error) => failed(&DynoxideError::InternalServerError(error.to_string())),
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &DynoxideError) -> Response {
    Response { status: error.status_code(), body: error.to_json().into_bytes() }
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
