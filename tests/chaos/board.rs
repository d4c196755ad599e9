//! What everyone writes down: answers by verb, troubles of the store, and every violation of a promise.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long after a trouble its last answers may still come, and how soon full service must be back.
pub const GRACE: Duration = Duration::from_secs(5);
/// The verbs that change something; each must be seen failing in a trouble and working after it.
pub const CHANGES: [&str; 3] = ["start", "heartbeat", "stop"];

#[derive(Default)]
pub struct Board(Mutex<Notes>);

#[derive(Default)]
pub struct Notes {
    /// Answers by verb and what was answered.
    pub answers: BTreeMap<(&'static str, String), u64>,
    /// Those among them that began and ended while the store was away, by trouble.
    pub inside: BTreeMap<(&'static str, &'static str, String), u64>,
    /// 503 at other times.
    pub calm_failures: BTreeMap<String, u64>,
    pub calm_answers: u64,
    pub troubles: Vec<Trouble>,
    pub holds: Vec<Hold>,
    pub observed: Observed,
    pub violations: Vec<String>,
    pub violation_count: u64,
}

/// The store is away: first it may be, then it certainly is (from `down`), then it is back.
pub struct Trouble {
    pub name: &'static str,
    pub down: Option<Instant>,
    pub back: Option<Instant>,
    /// When each instance first did each verb again, counted from `back`.
    pub recovered: BTreeMap<(usize, &'static str), Duration>,
}

/// A time over which a user certainly held a lease: from the answer to its start until the sending of its last
/// heartbeat that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub user: usize,
    pub from: Instant,
    pub until: Instant,
}

/// What the observer saw in the table.
#[derive(Clone, Copy, Default)]
pub struct Observed {
    pub count: u64,
    pub failed: u64,
    pub full: u64,
    pub torn: u64,
    pub max_members: usize,
    pub max_live: usize,
    pub max_items: usize,
}

/// One request and what came back: a status and a word on it, or no answer.
pub struct Call {
    pub verb: &'static str,
    pub instance: usize,
    pub instance_killed: bool,
    pub begin: Instant,
    pub status: Option<u16>,
    pub label: String,
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn violation(&self, text: String) {
        self.lock().violation(text);
    }

    pub fn expect(&self, promise: bool, text: impl FnOnce() -> String) {
        if !promise {
            self.violation(text());
        }
    }

    pub fn trouble_begins(&self, name: &'static str) {
        self.lock().troubles.push(Trouble { name, down: None, back: None, recovered: BTreeMap::new() });
    }

    pub fn store_is_down(&self) {
        let mut notes = self.lock();
        notes.troubles.last_mut().expect("a trouble").down = Some(Instant::now());
    }

    /// To be called before anything is done that brings the store back.
    pub fn store_comes_back(&self) {
        self.lock().troubles.last_mut().expect("a trouble").down = None;
    }

    pub fn store_is_back(&self) {
        self.lock().troubles.last_mut().expect("a trouble").back = Some(Instant::now());
    }

    pub fn record(&self, call: Call) {
        let end = Instant::now();
        let mut notes = self.lock();
        notes.record(call, end);
    }

    /// Whether the store was well all the time since `begin`.
    pub fn calm_since(&self, begin: Instant) -> bool {
        self.lock().calm_since(begin)
    }
}

impl Notes {
    pub fn violation(&mut self, text: String) {
        self.violation_count += 1;
        if self.violations.len() < 20 {
            self.violations.push(text);
        }
    }

    fn record(&mut self, call: Call, end: Instant) {
        let Call { verb, instance, begin, status, ref label, .. } = call;
        *self.answers.entry((verb, label.clone())).or_default() += 1;
        if status.is_none() && !call.instance_killed {
            self.violation(format!("{verb}: no answer from a live instance: {label}"));
        }
        let away = self.troubles.last().filter(|trouble| trouble.down.is_some_and(|down| down <= begin));
        if let Some(name) = away.map(|trouble| trouble.name) {
            *self.inside.entry((name, verb, label.clone())).or_default() += 1;
            if status.is_some_and(|status| status != 503) {
                self.violation(format!("{verb} was answered {label} while the store was away ({name})"));
            }
        } else if self.calm_since(begin) && status.is_some() {
            self.calm_answers += 1;
            if status == Some(503) {
                *self.calm_failures.entry(format!("{verb} {label}")).or_default() += 1;
                if label != NOT_APPLIED {
                    self.violation(format!("{verb} was answered {label} while the store was well"));
                }
            }
        }
        if status.is_some_and(|status| status != 503) {
            for trouble in &mut self.troubles {
                if let Some(back) = trouble.back.filter(|back| *back <= begin) {
                    trouble.recovered.entry((instance, verb)).or_insert(end - back);
                }
            }
        }
    }

    fn calm_since(&self, begin: Instant) -> bool {
        self.troubles.iter().all(|trouble| trouble.back.is_some_and(|back| back + GRACE < begin))
    }

    /// How many pairs of an instance and a changing verb have worked since the last trouble.
    pub fn recovered(&self) -> usize {
        let changes = |(_, verb): &&(usize, &str)| CHANGES.contains(verb);
        self.troubles.last().map_or(0, |trouble| trouble.recovered.keys().filter(changes).count())
    }

    /// The most leases that were certainly held at one time by one user.
    pub fn max_held(&self) -> usize {
        let users = self.holds.iter().map(|hold| hold.user).max().map_or(0, |last| last + 1);
        let most = (0..users).map(|user| {
            let mut changes: Vec<(Instant, i32)> = Vec::new();
            for hold in self.holds.iter().filter(|hold| hold.user == user && hold.from < hold.until) {
                changes.extend([(hold.from, 1), (hold.until, -1)]);
            }
            changes.sort();
            let held = changes.iter().scan(0, |held, (_, change)| {
                *held += change;
                Some(*held)
            });
            held.max().unwrap_or(0)
        });
        usize::try_from(most.max().unwrap_or(0)).unwrap_or(0)
    }
}

/// The label of a 503 for contention that outlasted the retries.
pub const NOT_APPLIED: &str = "503 refused for now";
