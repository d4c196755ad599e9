//! What one thread has measured: answers by verb and status, times, answers in each second. Merged at the end; knows
//! nothing of players.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

/// Longer than any timeout that one would set.
const LONGEST_US: u64 = 600_000_000;
pub const VERBS: [Verb; 3] = [Verb::Start, Verb::Heartbeat, Verb::Stop];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Heartbeat,
    Stop,
}

impl Verb {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Heartbeat => "heartbeat",
            Self::Stop => "stop",
        }
    }
}

pub struct Measurements {
    began: Instant,
    pub verbs: [VerbMeasurements; VERBS.len()],
    /// How long after its time the tool woke a player: its own fault, or the machine's.
    pub lateness: Histogram<u32>,
    pub seconds: Vec<Second>,
    /// Requests that found no free connection, and opened connections.
    pub queued: u64,
    pub opened: u64,
    /// Successes whose body was not what the protocol says.
    pub malformed: u64,
    /// Stops after the run, so that nothing is left behind, and those that failed.
    pub cleared: u64,
    pub left: u64,
}

pub struct VerbMeasurements {
    /// By status, 0 for no answer.
    pub statuses: Vec<(u16, u64)>,
    /// Microseconds of what the service decided, also denials.
    pub answered: Histogram<u32>,
    /// Those of 429, 5xx and no answer, apart: refusals would make the service look fast.
    pub failed: Histogram<u32>,
}

/// Answers that came within one second of the run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Second {
    pub start: u32,
    pub heartbeat: u32,
    pub stop: u32,
    pub failed: u32,
}

impl Measurements {
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            verbs: VERBS.map(|_| VerbMeasurements {
                statuses: Vec::new(),
                answered: histogram(),
                failed: histogram(),
            }),
            lateness: histogram(),
            seconds: Vec::new(),
            queued: 0,
            opened: 0,
            malformed: 0,
            cleared: 0,
            left: 0,
        }
    }

    /// `due` is when the request should have been sent, not when it was: what waits behind a slow answer is slow too.
    pub fn record(&mut self, verb: Verb, status: u16, due: Instant) {
        let now = Instant::now();
        let measured = &mut self.verbs[verb as usize];
        match measured.statuses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => measured.statuses.push((status, 1)),
        }
        let failed = is_failure(status);
        let times = if failed { &mut measured.failed } else { &mut measured.answered };
        times.saturating_record(micros(now - due).clamp(1, LONGEST_US));
        let second = usize::try_from((now - self.began).as_secs()).unwrap_or(usize::MAX);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        let second = &mut self.seconds[second];
        let count = match (failed, verb) {
            (true, _) => &mut second.failed,
            (false, Verb::Start) => &mut second.start,
            (false, Verb::Heartbeat) => &mut second.heartbeat,
            (false, Verb::Stop) => &mut second.stop,
        };
        *count += 1;
    }

    pub fn woke_late(&mut self, by: Duration) {
        self.lateness.saturating_record(micros(by).clamp(1, LONGEST_US));
    }

    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.verbs.iter_mut().zip(&other.verbs) {
            for (status, count) in &other.statuses {
                match own.statuses.iter_mut().find(|(known, _)| known == status) {
                    Some((_, own)) => *own += count,
                    None => own.statuses.push((*status, *count)),
                }
            }
            add(&mut own.answered, &other.answered);
            add(&mut own.failed, &other.failed);
        }
        add(&mut self.lateness, &other.lateness);
        self.seconds.resize(self.seconds.len().max(other.seconds.len()), Second::default());
        for (own, other) in self.seconds.iter_mut().zip(&other.seconds) {
            own.start += other.start;
            own.heartbeat += other.heartbeat;
            own.stop += other.stop;
            own.failed += other.failed;
        }
        self.queued += other.queued;
        self.opened += other.opened;
        self.malformed += other.malformed;
        self.cleared += other.cleared;
        self.left += other.left;
    }
}

pub const fn is_failure(status: u16) -> bool {
    matches!(status, 0 | 401 | 403 | 429 | 500..)
}

impl Second {
    pub const fn answers(&self) -> u32 {
        self.start + self.heartbeat + self.stop
    }
}

#[allow(clippy::expect_used, reason = "the bounds are constants")]
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that go together")
}

#[allow(clippy::expect_used, reason = "both have the same bounds")]
fn add(own: &mut Histogram<u32>, other: &Histogram<u32>) {
    own.add(other).expect("the same bounds");
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
