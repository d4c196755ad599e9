//! The observer: reads the table itself, consistently and without the service's own code, and holds every read
//! against what must be true of it at any instant. The stand-in does one thing at a time, so a page is never torn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{LIMIT, name, now_ms};
use crate::board::Board;

/// The stand-in sweeps every 60 s of its life.
const BEFORE_ANY_SWEEP: Duration = Duration::from_secs(50);

#[derive(Clone)]
pub struct Table(Client);

/// A user's partition at one instant.
#[derive(Debug, Default)]
pub struct Partition {
    pub members: BTreeSet<String>,
    /// Leases that have not been ended by anybody, by id: until when.
    pub leases: BTreeMap<String, i64>,
    /// Evicted and replaced ones, by id: until when they would have lived.
    pub ended: BTreeMap<String, i64>,
    pub complete: bool,
}

impl Table {
    pub fn new(port: u16) -> Self {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "race"))
            .retry_config(RetryConfig::disabled());
        Self(Client::from_conf(config.build()))
    }

    pub async fn read(&self, user: usize) -> Result<Partition, String> {
        let query = self
            .0
            .query()
            .table_name("user-streams")
            .consistent_read(true)
            .key_condition_expression("userName = :user")
            .expression_attribute_values(":user", AttributeValue::S(name(user)))
            .send();
        let page = tokio::time::timeout(Duration::from_secs(2), query).await.map_err(|_| "no answer".to_owned())?;
        let page = page.map_err(|error| format!("{error:?}"))?;
        let mut partition = Partition { complete: page.last_evaluated_key.is_none(), ..Partition::default() };
        for item in page.items.unwrap_or_default() {
            let record = item["record"].as_s().expect("a string");
            if record == "counter" {
                let members = item.get("streams").map(|streams| streams.as_ss().expect("a string set").clone());
                partition.members.extend(members.unwrap_or_default());
            } else if let Some(id) = record.strip_prefix("stream#") {
                let expires = item.get("expiresAt").and_then(|expires| expires.as_n().ok()?.parse().ok());
                let expires = expires.ok_or_else(|| format!("a lease without an expiry: {item:?}"))?;
                let ended = item.contains_key("endReason");
                let leases = if ended { &mut partition.ended } else { &mut partition.leases };
                leases.insert(id.to_owned(), expires);
            }
        }
        Ok(partition)
    }

    /// Reads a user's partition over and over.
    pub async fn watch(self, user: usize, board: Arc<Board>, stop: CancellationToken) {
        let begun = Instant::now();
        let mut before = BTreeMap::new();
        while !stop.is_cancelled() {
            let begin = Instant::now();
            match self.read(user).await {
                Ok(partition) => {
                    check(user, &partition, &board, begun.elapsed() > BEFORE_ANY_SWEEP);
                    let renewed =
                        partition.ended.iter().find(|(id, until)| before.get(*id).is_some_and(|had| had != *until));
                    board.expect(renewed.is_none(), || format!("user {user}: renewed after its end: {renewed:?}"));
                    before = partition.ended;
                }
                Err(error) => {
                    board.lock().observed.failed += 1;
                    board.expect(!board.calm_since(begin), || format!("the observer cannot read: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Partition {
    pub fn live_at(&self, now_ms: i64) -> usize {
        self.leases.values().filter(|expires| **expires > now_ms).count()
    }

    /// Members whose lease item is gone: TTL deleted it.
    pub fn without_lease(&self) -> usize {
        self.members.iter().filter(|id| !self.leases.contains_key(*id)).count()
    }
}

fn check(user: usize, partition: &Partition, board: &Board, swept: bool) {
    let live = partition.live_at(now_ms());
    let mut notes = board.lock();
    let members = partition.members.len();
    notes.observed.count += 1;
    notes.observed.torn += u64::from(!partition.complete);
    notes.observed.full += u64::from(members == LIMIT && live == LIMIT);
    notes.observed.max_members = notes.observed.max_members.max(members);
    notes.observed.max_live = notes.observed.max_live.max(live);
    notes.observed.max_items = notes.observed.max_items.max(partition.leases.len() + partition.ended.len());
    let mut must = |promise: bool, text: &str| {
        if !promise {
            notes.violation(format!("user {user}: {text}: {partition:?}"));
        }
    };
    must(members <= LIMIT, "too many members");
    must(live <= LIMIT, "too many live leases");
    if partition.complete {
        // More than needed: an expired lease that nobody has reaped is still on the counter too.
        must(partition.leases.keys().all(|id| partition.members.contains(id)), "a lease that is not counted");
        must(partition.ended.keys().all(|id| !partition.members.contains(id)), "an ended lease that is counted");
        must(swept || partition.without_lease() == 0, "a counted id without a lease, and no TTL sweep yet");
    }
}
