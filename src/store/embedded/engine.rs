//! The engine: `dynoxide` (SQLite) behind DynamoDB's wire format. Answers where it is called, and blocks while it does.

use std::path::Path;
use std::sync::Arc;

use dynoxide::{Database, DynoxideError, actions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;

/// Clones share one database. Requests are answered one after the other, each as one step.
#[derive(Clone)]
pub struct Engine(Database);

/// A status and a JSON body, as DynamoDB would give them.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Engine {
    /// `fast`: the last writes before a power cut may be lost; the file stays sound either way.
    pub fn open(path: &Path, fast: bool) -> Result<Self, String> {
        let path = path.to_str().ok_or("the path is not UTF-8")?;
        let db = Database::new(path).map_err(|error| error.to_string())?;
        if fast {
            // dynoxide's name for "synchronous = NORMAL"; its default is FULL.
            db.disable_bulk_loading().map_err(|error| error.to_string())?;
        }
        Ok(Self(db))
    }

    /// Without a file; its TTL goes by `clock`.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, String> {
        let db = Database::memory_with_clock(Arc::new(EngineClock(clock)));
        db.map(Self).map_err(|error| error.to_string())
    }

    /// Deletes what TTL lets go, and says how much.
    pub fn sweep(&self) -> Result<usize, String> {
        self.0.sweep_ttl().map_err(|error| error.to_string())
    }

    /// `operation` is DynamoDB's name for it, `body` its request in JSON.
    pub fn answer(&self, operation: &str, body: &[u8]) -> Answer {
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
                    // The engine walks all tokens of ten minutes at every transaction. They guard against answers lost
                    // on a network, and there is none here.
                    request.client_request_token = None;
                    db.transact_write_items(request)
                })
            }
            other => failed(&DynoxideError::ValidationException(format!("{other} is not offered here"))),
        }
    }
}

impl Answer {
    pub fn internal_error(problem: &str) -> Self {
        failed(&DynoxideError::InternalServerError(problem.to_owned()))
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

struct EngineClock(Arc<dyn Clock>);

impl dynoxide::storage_backend::Clock for EngineClock {
    fn now_unix_secs(&self) -> u64 {
        u64::try_from(self.0.now().epoch_ms() / 1000).unwrap_or(0)
    }

    fn now_unix_secs_f64(&self) -> f64 {
        self.0.now().epoch_ms() as f64 / 1000.0
    }
}
