//! The observer. It reads the table with consistent reads and without the service's code, and checks the table's
//! invariants on each read. The emulator executes one operation at a time, so each page is a snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{LIMIT, UHD_LIMIT, now_ms, user_name};
use crate::recorder::Recorder;

/// No TTL sweep occurs before this time, because the emulator's first sweep is 60 s after its start.
const NO_SWEEP_BEFORE: Duration = Duration::from_secs(50);

#[derive(Clone)]
pub struct Table(Client);

/// A snapshot of a user's partition.
#[derive(Debug, Default)]
pub struct Partition {
    pub members: BTreeSet<String>,
    /// Expiry of the leases without an end reason, by stream id.
    pub leases: BTreeMap<String, i64>,
    /// Expiry of the evicted and replaced leases, by stream id.
    pub ended: BTreeMap<String, i64>,
    /// The leases without an end reason that the rule counts.
    pub uhd: BTreeSet<String>,
    pub complete: bool,
}

impl Table {
    pub fn new(port: u16) -> Self {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "chaos"))
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
            .expression_attribute_values(":user", AttributeValue::S(user_name(user)))
            .send();
        let page = tokio::time::timeout(Duration::from_secs(2), query).await.map_err(|_| "timeout".to_owned())?;
        let page = page.map_err(|error| format!("{error:?}"))?;
        let mut partition = Partition { complete: page.last_evaluated_key.is_none(), ..Partition::default() };
        for item in page.items.unwrap_or_default() {
            let record = item["record"].as_s().unwrap();
            if record == "counter" {
                let members = item.get("streams").map(|streams| streams.as_ss().unwrap().clone());
                partition.members.extend(members.unwrap_or_default());
            } else if let Some(id) = record.strip_prefix("stream#") {
                let expires = item.get("expiresAt").and_then(|expires| expires.as_n().ok()?.parse().ok());
                let expires = expires.ok_or_else(|| format!("lease without an expiry: {item:?}"))?;
                let ended = item.contains_key("endReason");
                if !ended && is_uhd(&item) {
                    partition.uhd.insert(id.to_owned());
                }
                let leases = if ended { &mut partition.ended } else { &mut partition.leases };
                leases.insert(id.to_owned(), expires);
            }
        }
        Ok(partition)
    }

    /// Reads and checks a user's partition in a loop.
    pub async fn observe(self, user: usize, recorder: Arc<Recorder>, stop: CancellationToken) {
        let start = Instant::now();
        let mut previous = BTreeMap::new();
        while !stop.is_cancelled() {
            let begin = Instant::now();
            match self.read(user).await {
                Ok(partition) => {
                    check(user, &partition, &recorder, start.elapsed() > NO_SWEEP_BEFORE);
                    let mut ended = partition.ended.iter();
                    let changed =
                        ended.find(|(id, expires)| previous.get(*id).is_some_and(|before| before != *expires));
                    recorder.check(changed.is_none(), || format!("user {user}: ended lease renewed: {changed:?}"));
                    previous = partition.ended;
                }
                Err(error) => {
                    recorder.lock().observations.failed += 1;
                    recorder.check(!recorder.healthy_since(begin), || {
                        format!("the observer cannot read the table: {error}")
                    });
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

    /// Counts the members whose lease item is missing, because TTL has deleted it.
    pub fn without_lease(&self) -> usize {
        self.members.iter().filter(|id| !self.leases.contains_key(*id)).count()
    }
}

/// Whether the rule counts the stream.
fn is_uhd(item: &HashMap<String, AttributeValue>) -> bool {
    let quality = item.get("labels").and_then(|labels| labels.as_m().ok()?.get("quality")?.as_s().ok());
    quality.is_some_and(|quality| quality == "uhd")
}

fn check(user: usize, partition: &Partition, recorder: &Recorder, swept: bool) {
    let live = partition.live_at(now_ms());
    let mut records = recorder.lock();
    let members = partition.members.len();
    let seen = &mut records.observations;
    seen.reads += 1;
    seen.incomplete += u64::from(!partition.complete);
    seen.at_limit += u64::from(members == LIMIT && live == LIMIT);
    seen.max_members = seen.max_members.max(members);
    seen.max_live = seen.max_live.max(live);
    seen.max_items = seen.max_items.max(partition.leases.len() + partition.ended.len());
    let mut check = |condition: bool, text: &str| {
        if !condition {
            records.violation(format!("user {user}: {text}: {partition:?}"));
        }
    };
    check(members <= LIMIT, "too many members");
    check(live <= LIMIT, "too many live leases");
    check(partition.uhd.len() <= UHD_LIMIT, "too many leases for the rule");
    if partition.complete {
        // An expired lease also stays on the counter until a start deletes it.
        check(partition.leases.keys().all(|id| partition.members.contains(id)), "lease is not on the counter");
        check(partition.ended.keys().all(|id| !partition.members.contains(id)), "ended lease is on the counter");
        check(swept || partition.without_lease() == 0, "id on the counter without a lease, before any TTL sweep");
    }
}
