//! Counters with one series per rule. The number of rules is bounded by [`crate::domain::rules::MAX_RULES`].

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::per_worker::Counter;
use crate::domain::rules::RuleName;

#[derive(Default)]
pub(crate) struct RuleCounters {
    /// Starts that a rule denied.
    denials: Family<RuleLabels, Counter>,
    /// Starts that exceeded a rule in observe mode. A start can exceed several rules.
    over_limit: Family<RuleLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RuleLabels {
    rule: String,
}

impl RuleCounters {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        registry.register("rule_denials", "Starts denied by a rule, by rule", counters.denials.clone());
        let help = "Starts that exceeded a rule in observe mode, by rule";
        registry.register("rule_over_limit", help, counters.over_limit.clone());
        counters
    }

    /// Creates the series of these rules.
    pub(crate) fn create<'a>(&self, rules: impl Iterator<Item = &'a RuleName>) {
        for rule in rules {
            for counters in [&self.denials, &self.over_limit] {
                _ = counters.get_or_create(&RuleLabels::of(rule));
            }
        }
    }

    pub(crate) fn denied(&self, rule: &RuleName) {
        self.denials.get_or_create(&RuleLabels::of(rule)).inc();
    }

    pub(crate) fn exceeded(&self, rule: &RuleName) {
        self.over_limit.get_or_create(&RuleLabels::of(rule)).inc();
    }
}

impl RuleLabels {
    fn of(rule: &RuleName) -> Self {
        Self { rule: rule.to_string() }
    }
}
