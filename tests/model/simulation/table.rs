//! The simulated table. It uses the embedded engine, mixes old and new items in queries, and records every write.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use stream_manager::clock::Clock;
use stream_manager::domain::names::UserName;
use stream_manager::store::TOMBSTONE_S;
use stream_manager::store::embedded::engine::{Engine, Response as EngineResponse};

use super::clock::SkewedClock;
use super::context::RunContext;
use super::dynamodb_json::{self, Items};
use super::faulty_requests::FaultyRequests;
use super::state::StoreWrite;

const CREATE_TABLE: &str = include_str!("../../../migrations/0001_user-streams.CreateTable.json");
const UPDATE_TIME_TO_LIVE: &str = include_str!("../../../migrations/0002_user-streams.UpdateTimeToLive.json");

/// How long a tombstone is kept, in seconds. It must outlast every write that is based on a read before the erasure. In the
/// simulation, such a write arrives at most 15 s after its read.
pub const SIMULATED_TOMBSTONE_S: u32 = 25;

pub struct Table {
    pub context: Arc<RunContext>,
    faulty_requests: FaultyRequests,
    engine: Engine,
    clock: SkewedClock,
    items: Mutex<BTreeMap<UserName, Arc<Items>>>,
    /// The client request tokens of applied transactions. For ten minutes, DynamoDB returns success for a repeated
    /// token without applying the request again. `None` simulates a table on which every token has expired.
    request_tokens: Option<Mutex<HashSet<String>>>,
}

#[derive(Clone, Debug)]
pub struct TableRequest {
    pub operation: String,
    pub body: Value,
    /// The index of the API call that sent the request.
    pub call: Option<usize>,
}

impl Table {
    pub fn new(context: Arc<RunContext>, faulty_requests: FaultyRequests, clock: SkewedClock) -> Arc<Self> {
        let engine = Engine::in_memory(Arc::new(clock)).unwrap();
        for (operation, body) in [("CreateTable", CREATE_TABLE), ("UpdateTimeToLive", UPDATE_TIME_TO_LIVE)] {
            assert_eq!(engine.execute(operation, body.as_bytes()).status, 200, "{operation}");
        }
        let request_tokens = context.coin().then(Mutex::default);
        Arc::new(Self { context, faulty_requests, engine, clock, items: Mutex::default(), request_tokens })
    }

    pub fn items_of(&self, user: &UserName) -> Arc<Items> {
        lock(&self.items).get(user).cloned().unwrap_or_default()
    }

    /// Executes a request. Returns the response, and whether the user's items changed.
    pub fn apply(&self, request: &TableRequest) -> (EngineResponse, bool) {
        let user = dynamodb_json::user(&request.operation, &request.body);
        let items = || user.as_ref().map(|user| self.items_of(user));
        let before = items();
        let response = self.run(request);
        (response, items() != before)
    }

    fn run(&self, request: &TableRequest) -> EngineResponse {
        let token = request.body["ClientRequestToken"].as_str();
        if let (Some(tokens), Some(token)) = (&self.request_tokens, token)
            && lock(tokens).contains(token)
        {
            self.context.count("request token repeated");
            return EngineResponse { status: 200, body: b"{}".to_vec() };
        }
        let (operation, user) = (&request.operation, dynamodb_json::user(&request.operation, &request.body));
        let Some(write) = dynamodb_json::write_of(operation, &request.body) else {
            return self.engine.execute(operation, request.body.to_string().as_bytes());
        };
        // TTL can delete items between the read and the write of a request.
        if matches!(write, StoreWrite::End { .. }) && self.context.coin() {
            self.sweep();
        }
        let mut body = request.body.clone();
        if let StoreWrite::Bury = write {
            shorten_ttl(&mut body);
        }
        let mut response = EngineResponse { status: 200, body: b"{}".to_vec() };
        // Without a mutant, there is exactly one body, which is unchanged.
        for body in self.faulty_requests.rewrite(&write, &body, request.call) {
            let deletes = operation == "UpdateItem" && body.get("UpdateExpression").is_none();
            let operation = if deletes { "DeleteItem" } else { operation };
            response = self.engine.execute(operation, body.to_string().as_bytes());
            if response.status != 200 {
                return response;
            }
            if let Some(user) = &user {
                self.record(user, &write, request.call);
            }
        }
        if let (Some(tokens), Some(token)) = (&self.request_tokens, token) {
            lock(tokens).insert(token.to_owned());
        }
        response
    }

    /// Returns the response to a query. `before` contains the user's items at the beginning of the query. DynamoDB
    /// reads each item consistently, but not all items at the same moment. If an item has changed since the beginning,
    /// the response can contain either version.
    pub fn query(&self, request: &TableRequest, before: &Arc<Items>) -> EngineResponse {
        let user = dynamodb_json::user(&request.operation, &request.body);
        let after = user.map(|user| self.items_of(&user)).unwrap_or_default();
        let items = if Arc::ptr_eq(before, &after) { None } else { self.torn_read(before, &after) };
        let mut response = match items {
            None => self.engine.execute(&request.operation, request.body.to_string().as_bytes()),
            Some(items) => {
                let items: Vec<&Value> = items.values().collect();
                let body = json!({ "Items": items, "Count": items.len(), "ScannedCount": items.len() });
                EngineResponse { status: 200, body: body.to_string().into_bytes() }
            }
        };
        self.faulty_requests.observe_query(request.call, &mut response.body);
        response
    }

    /// Returns a random mix of the items in `before` and `after`, or `None` if the mix equals `after`.
    fn torn_read(&self, before: &Items, after: &Items) -> Option<Items> {
        let mut read = Items::new();
        let mut records: Vec<&String> = before.keys().chain(after.keys()).collect();
        records.sort();
        records.dedup();
        for record in records {
            let (old, new) = (before.get(record), after.get(record));
            let item = if old == new || self.context.coin() { new } else { old };
            if let Some(item) = item {
                read.insert(record.clone(), item.clone());
            }
        }
        if read != *before && read != *after {
            self.context.count("torn reads");
            self.context.log("      torn read");
        }
        (read != *after).then_some(read)
    }

    /// Deletes expired items as DynamoDB's TTL does, based on the table's own clock.
    pub fn sweep(&self) {
        let now = self.clock.now();
        if self.engine.sweep().unwrap() > 0 {
            let users: Vec<UserName> = lock(&self.items).keys().cloned().collect();
            users.iter().for_each(|user| self.record(user, &StoreWrite::Sweep { now }, None));
        }
    }

    fn record(&self, user: &UserName, write: &StoreWrite, call: Option<usize>) {
        let items = Arc::new(dynamodb_json::stored_items(&self.engine, user));
        self.context.record_write(user, write, call, dynamodb_json::decode(&items));
        lock(&self.items).insert(user.clone(), items);
    }
}

/// Shortens the TTL of a tombstone, so that TTL deletes tombstones during the run.
fn shorten_ttl(body: &mut Value) {
    let Some(ttl) = body.pointer_mut("/ExpressionAttributeValues/:ttl/N") else { return };
    if let Some(ttl_s) = ttl.as_str().and_then(|ttl| ttl.parse::<i64>().ok()) {
        *ttl = json!((ttl_s - i64::from(TOMBSTONE_S - SIMULATED_TOMBSTONE_S)).to_string());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
