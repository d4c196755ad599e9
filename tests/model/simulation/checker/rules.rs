//! Checks the rules: no write leaves more renewable leases than a rule allows, evictions follow the order of the rules, and the
//! response to a denied start names the rule that was exceeded. Labels are compared as plain texts, without production code.

use std::collections::{BTreeMap, BTreeSet};

use stream_manager::domain::admission::{AtLimit, Denial};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{EndReason, Lease, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::domain::rules::{LimitMode, Rule};
use stream_manager::limiter::StartOptions;

use super::responses::ResponseCheck;
use super::violation::{Violation, ViolationKind};
use super::writes::{WriteCheck, replaces};
use crate::simulation::state::{ShortId, UserState, short_ids};

pub type Texts = BTreeMap<String, String>;

/// The maximum number of combinations of versions that the check of an eviction tries.
const MAX_COMBINATIONS: usize = 1024;

pub fn texts(labels: &Labels) -> Texts {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// The labels of a stream that is started with these options. Those in the token override those in the body.
pub fn labels_of(options: &StartOptions) -> Texts {
    let mut labels = texts(&options.labels);
    labels.extend(texts(&options.token_labels));
    labels
}

/// Whether the rule limits the start of a stream with the labels `own`, and counts a stream with the labels `other`.
pub fn counts(rule: &Rule, own: &Texts, other: &Texts) -> bool {
    let has = |labels: &Texts| texts(&rule.labels).iter().all(|(name, value)| labels.get(name) == Some(value));
    let value = |labels: &Texts| rule.per.as_ref().map(|per| labels.get(per.as_str()).cloned());
    has(own) && has(other) && value(own) == value(other) && value(own) != Some(None)
}

/// A limit of a start: the maximum, and the rule, unless it is the user's own limit.
struct Constraint<'a> {
    max: usize,
    rule: Option<&'a Rule>,
}

/// A lease as a decision may have seen it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    lease: &'a Lease,
    is_live: bool,
    is_overdue: bool,
}

impl WriteCheck<'_> {
    /// No write may increase the number of renewable leases that a rule counts beyond its limit. An admitted start must also respect
    /// each rule that applies to it, and must have the labels of its request.
    pub fn check_rules(&self, admitted: Option<&Lease>) -> Result<(), Violation> {
        for rule in self.policy.rules.iter().filter(|rule| is_enforced(rule)) {
            for own in self.after.leases.values().map(|lease| texts(&lease.labels)).collect::<BTreeSet<_>>() {
                let renewable = |state: &UserState| {
                    let leases = state.leases.values().filter(|lease| lease.termination.is_none());
                    leases.filter(|lease| counts(rule, &own, &texts(&lease.labels))).count()
                };
                let (before, after, max) = (renewable(self.before), renewable(self.after), rule.max.get().into());
                let is_own = admitted.is_some_and(|lease| counts(rule, &own, &texts(&lease.labels)));
                if after > before.max(max) || (is_own && after > max) {
                    let details = format!("{after} of {max} by {} after {}", rule.name, self.write);
                    return Err(ViolationKind::OverRule.with(details));
                }
            }
        }
        match (admitted, self.options()) {
            (Some(lease), Some(options)) if texts(&lease.labels) != labels_of(options) => {
                Err(ViolationKind::UnexplainedLease.with(format!("{} has other labels", ShortId(lease.stream_id))))
            }
            _ => Ok(()),
        }
    }

    /// Whether a rule applies to the start.
    pub fn has_rules(&self) -> bool {
        let own = self.options().map(labels_of);
        own.is_some_and(|own| self.policy.rules.iter().any(|rule| counts(rule, &own, &own)))
    }

    /// A start must evict exactly the streams that its rules require, one after the other, and then those that the limit requires. A
    /// heartbeat may have renewed a stream after the read on which the write is based, so the check tries all versions of the leases.
    pub fn check_evictions_by_rules(&self, limit: usize, own: StreamId, now: Timestamp) -> Result<(), Violation> {
        let Some(options) = self.options() else { return Ok(()) };
        let is_evicted = |lease: &&Lease| {
            let termination = self.after.lease(lease.stream_id).and_then(|lease| lease.termination.as_ref());
            termination.is_some_and(|termination| termination.reason == EndReason::Evicted)
        };
        let evicted: BTreeSet<StreamId> =
            self.before.held().filter(is_evicted).map(|lease| lease.stream_id).collect();
        let kept = self.before.held().filter(|lease| lease.stream_id != own && !replaces(options, lease));
        let mut combinations: Vec<Vec<Seen<'_>>> = vec![Vec::new()];
        for lease in kept {
            let versions = self.versions(lease);
            let seen: BTreeSet<(bool, bool)> =
                versions.map(|version| (version.is_live_at(now), self.is_overdue(version, now))).collect();
            let mut extended = Vec::new();
            for combination in combinations {
                extended.extend(seen.iter().map(|&(is_live, is_overdue)| {
                    [combination.as_slice(), &[Seen { lease, is_live, is_overdue }]].concat()
                }));
            }
            extended.truncate(MAX_COMBINATIONS);
            combinations = extended;
        }
        let constraints = constraints(&self.policy.rules, options, limit);
        if combinations.into_iter().any(|seen| expected_evictions(seen, &constraints, options) == evicted) {
            return Ok(());
        }
        let details = format!("{} evicted{}, which its rules do not require", self.write, short_ids(&evicted));
        Err(ViolationKind::UnneededEviction.with(details))
    }
}

pub fn is_enforced(rule: &Rule) -> bool {
    rule.mode == LimitMode::Enforce
}

/// The enforced rules that apply to the start, and then the user's own limit.
fn constraints<'a>(rules: &'a [Rule], options: &StartOptions, limit: usize) -> Vec<Constraint<'a>> {
    let own = labels_of(options);
    let rules = rules.iter().filter(|rule| is_enforced(rule) && counts(rule, &own, &own));
    let rules = rules.map(|rule| Constraint { max: rule.max.get().into(), rule: Some(rule) });
    rules.chain([Constraint { max: limit, rule: None }]).collect()
}

impl Constraint<'_> {
    fn counts(&self, options: &StartOptions, lease: &Lease) -> bool {
        self.rule.is_none_or(|rule| counts(rule, &labels_of(options), &texts(&lease.labels)))
    }
}

/// Evicts one stream at a time, until the start exceeds no constraint.
fn expected_evictions(
    mut left: Vec<Seen<'_>>,
    constraints: &[Constraint<'_>],
    options: &StartOptions,
) -> BTreeSet<StreamId> {
    left.retain(|seen| seen.is_live);
    left.sort_by_key(|seen| (!seen.is_overdue, seen.lease.started_at, seen.lease.stream_id));
    let mut evicted = BTreeSet::new();
    for constraint in constraints {
        while left.iter().filter(|seen| constraint.counts(options, seen.lease)).count() >= constraint.max {
            let Some(first) = left.iter().position(|seen| constraint.counts(options, seen.lease)) else { break };
            evicted.insert(left.remove(first).lease.stream_id);
        }
    }
    evicted
}

impl ResponseCheck<'_> {
    /// A denial by a rule must show the streams that the rule counts. No rule before the denying one may have been exceeded during
    /// the whole call.
    pub fn check_denying_rule(
        &self,
        denial: &Denial,
        now: Timestamp,
        options: &StartOptions,
    ) -> Result<(), Violation> {
        let unfounded = |details: String| Err(ViolationKind::UnfoundedDenial.with(details));
        let own = labels_of(options);
        let mut applying = self.policy.rules.iter().filter(|rule| is_enforced(rule) && counts(rule, &own, &own));
        if let Some(name) = &denial.rule {
            let Some(rule) = applying.clone().find(|rule| rule.name == *name) else {
                return unfounded(format!("the rule {name} does not apply"));
            };
            let is_counted = |lease: &Lease| counts(rule, &own, &texts(&lease.labels)) && !replaces(options, lease);
            if let Some(lease) = denial.streams.iter().find(|lease| !is_counted(lease)) {
                return unfounded(format!("the rule {name} does not count {}", ShortId(lease.stream_id)));
            }
            if rule.max != denial.limit {
                return unfounded(format!("the limit of the rule {name} is {}", rule.max));
            }
        }
        let evicts = options.at_limit == Some(AtLimit::EvictOldest);
        applying.by_ref().take_while(|rule| Some(&rule.name) != denial.rule.as_ref()).try_for_each(|rule| {
            let has_room = |state: &UserState| {
                let live = state.held().filter(|lease| lease.is_live_at(now) && !replaces(options, lease));
                let counted = live.filter(|lease| counts(rule, &own, &texts(&lease.labels))).count();
                counted < rule.max.get().into() || (evicts && !rule.max.is_blocked())
            };
            let details =
                || format!("the rule {} was exceeded during the whole call, and is not in the response", rule.name);
            self.at_some_moment(has_room, ViolationKind::UnfoundedDenial, details)
        })
    }
}
