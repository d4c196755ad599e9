//! Logs denied starts, and starts over a limit in observe mode: at most one line of each kind per user and minute.

use std::time::Duration;

use tracing::info;

use super::log_throttle::LogThrottle;
use crate::domain::admission::{Denial, OverLimit};
use crate::domain::names::UserName;
use crate::domain::rules::RuleName;

/// The limiters of all workers share it, so that its bounds apply to the process.
pub struct StartLog {
    denied: LogThrottle<UserName>,
    over_limit: LogThrottle<UserName>,
}

/// A client can repeat a denied start in a loop.
const INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of users that each throttle tracks. Their entries take at most 2 MB.
const MAX_USERS: usize = 4096;

impl Default for StartLog {
    fn default() -> Self {
        let throttle = || LogThrottle::new(INTERVAL, MAX_USERS);
        Self { denied: throttle(), over_limit: throttle() }
    }
}

impl StartLog {
    /// `now` is the time on a monotonic clock.
    pub(crate) fn denied(&self, user: &UserName, denial: &Denial, now: Duration) {
        if let Some(suppressed) = self.denied.allow(user, now) {
            let (limit, count) = (denial.limit.get(), denial.streams.len());
            let rule = denial.rule.as_ref().map(RuleName::as_str);
            info!(event = "start_denied", limit, count, rule, suppressed, "start denied");
        }
    }

    /// `exceeded` is the first limit that the start exceeds. It would have denied the start.
    pub(crate) fn over_limit(&self, user: &UserName, exceeded: &OverLimit, now: Duration) {
        let OverLimit { rule, limit, count } = exceeded;
        if let Some(suppressed) = self.over_limit.allow(user, now) {
            let (limit, rule) = (limit.get(), rule.as_ref().map(RuleName::as_str));
            info!(event = "start_over_limit", limit, count, rule, suppressed, "start over a limit in observe mode");
        }
    }
}
