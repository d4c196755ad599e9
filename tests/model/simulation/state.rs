//! The stored state of one user, and the writes that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use stream_manager::domain::lease::{Lease, StreamLimit, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::store::dynamodb::codec::Partition;

/// The complete stored state of one user between two writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserState {
    pub stored_limit: Option<StreamLimit>,
    pub members: BTreeSet<StreamId>,
    pub leases: BTreeMap<StreamId, Lease>,
}

/// One applied write, with the values from its request.
#[derive(Clone, Debug)]
pub enum StoreWrite {
    Start {
        stream_id: StreamId,
        now: Timestamp,
    },
    Heartbeat {
        stream_id: StreamId,
        now: Timestamp,
    },
    Stop {
        stream_id: StreamId,
    },
    Evict {
        stream_id: StreamId,
    },
    /// Deletes surplus ended leases after an eviction on DynamoDB. The memory store deletes them as part of the
    /// eviction.
    Prune,
    SetLimit {
        limit: Option<StreamLimit>,
    },
    /// The deletion of expired items by DynamoDB's TTL or by the memory store's sweep.
    Sweep {
        now: Timestamp,
    },
}

impl StoreWrite {
    /// The timestamp in the request.
    pub fn now(&self) -> Option<Timestamp> {
        match self {
            Self::Start { now, .. } | Self::Heartbeat { now, .. } => Some(*now),
            Self::Stop { .. } | Self::Evict { .. } | Self::Prune | Self::SetLimit { .. } | Self::Sweep { .. } => None,
        }
    }
}

impl UserState {
    pub fn of(partition: Partition) -> Self {
        let leases = partition.leases.into_iter().map(|lease| (lease.stream_id, lease)).collect();
        Self { stored_limit: partition.counter.stream_limit, members: partition.counter.streams, leases }
    }

    pub fn limit(&self, default: StreamLimit) -> StreamLimit {
        self.stored_limit.unwrap_or(default)
    }

    /// Number of leases that were not ended. An instance with a slow clock may consider each of them live.
    pub fn renewable(&self) -> usize {
        self.leases.values().filter(|lease| lease.termination.is_none()).count()
    }

    /// The streams that a start replaced or evicted.
    pub fn ended_by(&self, start: StreamId) -> BTreeSet<StreamId> {
        let by = |lease: &&Lease| {
            let ended_by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
            ended_by.is_some_and(|by| by.stream_id == start)
        };
        self.leases.values().filter(by).map(|lease| lease.stream_id).collect()
    }

    pub fn lease(&self, stream_id: StreamId) -> Option<&Lease> {
        self.leases.get(&stream_id)
    }
}

impl fmt::Display for UserState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stored_limit {
            Some(limit) => write!(f, "limit {limit}")?,
            None => f.write_str("default limit")?,
        }
        for lease in self.leases.values() {
            let id = lease.stream_id;
            write!(f, ", {}", ShortId(id))?;
            match (&lease.termination, self.members.contains(&id)) {
                (None, true) => write!(f, " until {}", ShortTime(lease.expires_at))?,
                (None, false) => write!(f, " NOT COUNTED until {}", ShortTime(lease.expires_at))?,
                (Some(termination), member) => {
                    write!(f, " {:?}", termination.reason)?;
                    if let Some(by) = &termination.ended_by {
                        write!(f, " by {}", ShortId(by.stream_id))?;
                    }
                    f.write_str(if member { " STILL COUNTED" } else { "" })?;
                }
            }
        }
        for id in self.members.iter().filter(|id| !self.leases.contains_key(id)) {
            write!(f, ", {} without lease", ShortId(*id))?;
        }
        Ok(())
    }
}

impl fmt::Display for StoreWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { stream_id, now } => write!(f, "start {} at {}", ShortId(*stream_id), ShortTime(*now)),
            Self::Heartbeat { stream_id, now } => {
                write!(f, "heartbeat {} at {}", ShortId(*stream_id), ShortTime(*now))
            }
            Self::Stop { stream_id } => write!(f, "stop {}", ShortId(*stream_id)),
            Self::Evict { stream_id } => write!(f, "evict {}", ShortId(*stream_id)),
            Self::Prune => f.write_str("prune after an eviction"),
            Self::SetLimit { limit: Some(limit) } => write!(f, "set limit {limit}"),
            Self::SetLimit { limit: None } => f.write_str("delete limit"),
            Self::Sweep { now } => write!(f, "sweep at {}", ShortTime(*now)),
        }
    }
}

/// The first six characters of a stream id.
pub struct ShortId(pub StreamId);

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string()[..6])
    }
}

pub fn short_ids<'a>(ids: impl IntoIterator<Item = &'a StreamId>) -> String {
    ids.into_iter().fold(String::new(), |mut text, id| {
        _ = write!(text, " {}", ShortId(*id));
        text
    })
}

/// A time in seconds, without its leading digits, which do not change during a run.
pub struct ShortTime(pub Timestamp);

impl fmt::Display for ShortTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.epoch_ms().rem_euclid(1_000_000);
        write!(f, "{}.{:03}", ms / 1000, ms % 1000)
    }
}
