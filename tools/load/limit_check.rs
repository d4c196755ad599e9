//! Checks the limit with the responses that the players received. A violation is a period in which a user certainly held more
//! leases than the limit allows. If the outcome of a request is unknown, the check assumes an outcome without a violation.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

pub const MAX_REPORTED_VIOLATIONS: usize = 20;

/// A lease, as observed by its player.
#[derive(Clone, Copy, Debug)]
pub struct ObservedLease {
    pub stream_id: Uuid,
    /// Time at which the response to the start arrived.
    pub from: Instant,
    /// Time at which the last heartbeat with a 200 response was sent. The lease was certainly held until then, under any clock skew.
    pub confirmed_until: Instant,
    /// Time at which the lease expires without another heartbeat: `expiresInSeconds` after the request was sent, minus the
    /// tolerance. Earlier if the player ended the lease or found it inactive.
    pub expires: Instant,
}

/// The observations of one player about its user.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    pub user: usize,
    pub leases: Vec<ObservedLease>,
    /// The highest limit in any response.
    pub limit: Option<u32>,
    /// Starts that were denied, or that ended a stream of another player.
    pub starts_at_limit: u64,
    /// Time at which the first start with an unknown outcome was sent. This start may have evicted any lease of the user.
    pub unknown_start: Option<Instant>,
    /// Streams that a start ended according to its response, each with the time at which this start was sent.
    pub ended: Vec<(Uuid, Instant)>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitCheck {
    pub violations: u64,
    /// The first violations, at most [`MAX_REPORTED_VIOLATIONS`].
    pub reported: Vec<Violation>,
    pub users: usize,
    /// Users that were not checked, because no response contained a limit.
    pub users_without_limit: usize,
    /// Users with at least one start at the limit ([`Observations::starts_at_limit`]). The limit was tested only for these users.
    pub users_at_limit: usize,
    pub leases: usize,
    pub max_held: usize,
}

/// Times are relative to the start of the run.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub user_name: String,
    pub limit: u32,
    pub held: usize,
    pub from_ms: u128,
    pub until_ms: u128,
    pub stream_ids: Vec<Uuid>,
}

/// Checks all users. `limit` overrides the limits in the responses.
pub fn check_limit(
    observations: Vec<Observations>,
    limit: Option<u32>,
    start: Instant,
    user_name: impl Fn(usize) -> String,
) -> LimitCheck {
    let mut users: BTreeMap<usize, Observations> = BTreeMap::new();
    for mut player in observations {
        let user = users.entry(player.user).or_default();
        user.leases.append(&mut player.leases);
        user.ended.append(&mut player.ended);
        user.limit = user.limit.max(player.limit);
        user.starts_at_limit += player.starts_at_limit;
        user.unknown_start = user.unknown_start.into_iter().chain(player.unknown_start).min();
    }
    let mut check = LimitCheck { users: users.len(), ..LimitCheck::default() };
    for (number, user) in users {
        check.leases += user.leases.len();
        let limit = limit.or(user.limit);
        let (max_held, violations) = violations(&user, limit.map_or(usize::MAX, |limit| limit as usize));
        check.max_held = check.max_held.max(max_held);
        check.users_without_limit += usize::from(limit.is_none() && !user.leases.is_empty());
        check.users_at_limit += usize::from(user.starts_at_limit > 0);
        for (from, until, stream_ids) in violations {
            check.violations += 1;
            if check.reported.len() < MAX_REPORTED_VIOLATIONS {
                check.reported.push(Violation {
                    user_name: user_name(number),
                    limit: limit.unwrap_or_default(),
                    held: stream_ids.len(),
                    from_ms: (from - start).as_millis(),
                    until_ms: (until - start).as_millis(),
                    stream_ids,
                });
            }
        }
    }
    check
}

/// Returns the highest number of leases held at once, and each period in which more than `limit` leases were held.
fn violations(user: &Observations, limit: usize) -> (usize, Vec<(Instant, Instant, Vec<Uuid>)>) {
    let mut ended: HashMap<Uuid, Instant> = HashMap::new();
    for (stream_id, sent) in &user.ended {
        ended.entry(*stream_id).and_modify(|first| *first = (*first).min(*sent)).or_insert(*sent);
    }
    let held_until = |lease: &ObservedLease| {
        let ends = [user.unknown_start, ended.get(&lease.stream_id).copied()].into_iter().flatten();
        ends.fold(lease.expires, Instant::min).max(lease.confirmed_until)
    };
    let mut leases: Vec<(Instant, Instant, Uuid)> =
        user.leases.iter().map(|lease| (lease.from, held_until(lease), lease.stream_id)).collect();
    leases.retain(|(from, until, _)| from < until);
    leases.sort_unstable();
    let (mut max_held, mut violations) = (0, Vec::new());
    let mut held: Vec<(Instant, Uuid)> = Vec::new();
    for (from, until, stream_id) in leases {
        held.retain(|(until, _)| *until > from);
        held.push((until, stream_id));
        max_held = max_held.max(held.len());
        if held.len() > limit {
            let first_end = held.iter().map(|(until, _)| *until).min().unwrap_or(from);
            violations.push((from, first_end, held.iter().map(|(_, stream_id)| *stream_id).collect()));
        }
    }
    (max_held, violations)
}
