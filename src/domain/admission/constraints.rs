//! The constraints of a start: each rule that applies to it, and then the user's own limit. Finds the streams that the start must
//! evict, or the first enforced constraint that it would exceed, and the constraints in observe mode that it exceeds.

use crate::domain::labels::{LabelName, Labels};
use crate::domain::lease::{Lease, StreamLimit, Timestamp};
use crate::domain::rules::{LimitMode, Rule};

/// What limits a start.
pub(super) struct Limits<'a> {
    /// The labels of the start.
    pub labels: &'a Labels,
    /// All rules, also those that do not apply to the start.
    pub rules: &'a [Rule],
    pub user_limit: StreamLimit,
    pub limit_mode: LimitMode,
    /// Enforced while the user's limit is in observe mode.
    pub hard_limit: StreamLimit,
}

/// What an admitted start evicts and exceeds.
pub(super) struct Admission<'a> {
    pub evicted: Vec<&'a Lease>,
    /// The constraints in observe mode that the start exceeds.
    pub exceeded: Vec<Observed<'a>>,
}

/// A constraint in observe mode that a start exceeds.
pub(super) struct Observed<'a> {
    /// `None` for the user's own limit.
    pub rule: Option<&'a Rule>,
    pub max: StreamLimit,
    /// How many streams the constraint counts after the evictions, without the new one.
    pub count: usize,
}

/// The first enforced constraint that a start would exceed.
pub(super) struct Exceeded<'a> {
    /// `None` for the user's own limit.
    pub rule: Option<&'a Rule>,
    pub max: StreamLimit,
    /// The streams that the constraint counts.
    pub counted: Vec<&'a Lease>,
    /// The time at which the start would exceed no enforced constraint any more, if no stream is renewed. `None` if one of them forbids
    /// the stream.
    pub slot_frees_at: Option<Timestamp>,
}

/// A limit for some of the user's live streams.
struct Constraint<'a> {
    rule: Option<&'a Rule>,
    max: StreamLimit,
    action: Action,
    /// The labels of the start that a stream must have to be counted.
    mask: LabelMask,
}

/// What happens if a start exceeds a constraint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Evicts streams if the start requests it and the constraint allows any. Otherwise, denies the start.
    Enforce,
    /// Always denies the start.
    Deny,
    /// Reports the start.
    Report,
}

/// A set of labels of the start, one bit per label. A start has at most [`Labels::MAX_OF_STREAM`] labels.
type LabelMask = u32;

/// A live stream that the start does not replace.
struct Candidate<'a> {
    lease: &'a Lease,
    /// The labels of the start that the stream has too, with the same values.
    shared: LabelMask,
    is_evicted: bool,
}

/// The streams that the start must evict, so that it exceeds no enforced constraint, and the other constraints that it then
/// exceeds. `kept` are the live streams that the start does not replace. If the start `evicts`, they are in eviction order.
pub(super) fn admission<'a>(
    limits: &Limits<'a>,
    kept: &[&'a Lease],
    evicts: bool,
) -> Result<Admission<'a>, Exceeded<'a>> {
    let constraints = constraints(limits);
    let no_rule_applies = constraints.iter().all(|constraint| constraint.rule.is_none());
    let candidate = |lease: &&'a Lease| {
        let shared = if no_rule_applies { 0 } else { shared_labels(limits.labels, &lease.labels) };
        Candidate { lease, shared, is_evicted: false }
    };
    let mut candidates: Vec<Candidate<'_>> = kept.iter().map(candidate).collect();
    for constraint in constraints.iter().filter(|constraint| constraint.can_deny()) {
        let excess = constraint.excess(&candidates);
        if excess == 0 {
            continue;
        }
        // No eviction makes room under a constraint that forbids the stream.
        if !evicts || constraint.action == Action::Deny || constraint.max.is_blocked() {
            let counted = candidates.iter().filter(|candidate| constraint.counts(candidate));
            return Err(Exceeded {
                rule: constraint.rule,
                max: constraint.max,
                counted: counted.map(|candidate| candidate.lease).collect(),
                slot_frees_at: slot_frees_at(&constraints, &candidates),
            });
        }
        let to_evict =
            candidates.iter_mut().filter(|candidate| constraint.counts(candidate) && !candidate.is_evicted);
        to_evict.take(excess).for_each(|candidate| candidate.is_evicted = true);
    }
    // Only now, because an enforced constraint can evict streams that a constraint before it counts.
    let exceeded = constraints.iter().filter_map(|constraint| constraint.report(&candidates)).collect();
    let evicted = candidates.iter().filter(|candidate| candidate.is_evicted).map(|candidate| candidate.lease);
    Ok(Admission { evicted: evicted.collect(), exceeded })
}

impl<'a> Constraint<'a> {
    fn counts(&self, candidate: &Candidate<'_>) -> bool {
        candidate.shared & self.mask == self.mask
    }

    /// How many streams the constraint counts that are not evicted, without the new one.
    fn count(&self, candidates: &[Candidate<'_>]) -> usize {
        candidates.iter().filter(|candidate| self.counts(candidate) && !candidate.is_evicted).count()
    }

    /// By how many streams the start exceeds the constraint.
    fn excess(&self, candidates: &[Candidate<'_>]) -> usize {
        self.max.exceeded_by(self.count(candidates) + 1)
    }

    fn can_deny(&self) -> bool {
        self.action != Action::Report
    }

    /// `None` if the constraint is enforced, or not exceeded.
    fn report(&self, candidates: &[Candidate<'_>]) -> Option<Observed<'a>> {
        let is_exceeded = !self.can_deny() && self.excess(candidates) > 0;
        is_exceeded.then(|| Observed { rule: self.rule, max: self.max, count: self.count(candidates) })
    }
}

impl Action {
    fn of(mode: LimitMode) -> Self {
        match mode {
            LimitMode::Enforce => Self::Enforce,
            LimitMode::Observe => Self::Report,
        }
    }
}

/// The rules that apply to the start, in the order of the settings, and then the user's own limit, which counts all streams. While
/// the user's limit is in observe mode, the hard limit follows.
fn constraints<'a>(limits: &Limits<'a>) -> Vec<Constraint<'a>> {
    let of_rule = |rule: &'a Rule| {
        let mask = required_labels(limits.labels, rule)?;
        Some(Constraint { rule: Some(rule), max: rule.max, action: Action::of(rule.mode), mask })
    };
    let of_user = |max, action| Constraint { rule: None, max, action, mask: 0 };
    let user_limit = of_user(limits.user_limit, Action::of(limits.limit_mode));
    let is_observed = limits.limit_mode == LimitMode::Observe;
    let hard_limit = is_observed.then(|| of_user(limits.hard_limit, Action::Deny));
    limits.rules.iter().filter_map(of_rule).chain([user_limit]).chain(hard_limit).collect()
}

/// The labels of the start that a stream must have, so that the rule counts it. `None` if the rule does not apply to the start.
fn required_labels(own: &Labels, rule: &Rule) -> Option<LabelMask> {
    let is_required = |name: &LabelName| rule.labels.get(name).is_some() || rule.per.as_ref() == Some(name);
    let required = own.iter().enumerate().filter(|(_, (name, _))| is_required(name));
    rule.applies_to(own).then(|| required.fold(0, |mask, (index, _)| mask | (1 << index)))
}

/// The labels of `own` that `other` has too, with the same values. Both are sorted, so one pass finds them.
fn shared_labels(own: &Labels, other: &Labels) -> LabelMask {
    let (mut own, mut other) = (own.iter().enumerate().peekable(), other.iter().peekable());
    let mut shared = 0;
    while let (Some((index, (name, value))), Some((other_name, other_value))) = (own.peek(), other.peek()) {
        let order = name.cmp(other_name);
        if order.is_eq() && value == other_value {
            shared |= 1 << index;
        }
        if order.is_le() {
            own.next();
        }
        if order.is_ge() {
            other.next();
        }
    }
    shared
}

/// More than one stream may have to expire first, because more streams than the limit may be live.
fn slot_frees_at(constraints: &[Constraint<'_>], candidates: &[Candidate<'_>]) -> Option<Timestamp> {
    let mut by_expiry: Vec<&Candidate<'_>> = candidates.iter().collect();
    by_expiry.sort_by_key(|candidate| candidate.lease.expires_at);
    let mut frees_at = None;
    for constraint in constraints.iter().filter(|constraint| constraint.can_deny()) {
        let counted = || by_expiry.iter().filter(|candidate| constraint.counts(candidate));
        let excess = constraint.max.exceeded_by(counted().count() + 1);
        if excess == 0 {
            continue;
        }
        if constraint.max.is_blocked() {
            return None;
        }
        let last_to_expire = counted().nth(excess - 1).map(|candidate| candidate.lease.expires_at);
        frees_at = frees_at.max(last_to_expire);
    }
    frees_at
}
