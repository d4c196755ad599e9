//! The table behind the network: the engine, watched write by write, and reads that may be torn.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use stream_manager::clock::Clock;
use stream_manager::domain::names::UserName;
use stream_manager::store::embedded::engine::{Answer, Engine};

use super::clock::SkewedClock;
use super::mutations::Mutations;
use super::requests::{self, Items};
use super::state::Act;
use super::world::World;

const CREATE_TABLE: &str = include_str!("../../../migrations/0001_user-streams.CreateTable.json");
const UPDATE_TIME_TO_LIVE: &str = include_str!("../../../migrations/0002_user-streams.UpdateTimeToLive.json");

pub struct Table {
    pub world: Arc<World>,
    pub mutations: Mutations,
    engine: Engine,
    clock: SkewedClock,
    items: Mutex<BTreeMap<UserName, Arc<Items>>>,
    /// Tokens of transactions that were applied: DynamoDB answers them again for ten minutes. None: the ten minutes
    /// have always passed.
    tokens: Option<Mutex<HashSet<String>>>,
}

/// A request as the engine takes it.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: String,
    pub body: Value,
    pub call: Option<usize>,
}

impl Table {
    pub fn new(world: Arc<World>, mutations: Mutations, clock: SkewedClock) -> Arc<Self> {
        let engine = Engine::in_memory(Arc::new(clock)).expect("an engine");
        for (operation, body) in [("CreateTable", CREATE_TABLE), ("UpdateTimeToLive", UPDATE_TIME_TO_LIVE)] {
            assert_eq!(engine.answer(operation, body.as_bytes()).status, 200, "{operation}");
        }
        let tokens = world.coin().then(Mutex::default);
        Arc::new(Self { world, mutations, engine, clock, items: Mutex::default(), tokens })
    }

    /// All that is stored of a user, to be compared with what is stored later.
    pub fn shown(&self, user: &UserName) -> Arc<Items> {
        lock(&self.items).get(user).cloned().unwrap_or_default()
    }

    /// Answers a request, and tells whether it changed what is stored.
    pub fn applied(&self, request: &Request) -> (Answer, bool) {
        let user = requests::user(&request.operation, &request.body);
        let stored = || user.as_ref().map(|user| self.shown(user));
        let before = stored();
        let answer = self.deliver(request);
        (answer, stored() != before)
    }

    /// Answers a request, as one step unless a wrong version makes two of it.
    fn deliver(&self, request: &Request) -> Answer {
        let token = request.body["ClientRequestToken"].as_str();
        if let (Some(tokens), Some(token)) = (&self.tokens, token)
            && lock(tokens).contains(token)
        {
            self.world.count("tokens known");
            return Answer { status: 200, body: b"{}".to_vec() };
        }
        let (operation, user) = (&request.operation, requests::user(&request.operation, &request.body));
        let Some(act) = requests::act(operation, &request.body) else {
            return self.engine.answer(operation, request.body.to_string().as_bytes());
        };
        let mut answer = Answer { status: 200, body: b"{}".to_vec() };
        for body in self.mutations.rewritten(operation, &act, &request.body, request.call) {
            answer = self.engine.answer(operation, body.to_string().as_bytes());
            if answer.status != 200 {
                return answer;
            }
            if let Some(user) = &user {
                self.look(user, &act, request.call);
            }
        }
        if let (Some(tokens), Some(token)) = (&self.tokens, token) {
            lock(tokens).insert(token.to_owned());
        }
        answer
    }

    /// The answer to a query during whose execution the items went from `before` to what they are now. Such a read is
    /// consistent for each item and for nothing else: of an item that changed it may show either version.
    pub fn query(&self, request: &Request, before: &Arc<Items>) -> Answer {
        let after =
            requests::user(&request.operation, &request.body).map(|user| self.shown(&user)).unwrap_or_default();
        let items = if Arc::ptr_eq(before, &after) { None } else { self.torn(before, &after) };
        let mut answer = match items {
            None => self.engine.answer(&request.operation, request.body.to_string().as_bytes()),
            Some(items) => {
                let items: Vec<&Value> = items.values().collect();
                let body = json!({ "Items": items, "Count": items.len(), "ScannedCount": items.len() });
                Answer { status: 200, body: body.to_string().into_bytes() }
            }
        };
        self.mutations.saw(request.call, &mut answer.body);
        answer
    }

    fn torn(&self, before: &Items, after: &Items) -> Option<Items> {
        let mut read = Items::new();
        let mut records: Vec<&String> = before.keys().chain(after.keys()).collect();
        records.sort();
        records.dedup();
        for record in records {
            let (old, new) = (before.get(record), after.get(record));
            let shown = if old == new || self.world.coin() { new } else { old };
            if let Some(item) = shown {
                read.insert(record.clone(), item.clone());
            }
        }
        if read != *before && read != *after {
            self.world.count("torn reads");
            self.world.note("      torn read");
        }
        (read != *after).then_some(read)
    }

    /// DynamoDB's TTL, on a clock of its own.
    pub fn sweep(&self) {
        let now = self.clock.now();
        if self.engine.sweep().expect("a sweep") > 0 {
            let users: Vec<UserName> = lock(&self.items).keys().cloned().collect();
            users.iter().for_each(|user| self.look(user, &Act::Sweep { now }, None));
        }
    }

    fn look(&self, user: &UserName, act: &Act, call: Option<usize>) {
        let items = Arc::new(requests::stored(&self.engine, user));
        self.world.step(user, act, call, requests::state(&items));
        lock(&self.items).insert(user.clone(), items);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
