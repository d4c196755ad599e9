//! Generates the events of viewers whose sessions are known. The benchmark `report` uses it too.

use std::collections::BTreeSet;

use fastrand::Rng;
use stream_manager::domain::admission::AtLimit;
use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::lease::{LimitSource, Timestamp};
use stream_manager::domain::rules::LimitMode;
use stream_manager::events::cloud_event::{
    AppliedRule, CloudEvent, EndData, EventTime, Exceeded, Outcome, SPEC_VERSION, StartData,
};
use uuid::Uuid;

/// A service in observe mode, with a limit of 3 and a rule of one UHD stream.
pub struct World {
    pub seed: u64,
    pub days: u64,
    /// The most sessions of one user.
    pub max_sessions: u64,
}

/// A user, the sessions in the order of their starts, and the events.
pub struct User {
    pub sessions: Vec<Session>,
    pub events: Vec<CloudEvent>,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub id: Uuid,
    pub device: usize,
    pub is_uhd: bool,
    pub start_ms: i64,
    pub end_ms: i64,
    pub end: End,
    /// The player repeats the start with the same idempotency key.
    pub is_repeated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Stopped,
    /// By an eviction request.
    Evicted,
    /// By this session of the same device.
    Replaced(usize),
    /// The player crashed, and the next start removed the expired lease.
    Expired,
    /// The player crashed, and there is no event of the end.
    Unknown,
}

/// Gives each event its id, its instance and its sequence.
pub struct EventLog {
    sequences: [u64; INSTANCES],
    random: Rng,
}

pub const LIMIT: usize = 3;
pub const UHD_RULE: &str = "one UHD stream";
pub const LEASE_MS: i64 = 90_000;
/// 2026-11-01T00:00:00Z
pub const FIRST_DAY_MS: i64 = 1_793_491_200_000;
pub const DEVICE_NAMES: [&str; 8] = [
    "Living-room TV",
    "iPhone",
    "Chrome on Windows",
    "居間のテレビ",
    "iPad",
    "Firefox on Linux",
    "تلفاز غرفة المعيشة",
    "Kids' tablet",
];

const INSTANCES: usize = 3;
const HOUR_MS: i64 = 3_600_000;
/// How often sessions start in each hour of the day.
const HOUR_WEIGHTS: [u64; 24] = [6, 3, 2, 1, 1, 1, 3, 6, 7, 6, 6, 7, 10, 10, 9, 10, 13, 18, 26, 36, 42, 38, 24, 12];

impl World {
    /// The user with this number. The same number gives the same user.
    pub fn user(&self, number: u64, log: &mut EventLog) -> User {
        let mut random = Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let devices = 1 + (0..4).take_while(|_| random.u64(..100) < 45).count();
        let first_device = random.usize(..DEVICE_NAMES.len());
        let mut sessions: Vec<Session> = Vec::new();
        let mut used_ms = BTreeSet::new();
        for _ in 0..random.u64(1..=self.max_sessions) {
            let mut start_ms = match random.choice(&sessions).map(|session: &Session| session.start_ms) {
                // A household often watches several streams at once.
                Some(other_ms) if random.u64(..100) < 35 => other_ms + random.i64(0..HOUR_MS),
                _ => {
                    let hours = i64::try_from(random.u64(..self.days) * 24 + hour(&mut random)).unwrap();
                    FIRST_DAY_MS + hours * HOUR_MS + random.i64(0..HOUR_MS)
                }
            };
            // Two starts of a user never have the same time, so that their order is known.
            while !used_ms.insert(start_ms) {
                start_ms += 1;
            }
            let length_ms = 1000 + (-random.f64().max(1e-9).ln() * 45.0 * 60_000.0) as i64;
            let end = match random.u64(..100) {
                0..8 => End::Expired,
                8..12 => End::Unknown,
                12..14 => End::Evicted,
                _ => End::Stopped,
            };
            sessions.push(Session {
                id: Uuid::from_u128(random.u128(..)),
                device: first_device + random.usize(..devices),
                is_uhd: random.u64(..100) < 20,
                start_ms,
                end_ms: start_ms + length_ms,
                end,
                is_repeated: random.u64(..100) < 5,
            });
        }
        sessions.sort_by_key(|session| session.start_ms);
        settle_ends(&mut sessions);
        User { events: events(&format!("user-{number:07}"), &sessions, log), sessions }
    }
}

fn hour(random: &mut Rng) -> u64 {
    let mut at = random.u64(..HOUR_WEIGHTS.iter().sum::<u64>());
    let is_in = |weight: &u64| {
        let found = at < *weight;
        at = at.saturating_sub(*weight);
        found
    };
    HOUR_WEIGHTS.iter().position(is_in).unwrap() as u64
}

/// Ends a session when its device starts another one. The report must be able to know each end.
fn settle_ends(sessions: &mut [Session]) {
    for session in sessions.iter_mut() {
        match session.end {
            End::Unknown => session.end_ms = session.start_ms + LEASE_MS,
            End::Expired => session.end_ms = session.end_ms.max(session.start_ms + LEASE_MS),
            _ => {}
        }
    }
    for next in 1..sessions.len() {
        let Session { start_ms, device, .. } = sessions[next];
        let same_device = sessions[..next].iter_mut().rev().find(|earlier| earlier.device == device);
        if let Some(replaced) = same_device.filter(|earlier| earlier.end_ms > start_ms) {
            (replaced.end_ms, replaced.end) = (start_ms, End::Replaced(next));
        }
    }
    let last_start_ms = sessions.last().unwrap().start_ms;
    for session in sessions {
        // Without a later start, nobody notices the expiry.
        if session.end == End::Expired && session.end_ms > last_start_ms {
            (session.end, session.end_ms) = (End::Unknown, session.start_ms + LEASE_MS);
        }
    }
}

fn events(user: &str, sessions: &[Session], log: &mut EventLog) -> Vec<CloudEvent> {
    let mut events = Vec::new();
    for (index, session) in sessions.iter().enumerate() {
        let now = session.start_ms;
        let live: Vec<&Session> = sessions[..index].iter().filter(|earlier| earlier.end_ms > now).collect();
        let outcome = start(session, &live);
        let mut outcomes = vec![outcome.clone()];
        for ended in &sessions[..index] {
            let is_first_start_after = sessions[..index].iter().all(|other| other.start_ms < ended.end_ms);
            match ended.end {
                End::Replaced(by) if by == index => {
                    outcomes.push(Outcome::Replaced(end(ended, Some(session.id))));
                }
                End::Expired if ended.end_ms <= now && is_first_start_after => {
                    outcomes.push(Outcome::Expired(end(ended, None)));
                }
                _ => {}
            }
        }
        events.extend(log.events(Some(user), now, outcomes));
        if let (true, Outcome::Started(data) | Outcome::OverLimit(data)) = (session.is_repeated, outcome) {
            events.extend(log.events(Some(user), now + 1, vec![Outcome::Replayed(data)]));
        }
        match session.end {
            End::Stopped => {
                events.extend(log.events(Some(user), session.end_ms, vec![Outcome::Stopped(end(session, None))]));
            }
            End::Evicted => {
                events.extend(log.events(Some(user), session.end_ms, vec![Outcome::Evicted(end(session, None))]));
            }
            End::Replaced(_) | End::Expired | End::Unknown => {}
        }
    }
    events
}

/// The start of a session while others are live.
fn start(session: &Session, live: &[&Session]) -> Outcome {
    let uhd = live.iter().filter(|other| other.is_uhd).count();
    let mut exceeded = Vec::new();
    if session.is_uhd && uhd > 0 {
        exceeded.push(Exceeded { rule: Some(UHD_RULE.to_owned()), limit: 1, count: uhd as u32 });
    }
    if live.len() >= LIMIT {
        exceeded.push(Exceeded { rule: None, limit: LIMIT as u8, count: live.len() as u32 });
    }
    let rule = AppliedRule { name: UHD_RULE.to_owned(), mode: LimitMode::Observe, limit: 1, per: None };
    let data = StartData {
        device_id: Some(format!("device-{}", session.device)),
        device_name: Some(DEVICE_NAMES[session.device % DEVICE_NAMES.len()].to_owned()),
        content_id: Some(format!("movie-{}", session.start_ms % 1000)),
        labels: if session.is_uhd { uhd_labels() } else { Labels::default() },
        mode: LimitMode::Observe,
        limit: LIMIT as u8,
        count_before: Some(live.len() as u32),
        count_after: Some(live.len() as u32 + 1),
        rules: if session.is_uhd { vec![rule] } else { Vec::new() },
        exceeded,
        ..started(session.id, session.start_ms)
    };
    if data.exceeded.is_empty() { Outcome::Started(data) } else { Outcome::OverLimit(data) }
}

/// A start with a key and without other options.
pub fn started(stream_id: Uuid, now_ms: i64) -> StartData {
    StartData {
        stream_id,
        has_key: true,
        device_id: None,
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        mode: LimitMode::Observe,
        limit: LIMIT as u8,
        limit_source: LimitSource::Default,
        count_before: None,
        count_after: None,
        rules: Vec::new(),
        exceeded: Vec::new(),
        started_at: Some(time(now_ms)),
        expires_at: Some(time(now_ms + LEASE_MS)),
    }
}

/// The end of a stream of which only the times are known.
pub fn ended(stream_id: Uuid, start_ms: i64, end_ms: i64, ended_by: Option<Uuid>) -> EndData {
    EndData {
        stream_id,
        ended_at: time(end_ms),
        started_at: Some(time(start_ms)),
        session_seconds: Some((end_ms - start_ms) as f64 / 1000.0),
        device_id: None,
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        ended_by,
    }
}

pub fn time(ms: i64) -> EventTime {
    EventTime(Timestamp::from_epoch_ms(ms))
}

fn end(session: &Session, ended_by: Option<Uuid>) -> EndData {
    ended(session.id, session.start_ms, session.end_ms, ended_by)
}

fn uhd_labels() -> Labels {
    let label = (LabelName::parse("quality").unwrap(), LabelValue::parse("uhd").unwrap());
    Labels::new([label].into()).unwrap()
}

impl EventLog {
    pub fn new(seed: u64) -> Self {
        Self { sequences: [0; INSTANCES], random: Rng::with_seed(seed) }
    }

    /// The events of one request, which one instance writes.
    pub fn events(&mut self, user: Option<&str>, time_ms: i64, outcomes: Vec<Outcome>) -> Vec<CloudEvent> {
        let instance = self.random.usize(..INSTANCES);
        let event = |outcome| {
            self.sequences[instance] += 1;
            let sequence = self.sequences[instance];
            CloudEvent {
                specversion: SPEC_VERSION.to_owned(),
                id: format!("instance-{instance}-{sequence}"),
                source: format!("urn:stream-manager:instance:instance-{instance}"),
                subject: user.map(str::to_owned),
                time: time(time_ms),
                sequence: format!("{sequence:020}"),
                serviceversion: "0.1.0".to_owned(),
                outcome,
            }
        };
        outcomes.into_iter().map(event).collect()
    }
}
