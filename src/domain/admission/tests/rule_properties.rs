//! Properties of the rules on random snapshots. This file restates the rules with plain maps of texts, and shares no code with the
//! decision.

use std::collections::BTreeMap;

use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::properties::{any_lease, any_request, any_state, effective_limit, eviction_rank};
use super::*;
use crate::domain::labels::{LabelName, LabelValue};
use crate::domain::rules::RuleName;

type Texts = BTreeMap<String, String>;

/// Few names and values, so that random starts, leases and rules often have the same labels.
fn any_labels() -> impl Strategy<Value = Labels> {
    let label = |name: &'static str| {
        let value = prop_oneof![Just("x"), Just("y")].prop_map(|value| LabelValue::parse(value).unwrap());
        option::of(value).prop_map(move |value| value.map(|value| (LabelName::parse(name).unwrap(), value)))
    };
    [label("a"), label("b"), label("c")]
        .prop_map(|labels| Labels::new(labels.into_iter().flatten().collect()).unwrap())
}

fn any_mode() -> impl Strategy<Value = LimitMode> {
    prop_oneof![2 => Just(LimitMode::Enforce), 1 => Just(LimitMode::Observe)]
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let per =
        option::of(prop_oneof![Just("a"), Just("b")]).prop_map(|per| per.map(|per| LabelName::parse(per).unwrap()));
    let max = prop_oneof![Just(0u64), 1u64..4, 1u64..4].prop_map(|max| StreamLimit::new(max).unwrap());
    vec((max, any_labels(), per, any_mode()), 0..4).prop_map(|rules| {
        let named = rules.into_iter().enumerate();
        let name = |n: usize| RuleName::parse(&n.to_string()).unwrap();
        named.map(|(n, (max, labels, per, mode))| Rule { name: name(n), max, labels, per, mode }).collect()
    })
}

prop_compose! {
    /// Most leases are live members. With independent states, few users would have two live streams.
    fn mostly_live()(
        (members, leases, limit) in any_state(),
        others in vec((any_lease(0), 1i64..4), 6),
        is_live in vec(weighted(0.8), 6),
    ) -> (Vec<StreamId>, Vec<Lease>, u64) {
        let (mut members, mut leases) = (members, leases);
        for (n, ((other, expires), _)) in others.into_iter().zip(is_live).enumerate().filter(|(_, (_, is_live))| *is_live) {
            let stream_id = id(n as u8);
            leases.retain(|lease| lease.stream_id != stream_id);
            leases.push(Lease { stream_id, expires_at: NOW.plus_ms(expires), termination: None, ..other });
            if !members.contains(&stream_id) {
                members.push(stream_id);
            }
        }
        (members, leases, limit + 1)
    }
}

prop_compose! {
    fn any_case()(
        (members, leases, limit) in prop_oneof![any_state(), mostly_live(), mostly_live()],
        labels in vec(any_labels(), 6),
        own_labels in any_labels(),
        rules in any_rules(),
        limit_mode in any_mode(),
        // At least as high as the number of other streams and any limit.
        hard_limit in 5u64..7,
        request in any_request(),
    ) -> (Vec<StreamId>, Vec<Lease>, u64, StartRequest) {
        let leases = leases.into_iter().zip(labels).map(|(lease, labels)| Lease { labels, ..lease }).collect();
        let hard_limit = StreamLimit::new(hard_limit).unwrap();
        let request = StartRequest { labels: own_labels, rules: rules.into(), limit_mode, hard_limit, ..request };
        (members, leases, limit, request)
    }
}

fn texts(labels: &Labels) -> Texts {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Whether a rule that applies to a start with the labels `own` counts a stream with the labels `other`.
fn counts(rule: &Rule, own: &Texts, other: &Texts) -> bool {
    let has_labels = texts(&rule.labels).iter().all(|(name, value)| other.get(name) == Some(value));
    let has_same = match &rule.per {
        Some(per) => other.contains_key(per.as_str()) && other.get(per.as_str()) == own.get(per.as_str()),
        None => true,
    };
    has_labels && has_same
}

/// A rule that applies to the start, the user's own limit, or the hard limit.
struct Constraint<'a> {
    rule: Option<&'a RuleName>,
    max: usize,
    observes: bool,
    /// Whether the start may evict streams to make room.
    evicts: bool,
    counts: Box<dyn Fn(&Lease) -> bool + 'a>,
}

type Constraints<'a> = Vec<Constraint<'a>>;

/// The streams that a start evicts, and the rule, the limit and the count of each constraint that it exceeds.
type Expected<'a> = (Vec<StreamId>, Vec<(Option<&'a RuleName>, usize, usize)>);

fn constraints(request: &StartRequest, limit: u64) -> Constraints<'_> {
    let own = texts(&request.labels);
    let mut all: Constraints<'_> = Vec::new();
    for rule in request.rules.iter().filter(|rule| counts(rule, &own, &own)) {
        let own = own.clone();
        all.push(Constraint {
            rule: Some(&rule.name),
            max: rule.max.get().into(),
            observes: rule.mode == LimitMode::Observe,
            evicts: true,
            counts: Box::new(move |lease| counts(rule, &own, &texts(&lease.labels))),
        });
    }
    let observes = request.limit_mode == LimitMode::Observe;
    let of_user =
        |max, observes, evicts| Constraint { rule: None, max, observes, evicts, counts: Box::new(|_| true) };
    all.push(of_user(limit as usize, observes, true));
    if observes {
        all.push(of_user(request.hard_limit.get().into(), false, false));
    }
    all
}

/// The live streams that the start does not replace, in eviction order.
fn kept<'a>(members: &[StreamId], leases: &'a [Lease], request: &StartRequest) -> Vec<&'a Lease> {
    let is_kept = |lease: &&Lease| {
        lease.is_live_at(NOW)
            && members.contains(&lease.stream_id)
            && lease.stream_id != request.stream_id
            && !request.replaces.contains(&lease.stream_id)
            && (request.device_id.is_none() || lease.device_id != request.device_id)
    };
    let mut kept: Vec<&Lease> = leases.iter().filter(is_kept).collect();
    kept.sort_by_key(|lease| eviction_rank(lease));
    kept
}

/// The name and the maximum of the first constraint that denies the start, or what an admitted start does.
fn expected<'a>(
    kept: &[&Lease],
    constraints: &Constraints<'a>,
    evicts: bool,
) -> Result<Expected<'a>, (Option<&'a RuleName>, usize)> {
    let mut left = kept.to_vec();
    let mut evicted = Vec::new();
    let count = |left: &[&Lease], by: &Constraint<'_>| left.iter().filter(|lease| (by.counts)(lease)).count();
    for by in constraints.iter().filter(|by| !by.observes) {
        while count(&left, by) + 1 > by.max {
            let first = left.iter().position(|lease| (by.counts)(lease));
            let Some(first) = first.filter(|_| evicts && by.evicts && by.max > 0) else {
                return Err((by.rule, by.max));
            };
            evicted.push(left.remove(first).stream_id);
        }
    }
    evicted.sort();
    let observed = constraints.iter().filter(|by| by.observes && count(&left, by) + 1 > by.max);
    Ok((evicted, observed.map(|by| (by.rule, by.max, count(&left, by))).collect()))
}

fn decide_at(members: &[StreamId], leases: &[Lease], limit: u64, request: &StartRequest, now: Timestamp) -> Decision {
    let guard = Guard { revision: Some(1), stored_limit: StreamLimit::new(limit) };
    decide(&Snapshot { guard, members, leases }, request, now)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decision_follows_the_rules_in_order((members, leases, limit, request) in any_case()) {
        let constraints = constraints(&request, effective_limit(limit, &request));
        let kept = kept(&members, &leases, &request);
        let expected = expected(&kept, &constraints, request.at_limit == AtLimit::EvictOldest);
        match decide_at(&members, &leases, limit, &request, NOW) {
            Decision::Admit(commit) => {
                let evicted = commit.change.ended.iter().filter(|ended| ended.termination.reason == EndReason::Evicted);
                let mut evicted: Vec<StreamId> = evicted.map(|ended| ended.stream_id).collect();
                evicted.sort();
                let over_limit = commit.over_limit.iter();
                let over_limit = over_limit.map(|over| (over.rule.as_ref(), over.limit.get().into(), over.count));
                prop_assert_eq!(Ok((evicted, over_limit.collect())), expected);
                for by in constraints.iter().filter(|by| !by.observes) {
                    let stays = |lease: &&&Lease| commit.change.members.contains(&lease.stream_id) && (by.counts)(lease);
                    prop_assert!(kept.iter().filter(stays).count() < by.max);
                    prop_assert!(by.rule.is_some() || commit.change.members.len() <= by.max);
                }
                prop_assert_eq!(&commit.lease.labels, &request.labels);
            }
            Decision::NoWrite(StartOutcome::Denied(denial)) => {
                let denying = (denial.rule.as_ref(), usize::from(denial.limit.get()));
                prop_assert_eq!(Err(denying), expected);
                if let Some(rule) = &denial.rule {
                    let by = constraints.iter().find(|by| by.rule == Some(rule)).unwrap();
                    let mut counted: Vec<&Lease> = kept.iter().copied().filter(|lease| (by.counts)(lease)).collect();
                    counted.sort_by_key(|lease| (lease.started_at, lease.stream_id));
                    prop_assert_eq!(denial.streams.iter().collect::<Vec<_>>(), counted);
                }
            }
            Decision::NoWrite(_) => {}
        }
    }

    /// Instances with different modes can run at the same time.
    #[test]
    fn start_within_all_limits_is_the_same_in_both_modes((members, leases, limit, request) in any_case()) {
        let hard_limit = StreamLimit::HIGHEST;
        let rules = request.rules.iter().map(|rule| Rule { mode: LimitMode::Enforce, ..rule.clone() }).collect();
        let enforcing = StartRequest { limit_mode: LimitMode::Enforce, rules, ..request.clone() };
        if let Decision::Admit(commit) = decide_at(&members, &leases, limit, &enforcing, NOW) {
            let evicts = commit.change.ended.iter().any(|ended| ended.termination.reason == EndReason::Evicted);
            if !evicts {
                let any_mode = StartRequest { hard_limit, ..request };
                prop_assert_eq!(decide_at(&members, &leases, limit, &any_mode, NOW), Decision::Admit(commit));
            }
        }
    }

    #[test]
    fn repetition_is_admitted_exactly_when_the_slot_frees((members, leases, limit, request) in any_case()) {
        let decide_at = |now| decide_at(&members, &leases, limit, &request, now);
        if let Decision::NoWrite(StartOutcome::Denied(denial)) = decide_at(NOW) {
            let is_denied = |decision| matches!(decision, Decision::NoWrite(StartOutcome::Denied(_)));
            match denial.slot_frees_at {
                Some(at) => {
                    prop_assert!(is_denied(decide_at(at.plus_ms(-1))));
                    prop_assert!(matches!(decide_at(at), Decision::Admit(_)));
                }
                None => prop_assert!(is_denied(decide_at(NOW.plus_s(1_000_000)))),
            }
        }
    }

    #[test]
    fn start_without_a_read_is_not_counted_by_any_rule((_, leases, _, request) in any_case()) {
        let own = texts(&request.labels);
        let applies = request.rules.iter().any(|rule| counts(rule, &own, &own));
        if !request.needs_read() {
            prop_assert!(!applies);
        }
        for lease in leases {
            let other = texts(&lease.labels);
            for rule in request.rules.iter() {
                prop_assert_eq!(rule.applies_to(&lease.labels), counts(rule, &other, &other));
            }
        }
    }
}
