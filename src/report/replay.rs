//! Replays the starts of one user with another limit. The service's own admission rules decide, so that the replay admits and denies
//! the same starts as the service would with this limit.

use std::collections::HashMap;
use std::sync::Arc;

use super::history::{History, SessionEnd};
use super::record::{Entry, Start, StartResult};
use crate::domain::admission::{Commit, Decision, Guard, Snapshot, StartOutcome, StartRequest, decide};
use crate::domain::labels::Labels;
use crate::domain::lease::{EndReason, Lease, LeaseTerms, StreamLimit, Timestamp};
use crate::domain::names::{DeviceId, StreamId};
use crate::domain::rules::LimitMode;

/// The starts and ends to replay.
pub(super) struct Script<'a> {
    history: &'a History<'a>,
    steps: Vec<Step>,
}

/// The result of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The starts that were admitted or denied.
    pub starts: u64,
    pub denied: u64,
    /// The streams that starts with `evictOldest` ended.
    pub evicted: u64,
    /// The time that the admitted streams played.
    pub played_ms: i64,
}

enum Step {
    Start {
        request: Box<StartRequest>,
        now: Timestamp,
        /// `None` if the service denied the start, so that it is not known how long its stream would have played.
        session: Option<usize>,
    },
    /// The end of a session by an event.
    End { session: usize },
}

/// The replayed state of the user.
#[derive(Default)]
struct State {
    members: Vec<StreamId>,
    leases: Vec<Lease>,
    /// The sessions that play, and since when.
    playing: HashMap<StreamId, (usize, i64)>,
    result: Replayed,
}

/// The replay does not know which heartbeats were missed. With this interval, no lease is overdue.
const TERMS: LeaseTerms = LeaseTerms { duration_s: 0, heartbeat_interval_s: u32::MAX, retention_s: 0 };

impl<'a> Script<'a> {
    /// Replays the starts that `includes` accepts, and the ends of their streams. With `keep_own_limits`, starts with a limit
    /// from the user or the token keep it.
    pub fn new(history: &'a History<'a>, keep_own_limits: bool, includes: impl Fn(&Start<'_>) -> bool) -> Self {
        let mut included = vec![false; history.sessions.len()];
        let mut steps = Vec::new();
        for (record, session) in history.records.iter().zip(&history.session_of) {
            match (&record.entry, *session) {
                (Entry::Start(start), session) if includes(start) => {
                    if let Some(session) = session {
                        included[session] = true;
                    }
                    let request = Box::new(request(start, keep_own_limits));
                    steps.push(Step::Start { request, now: Timestamp::from_epoch_ms(record.time_ms), session });
                }
                (Entry::End(_), Some(session)) if included[session] => steps.push(Step::End { session }),
                _ => {}
            }
        }
        Self { history, steps }
    }

    /// Replays the script with a default limit.
    pub fn replay(&mut self, limit: StreamLimit) -> Replayed {
        let mut state = State::default();
        for step in &mut self.steps {
            match step {
                Step::Start { request, now, session } => {
                    request.default_limit = limit;
                    state.start(self.history, request, *now, *session);
                }
                Step::End { session } => state.end(self.history, *session),
            }
        }
        state.finish(self.history)
    }
}

/// Whether the replay without a limit admits the start, instead of finding its stream live.
pub(super) fn is_new(history: &History<'_>, index: usize, start: &Start<'_>) -> bool {
    let begins = |session: usize| history.sessions[session].first_event == index;
    start.result != StartResult::Replayed || history.session_of[index].is_some_and(begins)
}

impl State {
    fn start(&mut self, history: &History<'_>, request: &StartRequest, now: Timestamp, session: Option<usize>) {
        let guard = Guard { revision: None, stored_limit: None };
        let snapshot = Snapshot { guard, members: &self.members, leases: &self.leases };
        match decide(&snapshot, request, now) {
            Decision::Admit(commit) => {
                self.result.starts += 1;
                self.apply(history, commit, session);
            }
            Decision::NoWrite(StartOutcome::Denied(_)) => {
                self.result.starts += 1;
                self.result.denied += 1;
            }
            Decision::NoWrite(_) => {}
        }
    }

    /// Changes the state as the stores do.
    fn apply(&mut self, history: &History<'_>, commit: Commit, session: Option<usize>) {
        let Commit { change, mut lease, .. } = commit;
        let (id, now) = (lease.stream_id, change.now);
        let is_deleted = |of: &Lease| {
            of.stream_id == id || change.dead.contains(&of.stream_id) || change.pruned.contains(&of.stream_id)
        };
        self.leases.retain(|lease| !is_deleted(lease));
        for ended in change.ended {
            self.result.evicted += u64::from(ended.termination.reason == EndReason::Evicted);
            self.stop_playing(history, ended.stream_id, now.epoch_ms());
            if let Some(lease) = self.leases.iter_mut().find(|lease| lease.stream_id == ended.stream_id) {
                lease.termination = Some(Box::new(ended.termination));
            }
        }
        self.members.clear();
        self.members.extend(change.members);
        // An earlier session of the same idempotency key has expired.
        self.stop_playing(history, id, i64::MAX);
        lease.expires_at = match session.map(|session| &history.sessions[session]) {
            None => now,
            // A step of the script ends it.
            Some(ended) if matches!(ended.end, SessionEnd::Event { .. }) => Timestamp::from_epoch_ms(i64::MAX),
            Some(expired) => Timestamp::from_epoch_ms(expired.ended_ms),
        };
        self.leases.push(lease);
        if let Some(session) = session {
            self.playing.insert(id, (session, now.epoch_ms()));
        }
    }

    fn end(&mut self, history: &History<'_>, session: usize) {
        let id = StreamId::from(history.sessions[session].stream_id);
        if self.playing.get(&id).is_some_and(|(playing, _)| *playing == session) {
            self.stop_playing(history, id, i64::MAX);
            self.members.retain(|member| *member != id);
            self.leases.retain(|lease| lease.stream_id != id);
        }
    }

    /// Adds the time that the stream played until `now_ms`, or until the known end if that is earlier.
    fn stop_playing(&mut self, history: &History<'_>, id: StreamId, now_ms: i64) {
        if let Some((session, since_ms)) = self.playing.remove(&id) {
            let ended_ms = history.sessions[session].ended_ms.min(now_ms);
            self.result.played_ms += (ended_ms - since_ms).max(0);
        }
    }

    fn finish(mut self, history: &History<'_>) -> Replayed {
        for id in self.playing.keys().copied().collect::<Vec<_>>() {
            self.stop_playing(history, id, i64::MAX);
        }
        self.result
    }
}

fn request(start: &Start<'_>, keep_own_limits: bool) -> StartRequest {
    StartRequest {
        stream_id: start.stream_id.into(),
        fingerprint: None,
        device_id: start.device_id.and_then(|id| DeviceId::parse(id).ok()),
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        replaces: start.replaces.iter().copied().map(StreamId::from).collect(),
        at_limit: start.at_limit,
        // The service decided between the token and the stored limit, so that both have the same effect here.
        token_limit: (keep_own_limits && start.has_own_limit).then(|| StreamLimit::capped(start.limit.into())),
        default_limit: StreamLimit::DEFAULT,
        limit_mode: LimitMode::Enforce,
        hard_limit: StreamLimit::HIGHEST,
        rules: Arc::default(),
        terms: TERMS,
    }
}
