//! What is truly stored of one user, and the acts that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use stream_manager::domain::lease::{Lease, StreamLimit, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::store::dynamodb::codec::Partition;

/// One user's whole state between two writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub own_limit: Option<StreamLimit>,
    pub members: BTreeSet<StreamId>,
    pub leases: BTreeMap<StreamId, Lease>,
}

/// One write that was applied, by what its request says.
#[derive(Clone, Debug)]
pub enum Act {
    Start { stream_id: StreamId, now: Timestamp },
    Beat { stream_id: StreamId, now: Timestamp },
    Stop { stream_id: StreamId },
    Evict { stream_id: StreamId },
    // What follows an eviction on the table; in memory it is one with it.
    Forget,
    Limit { limit: Option<StreamLimit> },
    Sweep { now: Timestamp },
}

impl Act {
    /// The instant that the request claims.
    pub fn now(&self) -> Option<Timestamp> {
        match self {
            Self::Start { now, .. } | Self::Beat { now, .. } => Some(*now),
            Self::Stop { .. } | Self::Evict { .. } | Self::Forget | Self::Limit { .. } | Self::Sweep { .. } => None,
        }
    }
}

/// An id short enough for a line of a trace.
pub struct Short(pub StreamId);

impl State {
    pub fn of(partition: Partition) -> Self {
        let leases = partition.leases.into_iter().map(|lease| (lease.stream_id, lease)).collect();
        Self { own_limit: partition.counter.stream_limit, members: partition.counter.streams, leases }
    }

    pub fn limit(&self, default: StreamLimit) -> StreamLimit {
        self.own_limit.unwrap_or(default)
    }

    /// How many stored leases nobody ended: each of them some clock may still take for live.
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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.own_limit {
            Some(limit) => write!(f, "limit {limit}")?,
            None => f.write_str("default limit")?,
        }
        for lease in self.leases.values() {
            let id = lease.stream_id;
            write!(f, ", {}", Short(id))?;
            match (&lease.termination, self.members.contains(&id)) {
                (None, true) => write!(f, " until {}", Until(lease.expires_at))?,
                (None, false) => write!(f, " UNCOUNTED until {}", Until(lease.expires_at))?,
                (Some(termination), member) => {
                    write!(f, " {:?}", termination.reason)?;
                    if let Some(by) = &termination.ended_by {
                        write!(f, " by {}", Short(by.stream_id))?;
                    }
                    f.write_str(if member { " YET COUNTED" } else { "" })?;
                }
            }
        }
        for id in self.members.iter().filter(|id| !self.leases.contains_key(id)) {
            write!(f, ", {} without lease", Short(*id))?;
        }
        Ok(())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { stream_id, now } => write!(f, "start {} at {}", Short(*stream_id), Until(*now)),
            Self::Beat { stream_id, now } => write!(f, "heartbeat {} at {}", Short(*stream_id), Until(*now)),
            Self::Stop { stream_id } => write!(f, "stop {}", Short(*stream_id)),
            Self::Evict { stream_id } => write!(f, "evict {}", Short(*stream_id)),
            Self::Forget => f.write_str("what an eviction forgets"),
            Self::Limit { limit } => write!(f, "limit {}", limit.map_or(0, StreamLimit::get)),
            Self::Sweep { now } => write!(f, "sweep at {}", Until(*now)),
        }
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string()[..6])
    }
}

/// Seconds of the day are enough to tell instants of one run apart.
pub struct Until(pub Timestamp);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.epoch_ms().rem_euclid(1_000_000);
        write!(f, "{}.{:03}", ms / 1000, ms % 1000)
    }
}

pub fn shorts<'a>(ids: impl IntoIterator<Item = &'a StreamId>) -> String {
    ids.into_iter().fold(String::new(), |mut text, id| {
        _ = write!(text, " {}", Short(*id));
        text
    })
}
