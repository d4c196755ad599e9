//! Checks the limit from the responses that the players received. A violation is a moment at which a user certainly held more
//! leases than the limit allows. Where the outcome of a request is unknown, the check assumes that the service was right.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

pub const MAX_REPORTED_VIOLATIONS: usize = 20;

/// A lease as its player observed it.
#[derive(Clone, Copy, Debug)]
pub struct ObservedLease {
    pub stream_id: Uuid,
    /// When the response to the start arrived.
    pub from: Instant,
    /// When the last heartbeat with a 200 response was sent. The lease was certainly held until then, whatever the clocks show.
    pub confirmed_until: Instant,
    /// When the lease expires without another heartbeat: `expiresInSeconds` from when the request was sent, less the tolerance.
    /// Earlier if the player did something that ends the lease.
    pub expires: Instant,
}

/// What one player observed of its user.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    pub user: usize,
    pub leases: Vec<ObservedLease>,
    /// The highest limit in a response.
    pub limit: Option<u32>,
    /// Starts that were denied, or that ended a stream of another player.
    pub starts_at_limit: u64,
    /// When the first start with an unknown outcome was sent. It may have evicted any lease of the user.
    pub unknown_start: Option<Instant>,
    /// Streams that a start ended according to its response, and when that start was sent.
    pub ended: Vec<(Uuid, Instant)>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitCheck {
    pub violations: u64,
    /// At most [`MAX_REPORTED_VIOLATIONS`].
    pub reported: Vec<Violation>,
    pub users: usize,
    /// Users that were not checked, because no response contained a limit.
    pub users_without_limit: usize,
    /// Users with at least one of [`Observations::starts_at_limit`]. The limit was tested only for them.
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

/// The most leases held at once, and each period with more than `limit`.
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
