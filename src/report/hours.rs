//! Starts by hour, and the peak of concurrent streams in each hour.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use super::error::ReportError;
use super::history::Session;
use super::model::Hour;
use super::partitions::Partitions;
use super::record::StartResult;
use crate::domain::lease::Timestamp;
use crate::events::cloud_event::EventTime;

pub(super) struct Hours {
    /// By the number of the hour since 1970.
    by_hour: BTreeMap<i64, Counts>,
    /// The starts and ends of sessions, partitioned by hour.
    changes: Partitions,
    hasher: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    starts: u64,
    denied: u64,
    over_limit: u64,
    /// By how much the number of streams grows during the hour.
    growth: i64,
    /// The highest number of streams during the hour, relative to the number at its beginning.
    highest: i64,
}

/// The time of a start (+1) or end (−1). At the same time, the end comes first.
type Change = (i64, i8);

const HOUR_MS: i64 = 3_600_000;
/// If the events span more hours, hours without starts and ends are left out.
const MAX_FILLED_HOURS: i64 = 2 * 366 * 24;

impl Hours {
    pub fn new(partition_bytes: u64) -> Self {
        Self { by_hour: BTreeMap::new(), changes: Partitions::new(partition_bytes), hasher: RandomState::new() }
    }

    pub fn add_start(&mut self, time_ms: i64, result: StartResult) {
        let counts = self.by_hour.entry(hour_of(time_ms)).or_default();
        counts.starts += 1;
        counts.denied += u64::from(result == StartResult::Denied);
        counts.over_limit += u64::from(result == StartResult::OverLimit);
    }

    pub fn add_session(&mut self, session: &Session) -> Result<(), ReportError> {
        // A session without a length never counts.
        if session.length_ms() > 0 {
            self.push((session.started_ms, 1))?;
            self.push((session.ended_ms, -1))?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Vec<Hour>, ReportError> {
        let by_hour = &mut self.by_hour;
        self.changes.for_each(&mut |_, entries| {
            let decoded: Result<Vec<Change>, _> =
                entries.iter().map(|(_, entry)| postcard::from_bytes(entry)).collect();
            let mut changes = decoded?;
            changes.sort_unstable();
            for hour in changes.chunk_by(|a, b| hour_of(a.0) == hour_of(b.0)) {
                let counts = by_hour.entry(hour_of(hour[0].0)).or_default();
                for (_, change) in hour {
                    counts.growth += i64::from(*change);
                    counts.highest = counts.highest.max(counts.growth);
                }
            }
            Ok(())
        })?;
        fill(by_hour);
        let mut streams = 0;
        let hour = |(hour, counts): (&i64, &Counts)| {
            let peak = streams + counts.highest;
            streams += counts.growth;
            Hour {
                hour: EventTime(Timestamp::from_epoch_ms(hour * HOUR_MS)),
                starts: counts.starts,
                denied: counts.denied,
                over_limit: counts.over_limit,
                peak_streams: u64::try_from(peak).unwrap_or(0),
            }
        };
        Ok(by_hour.iter().map(hour).collect())
    }

    fn push(&mut self, change: Change) -> Result<(), ReportError> {
        self.changes.push(self.hasher.hash_one(hour_of(change.0)), &change)
    }
}

/// Adds the hours between the first and the last one.
fn fill(by_hour: &mut BTreeMap<i64, Counts>) {
    if let (Some((&first, _)), Some((&last, _))) = (by_hour.first_key_value(), by_hour.last_key_value())
        && last - first <= MAX_FILLED_HOURS
    {
        (first..last).for_each(|hour| _ = by_hour.entry(hour).or_default());
    }
}

fn hour_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOUR_MS)
}
