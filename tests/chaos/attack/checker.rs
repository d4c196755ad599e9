//! Goes through the history: every answer that a client was given must be explainable by what came before it or at the
//! same time. Knows neither the service's code nor the table; of the traffic to the store it uses what was hurt,
//! when a start's write was carried out, and whose leases were deleted when.
//!
//! Two things make an answer hard to judge, and are excused exactly. Clocks: each call has the range that its instance's
//! clock can have shown, and a lease may be taken when the taker's range reaches its expiry. Late writes: a start's write
//! that was carried out after its stream was ended brings the stream back; so where the traffic shows one for this very id,
//! that was under way when the end was asked for, nothing is concluded from the end.

use std::collections::HashSet;
use std::time::Duration;

use super::evidence::Evidence;
use super::history::{Call, Kind};
use super::shift::FURTHEST_MS;
use crate::api::LIMIT;
use crate::process::{LEASE_S, RETENTION_S};

const LEASE_MS: i64 = LEASE_S as i64 * 1000;
/// How long after an instance was killed its clients may still find broken connections, and after a freeze its timers
/// may still have run out.
const AFTERMATH: Duration = Duration::from_secs(1);

type Verdict = Result<(), String>;

pub fn judge(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    match (call.verb, call.status) {
        (_, 0) => no_answer(call, evidence),
        (_, 503) => unavailable(call, evidence),
        ("start", 201) => started(call).and_then(|()| lives(call, evidence)),
        ("start", 200) => same_id(call).and_then(|()| lives(call, evidence)),
        ("heartbeat", 200) => renewed(call).and_then(|()| lives(call, evidence)),
        ("start", 409) => denied(call, evidence),
        ("start" | "heartbeat", 404 | 410) => over(call, evidence),
        ("list", 200) => listed(call, evidence),
        _ => Ok(()),
    }
}

fn no_answer(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    let mut kills = evidence.spells.iter().filter(|spell| spell.kind == Kind::Killed);
    let by_a_kill = kills.any(|kill| kill.meets(call, AFTERMATH));
    must(call.impatient || by_a_kill, || "no answer from an instance that was not killed".to_owned())
}

/// Only what hurt this instance, or the traffic for this user, explains a failure.
fn unavailable(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    let contention = call.label == crate::board::NOT_APPLIED;
    let spell = evidence.spells.iter().any(|spell| spell.meets(call, AFTERMATH));
    let mut during = evidence.traffic_of(call);
    let explained =
        if contention { evidence.others_changed(call) } else { spell || during.any(|request| request.was_hurt()) };
    must(explained, || "nothing was wrong on its way to the store".to_owned())
}

fn started(call: &Call) -> Verdict {
    same_id(call)?;
    let (Some(started), Some(expires)) = (call.started_ms, call.expires_ms) else {
        return Err("no times".to_owned());
    };
    let (least, most) = call.clock_ms;
    must((least..=most).contains(&started), || format!("started at {started}: not a time of its instance's clock"))?;
    must(expires == started + LEASE_MS, || "a lease of another length".to_owned())
}

/// One key, one id.
fn same_id(call: &Call) -> Verdict {
    must(call.answered_id == call.id, || format!("the key means {:?}", call.id))
}

fn renewed(call: &Call) -> Verdict {
    must(call.answered_id == call.id, || "another stream's heartbeat".to_owned())?;
    must(call.expires_ms >= Some(call.clock_ms.0 + LEASE_MS), || "renewed for less than a lease".to_owned())
}

fn lives(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    let (Some(id), Some(expires)) = (&call.id, call.expires_ms) else { return Err("no id or no time".to_owned()) };
    may_live(call, id, expires, evidence)
}

/// Whether a stream that is said to live until `expires` can have been a live one.
fn may_live(call: &Call, id: &str, expires: i64, evidence: &Evidence<'_>) -> Verdict {
    must(expires > call.clock_ms.0, || format!("{id} had run out"))?;
    let latest = call.end_ms + FURTHEST_MS + LEASE_MS;
    must(expires <= latest, || format!("{id} lives longer than any clock allows"))?;
    if let Some(end) = evidence.ended_before(id, call) {
        must(evidence.came_back(id, end.begin, call.end), || format!("{id} lives, and was ended by {end}"))?;
    }
    if let Some((acknowledged, by)) = evidence.acknowledged(id, call.begin) {
        let right = expires >= acknowledged || evidence.came_back(id, by.begin, call.end);
        must(right, || format!("{id} lived until {acknowledged} by: {by}"))?;
    }
    Ok(())
}

fn listed(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    let ids: HashSet<&str> = call.listed.iter().map(|(id, _)| id.as_str()).collect();
    must(ids.len() == call.listed.len() && ids.len() <= LIMIT, || "too many, or one twice".to_owned())?;
    for (id, expires) in &call.listed {
        must(evidence.may_have_started(id, call), || format!("{id} was never started"))?;
        may_live(call, id, *expires, evidence)?;
    }
    Ok(())
}

/// As many others as the limit may have been held, and the own stream was not.
fn denied(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    must(call.listed.len() == LIMIT, || "denied by fewer than the limit".to_owned())?;
    listed(call, evidence)?;
    let Some(id) = &call.id else { return Ok(()) };
    must(call.listed.iter().all(|(listed, _)| listed != id), || "denied by itself".to_owned())?;
    missing_or_expired(call, id, evidence)
}

fn over(call: &Call, evidence: &Evidence<'_>) -> Verdict {
    let Some(id) = &call.id else {
        // Its own stream was ended before it could be told: then the first answer from the store was lost.
        let lost = evidence.traffic_of(call).any(|request| request.was_hurt() && request.puts.is_some());
        return must(lost && call.verb == "start", || "a start that was over, and nothing was lost".to_owned());
    };
    match call.reason.as_str() {
        "evicted" | "replaced" => {
            must(evidence.pushed_out(id, call), || format!("nobody can have {} it", call.reason))
        }
        "expired" => {
            let Some((expires, by)) = evidence.acknowledged(id, call.begin) else { return Ok(()) };
            let right = call.clock_ms.1 >= expires || evidence.came_back(id, by.begin, call.end);
            must(right, || format!("expired {} ms before its time, by: {by}", expires - call.clock_ms.1))
        }
        _ => missing_or_expired(call, id, evidence),
    }
}

/// Why a lease that was acknowledged may be gone: stopped, deleted by a start on whose clock it had run out, forgotten
/// after its end, or deleted by TTL. That counts from the end where somebody ended it, by the clock of the one behind.
fn missing_or_expired(call: &Call, id: &str, evidence: &Evidence<'_>) -> Verdict {
    let Some((expires, by)) = evidence.acknowledged(id, call.begin) else { return Ok(()) };
    let told = i64::try_from((by.end - by.begin).as_millis()).unwrap_or(i64::MAX);
    let explained = call.clock_ms.1 >= expires && call.status == 409
        || evidence.stop_was_sent(id, call)
        || evidence.was_deleted(id, expires, by, call)
        || call.end_ms >= by.end_ms - told + RETENTION_S as i64 * 1000 - FURTHEST_MS;
    must(explained, || format!("gone {} ms before its time, by: {by}", expires - call.clock_ms.1))
}

fn must(right: bool, text: impl FnOnce() -> String) -> Verdict {
    if right { Ok(()) } else { Err(text()) }
}
