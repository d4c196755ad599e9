//! The compact form of an event, which the temporary files contain.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::admission::AtLimit;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Record<'a> {
    /// The user, or `None` if the events do not contain users.
    pub user: Option<&'a str>,
    pub time_ms: i64,
    /// The number of the instance in [`super::source_names::SourceNames`].
    pub source: u32,
    pub sequence: u64,
    /// A hash of the event's id.
    pub id: u64,
    #[serde(borrow)]
    pub entry: Entry<'a>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Entry<'a> {
    #[serde(borrow)]
    Start(Start<'a>),
    End(End),
    LimitChanged,
    /// The streams that the erasure ended have records of their own.
    Erased,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Start<'a> {
    pub result: StartResult,
    pub stream_id: Uuid,
    pub has_key: bool,
    pub device_id: Option<&'a str>,
    pub device_name: Option<&'a str>,
    pub replaces: Vec<Uuid>,
    pub at_limit: AtLimit,
    pub limit: u8,
    /// Whether the limit is not the default one, but the stored limit of the user or the limit in the token.
    pub has_own_limit: bool,
    #[serde(borrow)]
    pub rules: Vec<RuleKey<'a>>,
    /// The names of the exceeded rules. `None` is the user's own limit.
    pub exceeded: Vec<Option<&'a str>>,
    pub started_ms: Option<i64>,
    pub expires_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum StartResult {
    Started,
    Replayed,
    Denied,
    OverLimit,
}

/// A rule, and the label value for which it counts, if it counts per label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
pub(super) struct RuleKey<'a> {
    pub name: &'a str,
    pub per: Option<&'a str>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct End {
    pub reason: Reason,
    pub stream_id: Uuid,
    pub ended_ms: i64,
    /// The stream whose start ended this one.
    pub by_start: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Reason {
    Stopped,
    Evicted,
    Replaced,
    Expired,
    Erased,
}

impl Record<'_> {
    /// Sorts the events of a user in the order in which they happened. Records with equal keys are the same event. `ranks` are the
    /// positions of the sources.
    pub fn order(&self, ranks: &[u32]) -> impl Ord + use<> {
        let rank = ranks.get(self.source as usize).copied().unwrap_or(u32::MAX);
        (self.time_ms, rank, self.sequence, self.id, self.stream_id())
    }

    /// Whether the record stands for a whole event. An erasure is one event, and has one more record for each stream.
    pub fn is_event(&self) -> bool {
        !matches!(&self.entry, Entry::End(end) if end.reason == Reason::Erased)
    }

    /// The stream of a start or an end.
    pub fn stream_id(&self) -> Option<Uuid> {
        match &self.entry {
            Entry::Start(start) => Some(start.stream_id),
            Entry::End(end) => Some(end.stream_id),
            Entry::LimitChanged | Entry::Erased => None,
        }
    }
}

impl Start<'_> {
    /// Whether an enforced rule or limit denied the start, and which. The inner `None` is the user's own limit.
    pub fn denied_by(&self) -> Option<Option<&str>> {
        (self.result == StartResult::Denied).then(|| self.exceeded.first().copied().flatten())
    }
}

/// Moves the ends that a start caused after the event of the start. The service writes them before it, but the start must find the
/// streams that it evicts or replaces. `records` are the sorted records of one user.
pub(super) fn move_ends_after_their_starts(records: &mut [Record<'_>]) {
    let is_caused = |record: &Record<'_>| matches!(&record.entry, Entry::End(End { by_start: Some(_), .. }));
    for records in records.chunk_by_mut(|a, b| a.time_ms == b.time_ms) {
        if records.len() == 1 || !records.iter().any(is_caused) {
            continue;
        }
        let mut starts = HashMap::<Uuid, usize>::new();
        for (index, record) in records.iter().enumerate() {
            if let Entry::Start(start) = &record.entry {
                starts.entry(start.stream_id).or_insert(index);
            }
        }
        let position = |(index, record): (usize, &Record<'_>)| match &record.entry {
            Entry::End(End { by_start: Some(by), .. }) => starts.get(by).map_or(index, |start| index.max(*start)),
            _ => index,
        };
        let positions: Vec<usize> = records.iter().enumerate().map(position).collect();
        let mut order: Vec<usize> = (0..records.len()).collect();
        // At the same position, the start comes first: only its position is its index.
        order.sort_by_key(|index| (positions[*index], positions[*index] != *index));
        let sorted: Vec<_> = order.iter().map(|index| records[*index].clone()).collect();
        records.clone_from_slice(&sorted);
    }
}
