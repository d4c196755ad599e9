//! Examples of the rules for streams with certain labels.

use super::*;
use crate::domain::labels::{LabelName, LabelValue};
use crate::domain::rules::{self, RuleName};

fn labels(labels: &[(&str, &str)]) -> Labels {
    let label = |(name, value): &(&str, &str)| (LabelName::parse(name).unwrap(), LabelValue::parse(value).unwrap());
    Labels::new(labels.iter().map(label).collect()).unwrap()
}

pub(super) fn rule(name: &str, max: u64, counted: &[(&str, &str)], per: Option<&str>) -> Rule {
    Rule {
        name: RuleName::parse(name).unwrap(),
        max: StreamLimit::new(max).unwrap(),
        labels: labels(counted),
        per: per.map(|per| LabelName::parse(per).unwrap()),
        mode: LimitMode::Enforce,
    }
}

pub(super) fn labelled(n: u8, with: &[(&str, &str)]) -> Lease {
    Lease { labels: labels(with), ..lease(n) }
}

pub(super) const UHD: &[(&str, &str)] = &[("quality", "uhd")];
pub(super) const NEWS: &[(&str, &str)] = &[("channel", "news")];
pub(super) const UHD_NEWS: &[(&str, &str)] = &[("channel", "news"), ("quality", "uhd")];
const UHD_SPORT: &[(&str, &str)] = &[("channel", "sport"), ("quality", "uhd")];

pub(super) fn one_uhd() -> Rule {
    rule("one UHD stream", 1, UHD, None)
}

pub(super) fn start(n: u8, with: &[(&str, &str)], rules: impl IntoIterator<Item = Rule>) -> StartRequest {
    StartRequest {
        labels: labels(with),
        rules: rules.into_iter().collect(),
        default_limit: StreamLimit::new(10).unwrap(),
        ..request(n)
    }
}

pub(super) fn evicting(request: StartRequest) -> StartRequest {
    StartRequest { at_limit: AtLimit::EvictOldest, ..request }
}

/// Decides with these live streams.
pub(super) fn decide_among(live: &[Lease], request: &StartRequest) -> Decision {
    let members: Vec<StreamId> = live.iter().map(|lease| lease.stream_id).collect();
    decide_on(&members, live, request)
}

/// The rule, the limit and the streams of a denial.
pub(super) fn denied(
    live: &[Lease],
    request: &StartRequest,
) -> (Option<String>, u8, Vec<StreamId>, Option<Timestamp>) {
    let outcome = without_write(decide_among(live, request));
    let StartOutcome::Denied(Denial { rule, limit, streams, slot_frees_at, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    let ids = streams.iter().map(|lease| lease.stream_id).collect();
    (rule.map(|rule| rule.to_string()), limit.get(), ids, slot_frees_at)
}

fn ended_by_start(live: &[Lease], request: &StartRequest) -> Vec<(StreamId, EndReason)> {
    ended(&admitted(decide_among(live, request)))
}

#[test]
fn rule_denies_and_lists_only_the_streams_that_it_counts() {
    let live = [labelled(1, UHD), labelled(2, NEWS), lease(3)];
    let rule = Some("one UHD stream".to_owned());
    assert_eq!(denied(&live, &start(9, UHD_NEWS, [one_uhd()])), (rule, 1, vec![id(1)], Some(lease(1).expires_at)));
}

#[test]
fn rule_does_not_concern_starts_with_other_labels() {
    let live = [labelled(1, UHD)];
    for other in [&[][..], NEWS, &[("quality", "hd")], &[("channel", "uhd")]] {
        let start = start(9, other, [one_uhd()]);
        admitted(decide_among(&live, &start));
        assert!(!start.needs_read());
    }
    assert!(start(9, UHD, [one_uhd()]).needs_read());
}

#[test]
fn per_counts_each_value_separately() {
    let per = || rule("two per channel", 2, &[], Some("channel"));
    let live = [labelled(1, UHD_NEWS), labelled(2, NEWS), labelled(3, UHD_SPORT), lease(4)];
    let (name, limit, streams, _) = denied(&live, &start(9, NEWS, [per()]));
    assert_eq!((name.as_deref(), limit, streams), (Some("two per channel"), 2, vec![id(2), id(1)]));
    admitted(decide_among(&live, &start(9, &[("channel", "sport")], [per()])));
    let without = start(9, UHD, [per()]);
    admitted(decide_among(&live, &without));
    assert!(!without.needs_read());
}

#[test]
fn rule_with_labels_and_per_needs_both() {
    let both = || rule("one UHD per channel", 1, UHD, Some("channel"));
    let live = [labelled(1, UHD_NEWS), labelled(2, NEWS)];
    assert_eq!(denied(&live, &start(9, UHD_NEWS, [both()])).2, [id(1)]);
    for other in [NEWS, UHD, UHD_SPORT] {
        admitted(decide_among(&live, &start(9, other, [both()])));
    }
}

#[test]
fn first_rule_in_order_denies_and_the_limit_comes_last() {
    let live = [labelled(1, UHD_NEWS), labelled(2, NEWS)];
    let per = || rule("one per channel", 1, &[], Some("channel"));
    let full =
        |rules: Vec<Rule>| StartRequest { default_limit: StreamLimit::new(2).unwrap(), ..start(9, UHD_NEWS, rules) };
    let name = |rules: Vec<Rule>| denied(&live, &full(rules)).0;
    assert_eq!(name(vec![one_uhd(), per()]).as_deref(), Some("one UHD stream"));
    assert_eq!(name(vec![per(), one_uhd()]).as_deref(), Some("one per channel"));
    assert_eq!(name(vec![]), None);
    assert_eq!(denied(&live, &full(vec![])).2, [id(2), id(1)]);
}

#[test]
fn rule_with_max_0_forbids() {
    let forbidden = || rule("no UHD", 0, UHD, None);
    for at_limit in [AtLimit::Reject, AtLimit::EvictOldest] {
        let request = StartRequest { at_limit, ..start(9, UHD, [forbidden()]) };
        assert_eq!(denied(&[labelled(1, UHD)], &request), (Some("no UHD".to_owned()), 0, vec![id(1)], None));
        assert_eq!(denied(&[], &request), (Some("no UHD".to_owned()), 0, vec![], None));
    }
}

#[test]
fn slot_frees_when_no_constraint_is_exceeded_any_more() {
    // Stream n expires n seconds after now.
    let live = [labelled(1, UHD), labelled(2, NEWS), labelled(3, UHD_NEWS)];
    let frees_at = |limit: u64, rules: Vec<Rule>| {
        let default_limit = StreamLimit::new(limit).unwrap();
        denied(&live, &StartRequest { default_limit, ..start(9, UHD_NEWS, rules) }).3
    };
    let per = || rule("two per channel", 2, &[], Some("channel"));
    let after = |n| Some(NOW.plus_s(n));
    assert_eq!(frees_at(10, vec![one_uhd()]), after(3));
    assert_eq!(frees_at(10, vec![per()]), after(2));
    assert_eq!(frees_at(10, vec![per(), one_uhd()]), after(3), "the second rule denies too");
    assert_eq!(frees_at(3, vec![rule("two UHD streams", 2, UHD, None)]), after(1));
    assert_eq!(frees_at(2, vec![rule("two UHD streams", 2, UHD, None)]), after(2), "the limit denies too");
    assert_eq!(frees_at(0, vec![one_uhd()]), None, "the user is blocked");
    assert_eq!(frees_at(10, vec![one_uhd(), rule("no news", 0, NEWS, None)]), None);
}

#[test]
fn replaced_streams_do_not_count() {
    let live = [labelled(1, UHD), labelled(2, NEWS)];
    let replacing = |n: u8| StartRequest { replaces: vec![id(n)], ..start(9, UHD, [one_uhd()]) };
    assert_eq!(ended_by_start(&live, &replacing(1)), [(id(1), EndReason::Replaced)]);
    assert_eq!(denied(&live, &replacing(2)).2, [id(1)]);

    let device_id = DeviceId::parse("tv").ok();
    let own = Lease { device_id: device_id.clone(), ..labelled(1, UHD) };
    let restart = StartRequest { device_id, ..start(9, UHD, [one_uhd()]) };
    assert_eq!(ended_by_start(&[own], &restart), [(id(1), EndReason::Replaced)]);
}

#[test]
fn streams_of_a_denial_do_not_include_replaced_ones() {
    let live = [labelled(1, UHD), labelled(2, UHD)];
    let replacing = StartRequest { replaces: vec![id(2)], ..start(9, UHD, [one_uhd()]) };
    assert_eq!(denied(&live, &replacing).2, [id(1)]);
}

#[test]
fn dead_streams_do_not_count() {
    let expired = Lease { expires_at: NOW, ..labelled(1, UHD) };
    let ended = Lease { labels: labels(UHD), ..ended_lease(2) };
    let commit = admitted(decide_on(&[id(1)], &[expired, ended], &start(9, UHD, [one_uhd()])));
    assert_eq!(commit.change.dead, [id(1)]);
}

#[test]
fn evict_oldest_ends_only_streams_that_the_rule_counts() {
    let live = [lease(5), labelled(3, UHD), labelled(2, UHD_NEWS), labelled(1, NEWS)];
    let two = || rule("two UHD streams", 2, UHD, None);
    assert_eq!(ended_by_start(&live, &evicting(start(9, UHD, [two()]))), [(id(3), EndReason::Evicted)]);
    let both = [(id(3), EndReason::Evicted), (id(2), EndReason::Evicted)];
    assert_eq!(ended_by_start(&live, &evicting(start(9, UHD, [one_uhd()]))), both);
}

#[test]
fn evictions_for_one_rule_count_for_the_next_ones() {
    let live = [labelled(3, UHD_NEWS), labelled(2, NEWS), lease(1)];
    let per = |max| rule("per channel", max, &[], Some("channel"));
    let full = |rules: Vec<Rule>| {
        evicting(StartRequest { default_limit: StreamLimit::new(3).unwrap(), ..start(9, UHD_NEWS, rules) })
    };
    let ended = |rules| ended_by_start(&live, &full(rules)).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ended(vec![one_uhd(), per(2)]), [id(3)]);
    assert_eq!(ended(vec![one_uhd(), per(1)]), [id(3), id(2)]);
    assert_eq!(ended(vec![per(2)]), [id(3)]);
}

#[test]
fn evict_oldest_prefers_overdue_streams_of_the_rule() {
    let renewed = |n: u8, seconds_ago: i64, started_ago: i64| Lease {
        started_at: NOW.plus_ms(-1000 * started_ago),
        expires_at: NOW.plus_ms(1000 * (90 - seconds_ago)),
        ..labelled(n, UHD)
    };
    let overdue_without_label = Lease { labels: Labels::default(), ..renewed(3, 80, 900) };
    let live = [renewed(1, 10, 600), renewed(2, 46, 90), overdue_without_label];
    let two = rule("two UHD streams", 2, UHD, None);
    assert_eq!(ended_by_start(&live, &evicting(start(9, UHD, [two]))), [(id(2), EndReason::Evicted)]);
}

#[test]
fn denied_start_evicts_nobody_for_earlier_rules() {
    let live = [labelled(1, UHD_NEWS)];
    let request = evicting(start(9, UHD_NEWS, [one_uhd(), rule("no news", 0, NEWS, None)]));
    assert_eq!(denied(&live, &request), (Some("no news".to_owned()), 0, vec![id(1)], None));
}

#[test]
fn usage_has_one_entry_per_counting_rule_and_value() {
    let rules =
        [rule("no SD", 0, &[("quality", "sd")], None), rule("per channel", 2, &[], Some("channel")), one_uhd()];
    let live = [labelled(1, UHD_NEWS), labelled(2, NEWS), labelled(3, UHD_SPORT), lease(4)];
    let usage: Vec<_> = rules::usage(&rules, &live)
        .into_iter()
        .map(|usage| (usage.rule.name.to_string(), usage.per.map(String::from), usage.count))
        .collect();
    let entry = |name: &str, per: Option<&str>, count| (name.to_owned(), per.map(str::to_owned), count);
    assert_eq!(
        usage,
        [
            entry("per channel", Some("news"), 2),
            entry("per channel", Some("sport"), 1),
            entry("one UHD stream", None, 2),
        ]
    );
}
