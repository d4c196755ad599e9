//! The starts to which a rule applied, and what other maximums of the rule would deny.

use super::history::History;
use super::model::RuleUse;
use super::record::StartResult;
use super::what_if::{UserWhatIf, WhatIfTally};

#[derive(Default)]
pub(super) struct RuleTally {
    sums: RuleUse,
    pub what_if: WhatIfTally,
}

impl RuleTally {
    pub fn add_user(&mut self, history: &History<'_>, name: &str, what_if: &UserWhatIf) {
        self.what_if.add_user(what_if);
        let (mut applied, mut exceeded) = (false, false);
        for (_, start) in history.starts().filter(|(_, start)| start.result != StartResult::Replayed) {
            if !start.rules.iter().any(|rule| rule.name == name) {
                continue;
            }
            let exceeds = start.exceeded.contains(&Some(name));
            self.sums.starts += 1;
            self.sums.denied += u64::from(exceeds && start.result == StartResult::Denied);
            self.sums.over_limit += u64::from(exceeds && start.result == StartResult::OverLimit);
            applied = true;
            exceeded |= exceeds;
        }
        self.sums.users += u64::from(applied);
        self.sums.users_exceeding += u64::from(exceeded);
    }

    pub fn finish(self, rule: String) -> RuleUse {
        RuleUse { rule, ..self.sums }
    }
}
