//! The limit, judged by what players were told and when: claims a user had too many only where the times for which the
//! leases were surely held overlap. Sends nothing.

use std::collections::HashMap;

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

/// Most violations that are told one by one.
pub const TOLD: usize = 20;

/// A lease that one player was told it has.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub stream: Uuid,
    /// When the answer to its start had come.
    pub from: Instant,
    /// When the last heartbeat was sent that was answered 200: until then it was held whatever any clock says.
    pub confirmed: Instant,
    /// Until when it is taken to be held without another heartbeat: the promised expiry, counted from when the request
    /// was sent and less the tolerance, or sooner when the player did something that ends it.
    pub promised: Instant,
}

/// What one player saw of its user.
#[derive(Debug, Default)]
pub struct History {
    pub user: usize,
    pub holds: Vec<Hold>,
    /// The highest that an answer told.
    pub limit: Option<u32>,
    /// Starts that were denied, or for which the service ended another player's stream.
    pub refusals: u64,
    /// When the first start was sent whose outcome is unknown: where starts evict, any lease of the user may be gone since.
    pub unknown_start: Option<Instant>,
    /// Streams that a start's answer says it ended, and when that start was sent.
    pub ended: Vec<(Uuid, Instant)>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub violations: u64,
    pub told: Vec<Violation>,
    pub users: usize,
    /// Users of whom no answer told a limit.
    pub users_without_limit: usize,
    /// Users of whom a start was denied, or ended another player's stream: only there was the limit tested.
    pub users_at_limit: usize,
    pub leases: usize,
    pub most_held: usize,
}

/// More leases than the limit, from one moment of the run to another.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub user_name: String,
    pub limit: u32,
    pub held: usize,
    pub from_ms: u128,
    pub until_ms: u128,
    pub streams: Vec<Uuid>,
}

/// `limit` goes before what the service told. `began` is where the times of violations count from.
pub fn judge(histories: Vec<History>, limit: Option<u32>, began: Instant, name: impl Fn(usize) -> String) -> Verdict {
    let mut users: HashMap<usize, History> = HashMap::new();
    for mut history in histories {
        let user = users.entry(history.user).or_insert_with(|| History { user: history.user, ..History::default() });
        user.holds.append(&mut history.holds);
        user.ended.append(&mut history.ended);
        user.limit = user.limit.max(history.limit);
        user.refusals += history.refusals;
        user.unknown_start = earlier(user.unknown_start, history.unknown_start);
    }
    let mut verdict = Verdict { users: users.len(), ..Verdict::default() };
    let mut users: Vec<History> = users.into_values().collect();
    users.sort_unstable_by_key(|user| user.user);
    for user in users {
        verdict.leases += user.holds.len();
        let limit = limit.or(user.limit);
        let (most, violations) = overlaps(&user, limit.map_or(usize::MAX, |limit| limit as usize));
        verdict.most_held = verdict.most_held.max(most);
        verdict.users_without_limit += usize::from(limit.is_none() && !user.holds.is_empty());
        verdict.users_at_limit += usize::from(user.refusals > 0);
        for (from, until, streams) in violations {
            verdict.violations += 1;
            if verdict.told.len() < TOLD {
                verdict.told.push(Violation {
                    user_name: name(user.user),
                    limit: limit.unwrap_or_default(),
                    held: streams.len(),
                    from_ms: (from - began).as_millis(),
                    until_ms: (until - began).as_millis(),
                    streams,
                });
            }
        }
    }
    verdict
}

/// The most leases surely held at once, and every time at which they became more than the limit.
fn overlaps(user: &History, limit: usize) -> (usize, Vec<(Instant, Instant, Vec<Uuid>)>) {
    let mut ended: HashMap<Uuid, Instant> = HashMap::new();
    for (stream, sent) in &user.ended {
        ended.entry(*stream).and_modify(|known| *known = (*known).min(*sent)).or_insert(*sent);
    }
    let until = |hold: &Hold| {
        let ends = [user.unknown_start, ended.get(&hold.stream).copied()].into_iter().flatten();
        ends.fold(hold.promised, Instant::min).max(hold.confirmed)
    };
    let mut holds: Vec<(Instant, Instant, Uuid)> =
        user.holds.iter().map(|hold| (hold.from, until(hold), hold.stream)).collect();
    holds.retain(|(from, until, _)| from < until);
    holds.sort_unstable();
    let (mut most, mut violations) = (0, Vec::new());
    let mut held: Vec<(Instant, Uuid)> = Vec::new();
    for (from, until, stream) in holds {
        held.retain(|(until, _)| *until > from);
        held.push((until, stream));
        most = most.max(held.len());
        if held.len() > limit {
            let first_end = held.iter().map(|(until, _)| *until).min().unwrap_or(from);
            violations.push((from, first_end, held.iter().map(|(_, stream)| *stream).collect()));
        }
    }
    (most, violations)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
