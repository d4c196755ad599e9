//! Sums of what limits of 1 to 6 would deny, for all users.

use super::history::History;
use super::model::{WhatIfCase, percent};
use super::record::Start;
use super::replay::{Replayed, Script, is_new};
use crate::domain::lease::StreamLimit;

/// The sums for one limit of the service: the limit of users, or the maximum of a rule.
#[derive(Clone, Default)]
pub(super) struct WhatIfTally {
    starts: u64,
    users: u64,
    played_ms: i64,
    by_limit: [Sums; MAX_LIMIT],
}

/// The differences to a replay without a limit.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// Replayed starts whose first attempt is denied are also decided.
    more_starts: i64,
    denied: u64,
    evicted: u64,
    users_hit: u64,
    lost_ms: i64,
}

/// The results for one user.
#[derive(Default)]
pub(super) struct UserWhatIf {
    starts: u64,
    played_ms: i64,
    by_limit: [Sums; MAX_LIMIT],
}

/// The report evaluates limits from 1 to this one.
pub(super) const MAX_LIMIT: usize = 6;

impl UserWhatIf {
    /// Replays the starts of one user that `includes` accepts. With `keep_own_limits`, starts keep a limit from the user or the token.
    /// If `may_exceed` is false, no start exceeds a limit of 1, and nothing needs to be replayed.
    pub fn add(
        &mut self,
        history: &History<'_>,
        keep_own_limits: bool,
        may_exceed: bool,
        includes: impl Fn(&Start<'_>) -> bool,
    ) {
        let unlimited = unlimited(history, &includes);
        self.starts += unlimited.starts;
        self.played_ms += unlimited.played_ms;
        if !may_exceed {
            return;
        }
        let mut script = Script::new(history, keep_own_limits, includes);
        for (sums, limit) in self.by_limit.iter_mut().zip(1..) {
            let replayed = script.replay(StreamLimit::capped(limit));
            sums.more_starts += replayed.starts as i64 - unlimited.starts as i64;
            sums.denied += replayed.denied;
            sums.evicted += replayed.evicted;
            sums.lost_ms += unlimited.played_ms - replayed.played_ms;
            // Without a denial, the replay is the one without a limit, and a higher limit denies nothing either.
            if replayed.denied + replayed.evicted == 0 {
                break;
            }
        }
    }
}

impl WhatIfTally {
    pub fn add_user(&mut self, user: &UserWhatIf) {
        self.users += u64::from(user.starts > 0);
        self.starts += user.starts;
        self.played_ms += user.played_ms;
        for (sums, of_user) in self.by_limit.iter_mut().zip(&user.by_limit) {
            sums.more_starts += of_user.more_starts;
            sums.denied += of_user.denied;
            sums.evicted += of_user.evicted;
            sums.users_hit += u64::from(of_user.denied + of_user.evicted > 0);
            sums.lost_ms += of_user.lost_ms;
        }
    }

    pub fn finish(&self) -> Vec<WhatIfCase> {
        let seconds = |ms: i64| u64::try_from(ms / 1000).unwrap_or(0);
        let case = |(sums, limit): (&Sums, u8)| {
            let starts = self.starts.saturating_add_signed(sums.more_starts);
            WhatIfCase {
                limit,
                starts,
                denied: sums.denied,
                denied_percent: percent(sums.denied, starts),
                evicted: sums.evicted,
                users: self.users,
                users_hit: sums.users_hit,
                users_hit_percent: percent(sums.users_hit, self.users),
                lost_watching_seconds: seconds(sums.lost_ms),
                lost_watching_percent: percent(seconds(sums.lost_ms), seconds(self.played_ms)),
            }
        };
        self.by_limit.iter().zip(1..).map(case).collect()
    }
}

/// The result of a replay that denies nothing.
fn unlimited(history: &History<'_>, includes: impl Fn(&Start<'_>) -> bool) -> Replayed {
    let mut replayed = Replayed::default();
    for (index, start) in history.starts().filter(|(_, start)| includes(start)) {
        if is_new(history, index, start) {
            replayed.starts += 1;
            replayed.played_ms +=
                history.session_of[index].map_or(0, |session| history.sessions[session].played_ms());
        }
    }
    replayed
}
