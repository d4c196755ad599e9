//! Indexes the history by stream and by user, and answers the queries of the checker.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::history::{Call, History, InstanceFault};
use super::store_request::StoreRequest;
use crate::recorder::HeldLease;

/// Maximum duration of a call and of a write. The search for writes during a call skips older writes.
const MAX_CALL_DURATION: Duration = Duration::from_secs(20);

pub struct HistoryIndex<'a> {
    pub faults: &'a [InstanceFault],
    /// Requests to the store by instance, in the order in which the proxy received them.
    requests: &'a [Vec<StoreRequest>],
    calls: HashMap<&'a str, Vec<&'a Call>>,
    /// Starts by user, sorted by the time at which they began.
    starts: Vec<Vec<&'a Call>>,
    creates: HashMap<&'a str, Vec<&'a StoreRequest>>,
    ends: HashMap<&'a str, Vec<&'a StoreRequest>>,
    /// Delete requests by stream, each with the latest possible time on the clock of the instance that sent it.
    deletes: HashMap<&'a str, Vec<(&'a StoreRequest, i64)>>,
    /// Writes by user, in the order in which the proxies received them.
    writes: Vec<Vec<&'a StoreRequest>>,
}

impl<'a> HistoryIndex<'a> {
    /// `calls` must be sorted by begin time.
    pub fn new(
        history: &History,
        calls: &'a [Call],
        faults: &'a [InstanceFault],
        requests: &'a [Vec<StoreRequest>],
        users: usize,
    ) -> Self {
        let mut index = Self {
            faults,
            requests,
            calls: HashMap::new(),
            starts: vec![Vec::new(); users],
            creates: HashMap::new(),
            ends: HashMap::new(),
            deletes: HashMap::new(),
            writes: vec![Vec::new(); users],
        };
        for call in calls {
            for id in call.id.iter().chain(&call.ended) {
                index.calls.entry(id).or_default().push(call);
            }
            if call.operation == "start" {
                index.starts[call.user].push(call);
            }
        }
        for (instance, requests) in requests.iter().enumerate() {
            for request in requests.iter().filter(|request| request.write) {
                index.add_write(request, history.latest_ms(instance, request.received));
            }
        }
        index.writes.iter_mut().for_each(|writes| writes.sort_by_key(|write| write.received));
        index
    }

    fn add_write(&mut self, request: &'a StoreRequest, latest_ms: i64) {
        for id in &request.ends {
            self.ends.entry(id).or_default().push(request);
        }
        for id in &request.deletes {
            self.deletes.entry(id).or_default().push((request, latest_ms));
        }
        if let Some(id) = &request.creates {
            self.creates.entry(id).or_default().push(request);
        }
        if let Some(user) = request.user {
            self.writes[user].push(request);
        }
    }

    /// The latest expiry of the stream that a client had received by the instant `before`, and the call that returned it.
    pub fn acknowledged(&self, id: &str, before: Instant) -> Option<(i64, &'a Call)> {
        let calls = self.calls_of(id).filter(|call| call.acknowledged_a_lease() && call.id.as_deref() == Some(id));
        let earlier = calls.filter(|call| call.end <= before);
        earlier.filter_map(|call| Some((call.expires_ms?, call))).max_by_key(|(expires, _)| *expires)
    }

    /// Whether a late write of a start recreated this stream's lease between `since` and `until`. A write is
    /// late if the proxy received it before `since`, or if a start of this stream ended after `since` or has an unknown
    /// outcome.
    pub fn was_recreated(&self, id: &str, since: Instant, until: Instant) -> bool {
        let unfinished = || self.starts_with_id(id).any(|call| call.end >= since || call.outcome_unknown());
        let mut creates = self.creates.get(id).into_iter().flatten();
        creates.any(|create| create.applied_between(since, until) && (create.received < since || unfinished()))
    }

    /// An earlier call whose response shows that the stream has ended, independently of clocks.
    pub fn ended_before(&self, id: &str, call: &Call) -> Option<&'a Call> {
        self.calls_of(id).find(|other| {
            let own = other.id.as_deref() == Some(id);
            let stopped = own && matches!(other.operation, "stop" | "evict") && other.status == 204;
            let reported_ended = own && matches!(other.reason.as_str(), "evicted" | "replaced");
            let ended_by_start = other.status == 201 && other.ended.iter().any(|ended| ended == id);
            other.end < call.begin && (stopped || reported_ended || ended_by_start)
        })
    }

    pub fn stop_was_sent(&self, id: &str, call: &Call) -> bool {
        self.calls_of(id).any(|other| other.operation == "stop" && other.begin <= call.end)
    }

    /// Whether a client requested the eviction or replacement of this stream. If the response names a start, that start
    /// must have requested it. Otherwise, there must be an evict call.
    pub fn end_was_requested(&self, id: &str, call: &Call) -> bool {
        let Some(by) = call.ended_by.as_deref() else {
            return self.calls_of(id).any(|other| other.operation == "evict" && other.begin <= call.end);
        };
        let mut named = self.starts_with_id(by).peekable();
        let may_end = |start: &Call| start.begin <= call.end && self.may_end(start, id, &call.reason);
        if named.peek().is_some() {
            named.any(may_end)
        } else {
            let mut starts = self.starts_of(call.user, call.end);
            starts.any(|start| start.id.is_none() && start.outcome_unknown() && may_end(start))
        }
    }

    /// Returns true if a write deleted the lease between the renewal and the call. The deletion counts only if the
    /// lease had expired on the clock of the instance that sent the write, or if another write had marked the stream as
    /// ended. The service may prune ended leases before they expire.
    pub fn was_deleted(&self, id: &str, expires: i64, renewal: &Call, call: &Call) -> bool {
        let in_time = |write: &StoreRequest| write.applied_between(renewal.begin, call.end);
        let ended = || self.ends.get(id).into_iter().flatten().any(|write| in_time(write));
        let mut deletes = self.deletes.get(id).into_iter().flatten().filter(|(write, _)| in_time(write));
        deletes.any(|(_, clock)| *clock >= expires || ended())
    }

    /// Starts of a user that began at `until` or earlier, latest first.
    pub fn starts_of(&self, user: usize, until: Instant) -> impl Iterator<Item = &'a Call> + '_ {
        let begun = self.starts[user].partition_point(|start| start.begin <= until);
        self.starts[user][..begun].iter().rev().copied()
    }

    pub fn may_have_started(&self, id: &str, call: &Call) -> bool {
        self.starts_with_id(id).any(|start| start.user == call.user && start.begin <= call.end)
            || self.starts_of(call.user, call.end).any(|start| start.id.is_none() && start.outcome_unknown())
    }

    /// Requests that the call's instance sent to the store during the call, for the same user.
    pub fn requests_during(&self, call: &Call) -> impl Iterator<Item = &'a StoreRequest> + '_ {
        let requests = &self.requests[call.instance];
        let from = requests.partition_point(|request| request.received < call.begin);
        let (user, end) = (Some(call.user), call.end);
        let during = requests[from..].iter().take_while(move |request| request.received <= end);
        during.filter(move |request| request.user == user)
    }

    /// Whether the store applied more than one write for the call's user during the call, including delayed writes.
    pub fn had_concurrent_writes(&self, call: &Call) -> bool {
        let writes = &self.writes[call.user];
        let from = writes.partition_point(|write| write.received + MAX_CALL_DURATION < call.begin);
        let sent = writes[from..].iter().take_while(|write| write.received <= call.end);
        sent.filter(|write| write.applied_and_completed_after(call.begin)).count() > 1
    }

    /// Periods in which streams certainly held a lease. A period begins with the first response and ends when the
    /// client sends the last successful heartbeat. Streams whose lease was recreated are omitted.
    pub fn held_leases(&self) -> Vec<HeldLease> {
        let held = self.calls.iter().filter_map(|(id, calls)| {
            let own = || calls.iter().filter(|call| call.id.as_deref() == Some(*id) && call.acknowledged_a_lease());
            let from = own().map(|call| call.end).min()?;
            let until = own().filter(|call| call.operation == "heartbeat").map(|call| call.begin).max()?;
            let mut creates = self.creates.get(id).into_iter().flatten();
            let recreated = creates.any(|create| create.completed.is_some_and(|(at, applied)| applied && at > from));
            (!recreated && until > from).then_some(HeldLease { user: calls[0].user, from, until })
        });
        held.collect()
    }

    fn may_end(&self, start: &Call, id: &str, reason: &str) -> bool {
        let replaces = start.body("replaces").as_array().is_some_and(|ids| ids.iter().any(|replaced| replaced == id));
        let device = start.body("deviceId");
        let same_device = !device.is_null() && self.starts_with_id(id).any(|own| own.body("deviceId") == device);
        let requested = match reason {
            "evicted" => start.body("atLimit") == "evictOldest",
            _ => replaces || same_device,
        };
        start.operation == "start" && start.status != 409 && requested
    }

    /// The starts of this stream. Skips the starts of other streams, even if they ended this stream.
    fn starts_with_id(&self, id: &str) -> impl Iterator<Item = &'a Call> {
        let own = self.calls_of(id).filter(|call| call.operation == "start" && call.id.as_deref() == Some(id));
        own.collect::<Vec<_>>().into_iter()
    }

    fn calls_of(&self, id: &str) -> impl Iterator<Item = &'a Call> + '_ {
        self.calls.get(id).into_iter().flatten().copied()
    }
}
