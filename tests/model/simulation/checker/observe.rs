//! Checks that the response to a start reports exactly the limits in observe mode that the start exceeds.

use stream_manager::domain::admission::{OverLimit, Started};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::names::StreamId;
use stream_manager::domain::rules::LimitMode;
use stream_manager::limiter::StartOptions;

use super::responses::ResponseCheck;
use super::rules::{counts, is_enforced, labels_of, texts};
use super::violation::{Violation, ViolationKind};
use crate::simulation::state::UserState;

impl ResponseCheck<'_> {
    pub fn check_over_limit(&self, started: &Started, options: &StartOptions) -> Result<(), Violation> {
        let own = started.lease.stream_id;
        let is_reported = |old: &UserState, new: &UserState| {
            let starts = old.lease(own) != Some(&started.lease) && new.lease(own) == Some(&started.lease);
            starts && self.exceeded(new, own, options) == started.over_limit
        };
        let details = || format!("no write of this start exceeded exactly {:?}", started.over_limit);
        self.in_some_write(is_reported, ViolationKind::WrongReport, details)
    }

    /// What the start of `own` exceeds. `state` is the user's state after its write: the other members are the streams that the start
    /// has counted and kept.
    fn exceeded(&self, state: &UserState, own: StreamId, options: &StartOptions) -> Vec<OverLimit> {
        let others: Vec<&Labels> =
            state.members.iter().filter(|id| **id != own).filter_map(|id| self.labels(*id)).collect();
        let labels = labels_of(options);
        let mut exceeded = Vec::new();
        for rule in self.policy.rules.iter().filter(|rule| !is_enforced(rule) && counts(rule, &labels, &labels)) {
            let count = others.iter().filter(|other| counts(rule, &labels, &texts(other))).count();
            if count >= rule.max.get().into() {
                exceeded.push(OverLimit { rule: Some(rule.name.clone()), limit: rule.max, count });
            }
        }
        let limit = state.limit(options.token_limit, self.policy.default_limit);
        if self.policy.limit_mode == LimitMode::Observe && others.len() >= limit.get().into() {
            exceeded.push(OverLimit { rule: None, limit, count: others.len() });
        }
        exceeded
    }

    /// The labels of a stream. TTL may have deleted its lease between the read and the write of the start.
    fn labels(&self, id: StreamId) -> Option<&Labels> {
        self.states.iter().find_map(|state| state.lease(id)).map(|lease| &lease.labels)
    }
}
