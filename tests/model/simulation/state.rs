//! The stored state of one user, and the writes that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use stream_manager::domain::lease::{Lease, StreamLimit, Timestamp};
use stream_manager::domain::names::{ContentId, StreamId};
use stream_manager::store::dynamodb::codec::{Counter, Partition};

/// The complete stored state of one user between two writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserState {
    /// The counter item, if one is stored. Always `None` for the memory store.
    pub counter: Option<CounterState>,
    pub stored_limit: Option<StreamLimit>,
    pub members: BTreeSet<StreamId>,
    pub leases: BTreeMap<StreamId, Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterState {
    pub revision: Option<u64>,
    /// Only a tombstone has a TTL.
    pub ttl_s: Option<i64>,
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
        content: Option<ContentId>,
    },
    Stop {
        stream_id: StreamId,
    },
    /// Ends streams without starting one. `now` is `None` if the request does not contain it.
    End {
        now: Option<Timestamp>,
        new_limit: Option<StreamLimit>,
    },
    /// The second step of an erasure on the memory store: deletes the ended leases and the limit.
    Purge,
    /// The second step of an erasure on DynamoDB: deletes the ended leases.
    DeleteEnded,
    /// The last step of an erasure on DynamoDB: removes the limit. If there are no members, creates the tombstone.
    Bury,
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
            Self::End { now, .. } => *now,
            Self::Stop { .. }
            | Self::Purge
            | Self::DeleteEnded
            | Self::Bury
            | Self::SetLimit { .. }
            | Self::Sweep { .. } => None,
        }
    }
}

impl UserState {
    pub fn of(partition: Partition, counter: Option<CounterState>) -> Self {
        let leases = partition.leases.into_iter().map(|lease| (lease.stream_id, lease)).collect();
        let Counter { streams, stream_limit, .. } = partition.counter;
        Self { counter, stored_limit: stream_limit, members: streams, leases }
    }

    /// The effective limit. A stored limit of 0 overrides the limit in a token.
    pub fn limit(&self, token: Option<StreamLimit>, default: StreamLimit) -> StreamLimit {
        match self.stored_limit {
            Some(stored) if stored.get() == 0 => stored,
            stored => token.or(stored).unwrap_or(default),
        }
    }

    pub fn is_blocked(&self) -> bool {
        self.stored_limit.is_some_and(StreamLimit::is_blocked)
    }

    /// The leases that were not ended and hold a slot.
    pub fn held(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|lease| lease.termination.is_none() && self.members.contains(&lease.stream_id))
    }

    /// Number of leases that were not ended. An instance with a slow clock may consider each of them live.
    pub fn renewable(&self) -> usize {
        self.leases.values().filter(|lease| lease.termination.is_none()).count()
    }

    /// The streams that a start replaced or evicted.
    pub fn ended_by(&self, start: StreamId) -> BTreeSet<StreamId> {
        let by = |lease: &&Lease| {
            let ended_by = lease.termination.as_ref().and_then(|termination| termination.ended_by.as_ref());
            ended_by.is_some_and(|by| by.stream_id == Some(start))
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
        if let Some(CounterState { ttl_s: Some(ttl_s), .. }) = self.counter {
            write!(f, ", TTL at {}", ShortTime(Timestamp::from_epoch_ms(ttl_s * 1000)))?;
        }
        for lease in self.leases.values() {
            let id = lease.stream_id;
            write!(f, ", {}", ShortId(id))?;
            match (&lease.termination, self.members.contains(&id)) {
                (None, true) => write!(f, " until {}", ShortTime(lease.expires_at))?,
                (None, false) => write!(f, " NOT COUNTED until {}", ShortTime(lease.expires_at))?,
                (Some(termination), member) => {
                    write!(f, " {:?}", termination.reason)?;
                    let by = termination.ended_by.as_ref();
                    if let Some(start) = by.and_then(|by| by.stream_id) {
                        write!(f, " by {}", ShortId(start))?;
                    }
                    if by.is_some_and(|by| by.message.is_some()) {
                        f.write_str(" with a message")?;
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
            Self::Heartbeat { stream_id, now, .. } => {
                write!(f, "heartbeat {} at {}", ShortId(*stream_id), ShortTime(*now))
            }
            Self::Stop { stream_id } => write!(f, "stop {}", ShortId(*stream_id)),
            Self::End { new_limit: Some(limit), .. } => write!(f, "set limit {limit} and end streams"),
            Self::End { new_limit: None, .. } => f.write_str("end streams"),
            Self::Purge => f.write_str("purge"),
            Self::DeleteEnded => f.write_str("delete ended leases"),
            Self::Bury => f.write_str("bury the counter"),
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
