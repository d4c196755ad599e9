//! The shared record of a run: responses by operation, outages of the store, and every violation of a guarantee.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time after an outage during which requests may still fail. Afterwards, every operation must work again.
pub const RECOVERY_TIME: Duration = Duration::from_secs(5);
/// Each of these operations must fail during an outage and work after it.
pub const WRITE_OPERATIONS: [&str; 3] = ["start", "heartbeat", "stop"];
/// The label of a 503 response after the last retry failed because of contention.
pub const CONTENTION: &str = "503 contention";

#[derive(Default)]
pub struct Recorder(Mutex<Records>);

#[derive(Default)]
pub struct Records {
    /// Number of responses by operation and label.
    pub responses: BTreeMap<(&'static str, String), u64>,
    /// Number of responses to requests that began and ended during an outage, by outage, operation and label.
    pub responses_in_outage: BTreeMap<(&'static str, &'static str, String), u64>,
    /// Number of 503 responses while the store was healthy, by operation and label.
    pub healthy_failures: BTreeMap<String, u64>,
    pub healthy_responses: u64,
    pub outages: Vec<Outage>,
    pub held_leases: Vec<HeldLease>,
    pub observations: Observations,
    pub violations: Vec<String>,
    pub violation_count: u64,
}

/// An outage of the store. At its beginning, the store may still respond. After `down`, the store does not respond.
pub struct Outage {
    pub name: &'static str,
    pub down: Option<Instant>,
    pub up: Option<Instant>,
    /// Time from `up` until the first success, by instance and operation.
    pub recovered: BTreeMap<(usize, &'static str), Duration>,
}

/// A period in which a user certainly held a lease. It begins with the response to the start and ends when the client
/// sends the last successful heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct HeldLease {
    pub user: usize,
    pub from: Instant,
    pub until: Instant,
}

/// Counters and maximum values from the observer's reads of the table.
#[derive(Clone, Copy, Default)]
pub struct Observations {
    pub reads: u64,
    pub failed: u64,
    pub at_limit: u64,
    pub incomplete: u64,
    pub max_members: usize,
    pub max_live: usize,
    pub max_items: usize,
}

/// A request and its response. `status` is `None` if there was no response.
pub struct CallRecord {
    pub operation: &'static str,
    pub instance: usize,
    pub instance_killed: bool,
    pub begin: Instant,
    pub status: Option<u16>,
    pub label: String,
}

impl Recorder {
    pub fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn violation(&self, text: String) {
        self.lock().violation(text);
    }

    /// Records a violation unless `condition` holds.
    pub fn check(&self, condition: bool, text: impl FnOnce() -> String) {
        if !condition {
            self.violation(text());
        }
    }

    pub fn begin_outage(&self, name: &'static str) {
        self.lock().outages.push(Outage { name, down: None, up: None, recovered: BTreeMap::new() });
    }

    pub fn store_is_down(&self) {
        self.lock().outages.last_mut().unwrap().down = Some(Instant::now());
    }

    /// Must be called before any action that makes the store available again.
    pub fn store_may_be_up(&self) {
        self.lock().outages.last_mut().unwrap().down = None;
    }

    pub fn store_is_up(&self) {
        self.lock().outages.last_mut().unwrap().up = Some(Instant::now());
    }

    pub fn record(&self, call: CallRecord) {
        let end = Instant::now();
        self.lock().record(call, end);
    }

    /// Whether the store has been healthy since `begin`.
    pub fn healthy_since(&self, begin: Instant) -> bool {
        self.lock().healthy_since(begin)
    }
}

impl Records {
    pub fn violation(&mut self, text: String) {
        self.violation_count += 1;
        if self.violations.len() < 20 {
            self.violations.push(text);
        }
    }

    fn record(&mut self, call: CallRecord, end: Instant) {
        let CallRecord { operation, instance, begin, status, ref label, .. } = call;
        *self.responses.entry((operation, label.clone())).or_default() += 1;
        if status.is_none() && !call.instance_killed {
            self.violation(format!("{operation}: no response from a live instance: {label}"));
        }
        let outage = self.outages.last().filter(|outage| outage.down.is_some_and(|down| down <= begin));
        if let Some(name) = outage.map(|outage| outage.name) {
            *self.responses_in_outage.entry((name, operation, label.clone())).or_default() += 1;
            if status.is_some_and(|status| status != 503) {
                self.violation(format!("{operation} returned {label} while the store was down ({name})"));
            }
        } else if self.healthy_since(begin) && status.is_some() {
            self.healthy_responses += 1;
            if status == Some(503) {
                *self.healthy_failures.entry(format!("{operation} {label}")).or_default() += 1;
                if label != CONTENTION {
                    self.violation(format!("{operation} returned {label} while the store was healthy"));
                }
            }
        }
        if status.is_some_and(|status| status != 503) {
            for outage in &mut self.outages {
                if let Some(up) = outage.up.filter(|up| *up <= begin) {
                    outage.recovered.entry((instance, operation)).or_insert(end - up);
                }
            }
        }
    }

    fn healthy_since(&self, begin: Instant) -> bool {
        self.outages.iter().all(|outage| outage.up.is_some_and(|up| up + RECOVERY_TIME < begin))
    }

    /// Counts the combinations of instance and write operation that have succeeded since the last outage.
    pub fn recovered(&self) -> usize {
        let is_write = |(_, operation): &&(usize, &str)| WRITE_OPERATIONS.contains(operation);
        self.outages.last().map_or(0, |outage| outage.recovered.keys().filter(is_write).count())
    }

    /// The largest number of leases that one user certainly held at the same time.
    pub fn max_held(&self) -> usize {
        let users = self.held_leases.iter().map(|held| held.user).max().map_or(0, |last| last + 1);
        let maxima = (0..users).map(|user| {
            let mut changes: Vec<(Instant, i32)> = Vec::new();
            for held in self.held_leases.iter().filter(|held| held.user == user && held.from < held.until) {
                changes.extend([(held.from, 1), (held.until, -1)]);
            }
            changes.sort();
            let counts = changes.iter().scan(0, |count, (_, change)| {
                *count += change;
                Some(*count)
            });
            counts.max().unwrap_or(0)
        });
        usize::try_from(maxima.max().unwrap_or(0)).unwrap_or(0)
    }
}
