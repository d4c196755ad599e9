//! The sessions of one user, from the user's events.

use std::collections::HashMap;

use uuid::Uuid;

use super::record::{Entry, Reason, Record, Start, StartResult};

/// A session: the time from the start of a stream to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub stream_id: Uuid,
    /// The index of the event that shows the session first.
    pub first_event: usize,
    /// The time of this event.
    pub first_ms: i64,
    /// Earlier than `first_ms` if the event of the start is missing.
    pub started_ms: i64,
    pub ended_ms: i64,
    pub end: SessionEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Ended by this event.
    Event { index: usize, reason: Reason },
    /// The lease expired. A later start found the expired lease.
    Expired,
    /// There is no event of the end. It is taken to be the last known expiry.
    Assumed,
}

/// The events of one user in the order in which they happened, and the sessions.
pub(super) struct History<'a> {
    pub records: &'a [Record<'a>],
    /// In the order of their first events.
    pub sessions: Vec<Session>,
    /// For each record: the session of a start, or the session that an end ended.
    pub session_of: Vec<Option<usize>>,
    pub ends_without_start: u64,
}

impl<'a> History<'a> {
    /// `records` are sorted and without duplicates.
    pub fn new(records: &'a [Record<'a>]) -> Self {
        let mut history =
            Self { records, sessions: Vec::new(), session_of: vec![None; records.len()], ends_without_start: 0 };
        let mut open = HashMap::<Uuid, usize>::new();
        for (index, record) in records.iter().enumerate() {
            history.session_of[index] = match &record.entry {
                Entry::Start(start) if start.result == StartResult::Denied => None,
                Entry::Start(start) => {
                    let known = open.get(&start.stream_id).copied();
                    let expires_ms = start.expires_ms.unwrap_or(record.time_ms).max(record.time_ms);
                    match known.filter(|_| start.result == StartResult::Replayed) {
                        Some(session) => {
                            let ended_ms = &mut history.sessions[session].ended_ms;
                            *ended_ms = expires_ms.max(*ended_ms);
                            Some(session)
                        }
                        None => {
                            // The earlier session with the same idempotency key had expired, or the start would be a replay.
                            if let Some(earlier) = known.map(|session| &mut history.sessions[session]) {
                                earlier.ended_ms = earlier.ended_ms.min(record.time_ms);
                            }
                            let session = history.sessions.len();
                            history.sessions.push(Session {
                                stream_id: start.stream_id,
                                first_event: index,
                                first_ms: record.time_ms,
                                started_ms: start.started_ms.unwrap_or(record.time_ms).min(record.time_ms),
                                ended_ms: expires_ms,
                                end: SessionEnd::Assumed,
                            });
                            open.insert(start.stream_id, session);
                            Some(session)
                        }
                    }
                }
                Entry::End(end) => match open.remove(&end.stream_id) {
                    Some(session) => {
                        let reason = end.reason;
                        let ended = &mut history.sessions[session];
                        ended.ended_ms = end.ended_ms.max(ended.first_ms);
                        ended.end = match reason {
                            Reason::Expired => SessionEnd::Expired,
                            _ => SessionEnd::Event { index, reason },
                        };
                        Some(session)
                    }
                    None => {
                        history.ends_without_start += 1;
                        None
                    }
                },
                Entry::LimitChanged | Entry::Erased => None,
            };
        }
        history
    }

    /// The starts, replays included, and their indices.
    pub fn starts(&self) -> impl Iterator<Item = (usize, &Start<'a>)> {
        self.records.iter().enumerate().filter_map(|(index, record)| match &record.entry {
            Entry::Start(start) => Some((index, start)),
            _ => None,
        })
    }
}

impl Session {
    pub fn length_ms(&self) -> i64 {
        self.ended_ms - self.started_ms
    }

    /// The time from the first event to the end.
    pub fn played_ms(&self) -> i64 {
        self.ended_ms - self.first_ms
    }

    /// Whether the stream holds a slot at the event with this index and time. `index` is later than `first_event`.
    pub fn is_live_at(&self, index: usize, now_ms: i64) -> bool {
        match self.end {
            SessionEnd::Event { index: end, .. } => end > index,
            SessionEnd::Expired | SessionEnd::Assumed => self.ended_ms > now_ms,
        }
    }
}
