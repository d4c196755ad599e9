//! The history by stream and by user, and what can be asked of it. Judges nothing.

use std::collections::HashMap;

use tokio::time::Instant;

use super::history::{Call, History, Spell};
use super::traffic::StoreRequest;
use crate::board::Hold;

/// Longer than any call takes, so that a search in time can end.
const LONGEST_CALL: std::time::Duration = std::time::Duration::from_secs(20);

pub struct Evidence<'a> {
    pub spells: &'a [Spell],
    traffic: &'a [Vec<StoreRequest>],
    by_id: HashMap<&'a str, Vec<&'a Call>>,
    /// By user, in the order of their begin.
    starts: Vec<Vec<&'a Call>>,
    puts: HashMap<&'a str, Vec<&'a StoreRequest>>,
    marks: HashMap<&'a str, Vec<&'a StoreRequest>>,
    /// With the latest that the sender's clock can have shown.
    deletes: HashMap<&'a str, Vec<(&'a StoreRequest, i64)>>,
    /// Writes by user, in the order of their arrival.
    writes: Vec<Vec<&'a StoreRequest>>,
}

impl<'a> Evidence<'a> {
    /// `calls` in the order of their begin.
    pub fn new(
        history: &History,
        calls: &'a [Call],
        spells: &'a [Spell],
        traffic: &'a [Vec<StoreRequest>],
        users: usize,
    ) -> Self {
        let mut by_id: HashMap<&str, Vec<&Call>> = HashMap::new();
        let mut starts = vec![Vec::new(); users];
        for call in calls {
            if let Some(id) = &call.id {
                by_id.entry(id).or_default().push(call);
            }
            for id in &call.ended {
                by_id.entry(id).or_default().push(call);
            }
            if call.verb == "start" {
                starts[call.user].push(call);
            }
        }
        let mut puts: HashMap<&str, Vec<&StoreRequest>> = HashMap::new();
        let mut writes = vec![Vec::new(); users];
        let mut marks: HashMap<&str, Vec<&StoreRequest>> = HashMap::new();
        let mut deletes: HashMap<&str, Vec<(&StoreRequest, i64)>> = HashMap::new();
        let numbered =
            traffic.iter().enumerate().flat_map(|(instance, all)| all.iter().map(move |one| (instance, one)));
        for (instance, request) in numbered.filter(|(_, request)| request.write) {
            for id in &request.marks {
                marks.entry(id).or_default().push(request);
            }
            for id in &request.deletes {
                deletes.entry(id).or_default().push((request, history.latest_ms(instance, request.arrived)));
            }
            if let Some(id) = &request.puts {
                puts.entry(id).or_default().push(request);
            }
            if let Some(user) = request.user {
                writes[user].push(request);
            }
        }
        writes.iter_mut().for_each(|writes: &mut Vec<&StoreRequest>| writes.sort_by_key(|write| write.arrived));
        Self { spells, traffic, by_id, starts, puts, marks, deletes, writes }
    }

    /// The latest expiry that a client had been told before.
    pub fn acknowledged(&self, id: &str, before: Instant) -> Option<(i64, &'a Call)> {
        let told = self.about(id).filter(|call| call.gave_a_lease() && call.id.as_deref() == Some(id));
        let told = told.filter(|call| call.end <= before);
        told.filter_map(|call| Some((call.expires_ms?, call))).max_by_key(|(expires, _)| *expires)
    }

    /// Whether a start's write for this stream was carried out after `since`, one that was on its way by then: it was late,
    /// or its start had not ended or not been answered.
    pub fn came_back(&self, id: &str, since: Instant, until: Instant) -> bool {
        let open = || self.starting(id).any(|call| call.end >= since || call.is_open());
        self.puts
            .get(id)
            .into_iter()
            .flatten()
            .any(|put| put.applied_between(since, until) && (put.arrived < since || open()))
    }

    /// An answer before this call that says that the stream is over, whatever the clock.
    pub fn ended_before(&self, id: &str, call: &Call) -> Option<&'a Call> {
        self.about(id).find(|other| {
            let own = other.id.as_deref() == Some(id);
            let stopped = own && matches!(other.verb, "stop" | "evict") && other.status == 204;
            let pushed_out = own && matches!(other.reason.as_str(), "evicted" | "replaced");
            let named = other.status == 201 && other.ended.iter().any(|ended| ended == id);
            other.end < call.begin && (stopped || pushed_out || named)
        })
    }

    pub fn stop_was_sent(&self, id: &str, call: &Call) -> bool {
        self.about(id).any(|other| other.verb == "stop" && other.begin <= call.end)
    }

    /// Whether somebody asked for what ended this stream: the start that is named, or whoever evicts streams one by one.
    pub fn pushed_out(&self, id: &str, call: &Call) -> bool {
        let Some(by) = call.ended_by.as_deref() else {
            return self.about(id).any(|other| other.verb == "evict" && other.begin <= call.end);
        };
        let mut named = self.starting(by).peekable();
        let can = |start: &Call| start.begin <= call.end && self.can_push_out(start, id, &call.reason);
        if named.peek().is_some() {
            named.any(can)
        } else {
            self.starts_of(call.user, call.end).any(|start| start.id.is_none() && start.is_open() && can(start))
        }
    }

    /// Whether a write deleted the lease between its renewal and the call: one whose sender's clock had reached `expires`,
    /// or any if another had marked it as ended by then, since of ended ones only some are kept.
    pub fn was_deleted(&self, id: &str, expires: i64, renewal: &Call, call: &Call) -> bool {
        let in_time = |write: &StoreRequest| write.applied_between(renewal.begin, call.end);
        let ended = || self.marks.get(id).into_iter().flatten().any(|write| in_time(write));
        let mut deletes = self.deletes.get(id).into_iter().flatten().filter(|(write, _)| in_time(write));
        deletes.any(|(_, clock)| *clock >= expires || ended())
    }

    /// Starts of a user that had begun.
    pub fn starts_of(&self, user: usize, until: Instant) -> impl Iterator<Item = &'a Call> + '_ {
        let begun = self.starts[user].partition_point(|start| start.begin <= until);
        self.starts[user][..begun].iter().rev().copied()
    }

    pub fn may_have_started(&self, id: &str, call: &Call) -> bool {
        self.starting(id).any(|start| start.user == call.user && start.begin <= call.end)
            || self.starts_of(call.user, call.end).any(|start| start.id.is_none() && start.is_open())
    }

    /// What this call's instance asked the store about this user meanwhile.
    pub fn traffic_of(&self, call: &Call) -> impl Iterator<Item = &'a StoreRequest> + '_ {
        let traffic = &self.traffic[call.instance];
        let from = traffic.partition_point(|request| request.arrived < call.begin);
        let (user, end) = (Some(call.user), call.end);
        traffic[from..].iter().take_while(move |request| request.arrived <= end).filter(move |r| r.user == user)
    }

    /// Whether more than one write for the user was carried out meanwhile, counting late ones.
    pub fn others_changed(&self, call: &Call) -> bool {
        let writes = &self.writes[call.user];
        let from = writes.partition_point(|write| write.arrived + LONGEST_CALL < call.begin);
        let during = writes[from..].iter().take_while(|write| write.arrived <= call.end);
        during.filter(|write| write.settled.is_some_and(|(at, done)| done && at >= call.begin)).count() > 1
    }

    /// Times over which streams were certainly held: from the first answer until the last heartbeat that was renewed was
    /// sent. Not of those whose lease was written once more in between.
    pub fn holds(&self) -> Vec<Hold> {
        let holds = self.by_id.iter().filter_map(|(id, calls)| {
            let own = || calls.iter().filter(|call| call.id.as_deref() == Some(*id) && call.gave_a_lease());
            let from = own().map(|call| call.end).min()?;
            let until = own().filter(|call| call.verb == "heartbeat").map(|call| call.begin).max()?;
            let mut puts = self.puts.get(id).into_iter().flatten();
            let again = puts.any(|put| put.settled.is_some_and(|(at, done)| done && at > from));
            (!again && until > from).then_some(Hold { user: calls[0].user, from, until })
        });
        holds.collect()
    }

    fn can_push_out(&self, start: &Call, id: &str, reason: &str) -> bool {
        let replaces = start.body("replaces").as_array().is_some_and(|ids| ids.iter().any(|named| named == id));
        let device = start.body("deviceId");
        let same_device = !device.is_null() && self.starting(id).any(|own| own.body("deviceId") == device);
        let asked = match reason {
            "evicted" => start.body("atLimit") == "evictOldest",
            _ => replaces || same_device,
        };
        start.verb == "start" && start.status != 409 && asked
    }

    /// The starts that were to have this id, not those that ended it.
    fn starting(&self, id: &str) -> impl Iterator<Item = &'a Call> {
        let own = self.about(id).filter(move |call| call.verb == "start" && call.id.as_deref() == Some(id));
        own.collect::<Vec<_>>().into_iter()
    }

    fn about(&self, id: &str) -> impl Iterator<Item = &'a Call> + '_ {
        self.by_id.get(id).into_iter().flatten().copied()
    }
}
