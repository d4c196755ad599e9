//! Checks a response against the recorded history: earlier or concurrent events must explain it. The checker does not
//! run the service's code or read the table. From the recorded store requests, it uses the faults, the times of the
//! writes, and the leases that the writes create, end or delete.
//!
//! Because of two effects, more than one response can be correct. The checker allows for exactly these effects:
//!
//! - Clock skew: the checker knows only a range for the clock time of each call. A call may treat a lease as expired if
//!   this range reaches the lease's expiry.
//! - Delayed writes: the store may apply a start's write after the stream has ended, which recreates the lease. If such
//!   a write was in flight when the stream ended, the checker accepts that the stream is live again.

use std::collections::HashSet;
use std::time::Duration;

use super::clock_skew::MAX_SKEW_MS;
use super::history::{Call, FaultKind};
use super::history_index::HistoryIndex;
use crate::api::{DENIED_BY_RULE, LIMIT, UHD_LIMIT};
use crate::process::{LEASE_S, RETENTION_S};
use crate::recorder::CONTENTION;

const LEASE_MS: i64 = LEASE_S as i64 * 1000;
/// Time after a fault during which requests may still fail. Clients may reuse connections that a kill broke, and timers
/// of a frozen instance may have expired.
const AFTERMATH: Duration = Duration::from_secs(1);

type CheckResult = Result<(), String>;

pub fn check(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    match (call.operation, call.status) {
        (_, 0) => check_no_response(call, index),
        (_, 503) => check_unavailable(call, index),
        ("start", 201) => check_started(call).and_then(|()| check_lease(call, index)),
        ("start", 200) => check_id(call).and_then(|()| check_lease(call, index)),
        ("heartbeat", 200) => check_renewed(call).and_then(|()| check_lease(call, index)),
        ("start", 409) => check_denied(call, index),
        ("start" | "heartbeat", 404 | 410) => check_ended(call, index),
        ("list", 200) => check_listed(call, index),
        _ => Ok(()),
    }
}

fn check_no_response(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    let mut kills = index.faults.iter().filter(|fault| fault.kind == FaultKind::Killed);
    let killed = kills.any(|kill| kill.affects(call, AFTERMATH));
    require(call.short_timeout || killed, || "no response from an instance that was not killed".to_owned())
}

/// A 503 is allowed only if a fault hit this instance or its store requests for this user. A 503 for contention is allowed
/// only during concurrent writes.
fn check_unavailable(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    let explained = if call.label == CONTENTION {
        index.had_concurrent_writes(call)
    } else {
        index.faults.iter().any(|fault| fault.affects(call, AFTERMATH))
            || index.requests_during(call).any(|request| request.was_hit_by_fault())
    };
    require(explained, || "503 without a fault or contention".to_owned())
}

fn check_started(call: &Call) -> CheckResult {
    check_id(call)?;
    let (Some(started), Some(expires)) = (call.started_ms, call.expires_ms) else {
        return Err("start without times".to_owned());
    };
    let (min, max) = call.clock_ms;
    require((min..=max).contains(&started), || {
        format!("startedAt {started} is outside of the instance's clock range")
    })?;
    require(expires == started + LEASE_MS, || "the lease does not have the configured duration".to_owned())
}

/// The same idempotency key must always return the same id.
fn check_id(call: &Call) -> CheckResult {
    require(call.response_id == call.id, || format!("the id for this idempotency key is {:?}", call.id))
}

fn check_renewed(call: &Call) -> CheckResult {
    require(call.response_id == call.id, || "heartbeat returned another id".to_owned())?;
    let min = call.clock_ms.0 + LEASE_MS;
    require(call.expires_ms >= Some(min), || "the lease was renewed for less than its duration".to_owned())
}

fn check_lease(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    let (Some(id), Some(expires)) = (&call.id, call.expires_ms) else {
        return Err("no id or no expiry".to_owned());
    };
    check_live(call, id, expires, index)
}

/// Checks that the stream can be live until `expires`, which is the expiry in the response.
fn check_live(call: &Call, id: &str, expires: i64, index: &HistoryIndex<'_>) -> CheckResult {
    require(expires > call.clock_ms.0, || format!("{id} had already expired"))?;
    let latest = call.end_ms + MAX_SKEW_MS + LEASE_MS;
    require(expires <= latest, || format!("{id} expires later than any instance's clock allows"))?;
    if let Some(end) = index.ended_before(id, call) {
        let recreated = index.was_recreated(id, end.begin, call.end);
        require(recreated, || format!("{id} is live, but was ended by: {end}"))?;
    }
    if let Some((acknowledged, by)) = index.acknowledged(id, call.begin) {
        let possible = expires >= acknowledged || index.was_recreated(id, by.begin, call.end);
        require(possible, || format!("{id} expires before {acknowledged}, which was acknowledged by: {by}"))?;
    }
    Ok(())
}

fn check_listed(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    let ids: HashSet<&str> = call.listed.iter().map(|(id, _)| id.as_str()).collect();
    require(ids.len() == call.listed.len() && ids.len() <= LIMIT, || "too many streams, or a duplicate".to_owned())?;
    for (id, expires) in &call.listed {
        require(index.may_have_started(id, call), || format!("{id} was never started"))?;
        check_live(call, id, *expires, index)?;
    }
    Ok(())
}

/// A denial requires that the number of other live streams equals the limit, or that of the rule. The start's own stream must not be
/// live.
fn check_denied(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    let limit = if call.label == DENIED_BY_RULE { UHD_LIMIT } else { LIMIT };
    require(call.listed.len() == limit, || "denied with fewer streams than the limit".to_owned())?;
    check_listed(call, index)?;
    let Some(id) = &call.id else { return Ok(()) };
    require(call.listed.iter().all(|(listed, _)| listed != id), || "denied because of its own stream".to_owned())?;
    check_missing_or_expired(call, id, index)
}

fn check_ended(call: &Call, index: &HistoryIndex<'_>) -> CheckResult {
    let Some(id) = &call.id else {
        // A start without a key gets this response in one case only: a fault hit its request to the store, and the stream
        // ended before the service retried that request.
        let retried =
            index.requests_during(call).any(|request| request.was_hit_by_fault() && request.creates.is_some());
        let explained = retried && call.operation == "start";
        return require(explained, || {
            "the started stream had ended, although no fault hit its request to the store".to_owned()
        });
    };
    match call.reason.as_str() {
        "evicted" | "replaced" => {
            require(index.end_was_requested(id, call), || format!("{}, but no client requested it", call.reason))
        }
        "expired" => {
            let Some((expires, by)) = index.acknowledged(id, call.begin) else { return Ok(()) };
            let explained = call.clock_ms.1 >= expires || index.was_recreated(id, by.begin, call.end);
            require(explained, || format!("expired {} ms too early, after: {by}", expires - call.clock_ms.1))
        }
        _ => check_missing_or_expired(call, id, index),
    }
}

/// An acknowledged lease may be missing for four reasons: a stop deleted it; a start deleted it because it had expired
/// on the clock of the start's instance; it was pruned, because the user had too many ended leases; or TTL deleted it.
/// The TTL period of an ended lease begins when its stream ends, on the clock of the instance that ended the stream.
fn check_missing_or_expired(call: &Call, id: &str, index: &HistoryIndex<'_>) -> CheckResult {
    let Some((expires, by)) = index.acknowledged(id, call.begin) else { return Ok(()) };
    let renewal_took_ms = i64::try_from((by.end - by.begin).as_millis()).unwrap_or(i64::MAX);
    let ttl_ms = by.end_ms - renewal_took_ms + RETENTION_S as i64 * 1000 - MAX_SKEW_MS;
    let explained = call.clock_ms.1 >= expires && call.status == 409
        || index.stop_was_sent(id, call)
        || index.was_deleted(id, expires, by, call)
        || call.end_ms >= ttl_ms;
    require(explained, || format!("missing {} ms before its expiry, after: {by}", expires - call.clock_ms.1))
}

fn require(condition: bool, text: impl FnOnce() -> String) -> CheckResult {
    if condition { Ok(()) } else { Err(text()) }
}
