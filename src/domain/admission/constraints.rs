//! The constraints of a start: each rule that applies to it, and then the user's own limit. Finds the streams that the start must
//! evict, or the first constraint that it would exceed.

use crate::domain::labels::{LabelName, Labels};
use crate::domain::lease::{Lease, StreamLimit, Timestamp};
use crate::domain::rules::Rule;

/// What limits a start.
pub(super) struct Limits<'a> {
    /// The labels of the start.
    pub labels: &'a Labels,
    /// All rules, also those that do not apply to the start.
    pub rules: &'a [Rule],
    pub user_limit: StreamLimit,
}

/// The first constraint that a start would exceed.
pub(super) struct Exceeded<'a> {
    /// `None` for the user's own limit.
    pub rule: Option<&'a Rule>,
    pub max: StreamLimit,
    /// The streams that the constraint counts.
    pub counted: Vec<&'a Lease>,
    /// The time at which the start would exceed no constraint any more, if no stream is renewed. `None` if a constraint forbids the
    /// stream.
    pub slot_frees_at: Option<Timestamp>,
}

/// A limit for some of the user's live streams.
struct Constraint<'a> {
    rule: Option<&'a Rule>,
    max: StreamLimit,
    /// The labels of the start that a stream must have to be counted.
    mask: LabelMask,
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

/// The streams that the start must evict, so that it exceeds no constraint. `kept` are the live streams that the start does not
/// replace. If the start `evicts`, they are in eviction order.
pub(super) fn evictions<'a>(
    limits: &Limits<'a>,
    kept: &[&'a Lease],
    evicts: bool,
) -> Result<Vec<&'a Lease>, Exceeded<'a>> {
    let constraints = constraints(limits);
    let no_rule_applies = constraints.len() == 1;
    let candidate = |lease: &&'a Lease| {
        let shared = if no_rule_applies { 0 } else { shared_labels(limits.labels, &lease.labels) };
        Candidate { lease, shared, is_evicted: false }
    };
    let mut candidates: Vec<Candidate<'_>> = kept.iter().map(candidate).collect();
    for constraint in &constraints {
        let counted = candidates.iter().filter(|candidate| constraint.counts(candidate) && !candidate.is_evicted);
        let excess = constraint.max.exceeded_by(counted.count() + 1);
        if excess == 0 {
            continue;
        }
        // No eviction makes room under a constraint that forbids the stream.
        if !evicts || constraint.max.is_blocked() {
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
    Ok(candidates.iter().filter(|candidate| candidate.is_evicted).map(|candidate| candidate.lease).collect())
}

impl Constraint<'_> {
    fn counts(&self, candidate: &Candidate<'_>) -> bool {
        candidate.shared & self.mask == self.mask
    }
}

/// The rules that apply to the start, in the order of the settings, and then the user's own limit, which counts all streams.
fn constraints<'a>(limits: &Limits<'a>) -> Vec<Constraint<'a>> {
    let of_rule = |rule: &'a Rule| {
        let mask = required_labels(limits.labels, rule)?;
        Some(Constraint { rule: Some(rule), max: rule.max, mask })
    };
    let user_limit = Constraint { rule: None, max: limits.user_limit, mask: 0 };
    limits.rules.iter().filter_map(of_rule).chain([user_limit]).collect()
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
    for constraint in constraints {
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
