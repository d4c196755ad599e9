//! Examples of observe mode: a limit and rules in observe mode report a start, and only the hard limit denies it.

use super::rules::{NEWS, UHD, UHD_NEWS, decide_among, denied, evicting, labelled, one_uhd, rule, start};
use super::*;

fn observed(rule: Rule) -> Rule {
    Rule { mode: LimitMode::Observe, ..rule }
}

/// A start of a user whose limit of `limit` is in observe mode.
fn under(limit: u64, request: StartRequest) -> StartRequest {
    StartRequest {
        default_limit: StreamLimit::new(limit).unwrap(),
        limit_mode: LimitMode::Observe,
        hard_limit: StreamLimit::new(4).unwrap(),
        ..request
    }
}

/// The rule, the limit and the count of each limit that an admitted start exceeds.
fn exceeded(live: &[Lease], request: &StartRequest) -> Vec<(Option<String>, u8, usize)> {
    let commit = admitted(decide_among(live, request));
    assert_eq!(commit.change.ended, [], "observe mode ends no stream");
    let over_limit = commit.into_started().over_limit.into_iter();
    over_limit.map(|over| (over.rule.map(|rule| rule.to_string()), over.limit.get(), over.count)).collect()
}

#[test]
fn start_over_an_observed_limit_is_admitted_and_reported() {
    let live = [lease(1), lease(2)];
    for request in [request(9), evicting(request(9))] {
        assert_eq!(exceeded(&live, &under(3, request.clone())), []);
        assert_eq!(exceeded(&live, &under(2, request.clone())), [(None, 2, 2)]);
        assert_eq!(exceeded(&live, &under(1, request.clone())), [(None, 1, 2)]);
        assert_eq!(exceeded(&live, &under(0, request.clone())), [(None, 0, 2)]);
        assert_eq!(exceeded(&[], &under(0, request)), [(None, 0, 0)]);
    }
}

#[test]
fn limits_of_token_and_user_are_observed_too() {
    let by_token = StartRequest { token_limit: StreamLimit::new(1), ..under(3, request(9)) };
    assert_eq!(exceeded(&[lease(1)], &by_token), [(None, 1, 1)]);
    let guard = Guard { revision: Some(7), stored_limit: StreamLimit::new(0) };
    let snapshot = Snapshot { guard, members: &[], leases: &[] };
    let commit = admitted(decide(&snapshot, &by_token, NOW));
    assert_eq!(commit.over_limit, [OverLimit { rule: None, limit: StreamLimit::new(0).unwrap(), count: 0 }]);
}

#[test]
fn replaced_streams_do_not_count_as_exceeding() {
    let replacing = StartRequest { replaces: vec![id(1)], ..under(1, request(9)) };
    assert_eq!(admitted(decide_among(&[lease(1)], &replacing)).over_limit, []);
}

#[test]
fn hard_limit_denies_and_evicts_nobody() {
    let live = [1, 2, 3, 4].map(lease);
    for request in [request(9), evicting(request(9))] {
        let ids = [4, 3, 2, 1].map(id).to_vec();
        assert_eq!(denied(&live, &under(2, request.clone())), (None, 4, ids, Some(lease(1).expires_at)));
        assert_eq!(exceeded(&live[..3], &under(2, request)), [(None, 2, 3)]);
    }
}

#[test]
fn hard_limit_does_not_apply_to_an_enforced_limit() {
    let enforced = StartRequest { limit_mode: LimitMode::Enforce, ..under(2, request(9)) };
    assert_eq!(denied(&[lease(1), lease(2)], &enforced).1, 2);
}

#[test]
fn observed_rules_are_reported_in_order_before_the_limit() {
    let live = [labelled(1, UHD), labelled(2, UHD_NEWS)];
    let rules = || [one_uhd(), rule("one per channel", 1, &[], Some("channel")), rule("none", 0, NEWS, None)];
    let uhd = (Some("one UHD stream".to_owned()), 1, 2);
    let news = (Some("one per channel".to_owned()), 1, 1);
    let none = (Some("none".to_owned()), 0, 1);
    for (with, expected) in [
        (UHD_NEWS, vec![uhd.clone(), news.clone(), none.clone(), (None, 2, 2)]),
        (NEWS, vec![news, none, (None, 2, 2)]),
        (UHD, vec![uhd, (None, 2, 2)]),
        (&[], vec![(None, 2, 2)]),
    ] {
        let rules = rules().map(observed);
        assert_eq!(exceeded(&live, &under(2, start(9, with, rules.clone()))), expected);
        assert_eq!(exceeded(&live, &evicting(under(2, start(9, with, rules)))), expected);
    }
}

#[test]
fn each_rule_has_its_own_mode() {
    let live = [labelled(1, UHD), labelled(2, UHD_NEWS)];
    let one_per_channel = rule("one per channel", 1, &[], Some("channel"));
    let request = start(9, UHD_NEWS, [observed(one_uhd()), one_per_channel.clone()]);
    let (rule, ..) = denied(&live, &under(9, request));
    assert_eq!(
        rule.as_deref(),
        Some("one per channel"),
        "an enforced rule denies although the limit is in observe mode"
    );
    let request = start(9, UHD_NEWS, [observed(one_uhd()), observed(one_per_channel)]);
    let enforced = StartRequest { default_limit: StreamLimit::new(2).unwrap(), ..request };
    assert_eq!(denied(&live, &enforced).0, None, "an enforced limit denies although the rules are in observe mode");
}

#[test]
fn time_until_a_slot_frees_ignores_observed_limits() {
    let live = [labelled(5, UHD), labelled(1, NEWS)];
    let rules = [observed(rule("no UHD", 0, UHD, None)), rule("one per channel", 1, &[], Some("channel"))];
    let (.., slot_frees_at) = denied(&live, &under(0, start(9, UHD_NEWS, rules)));
    assert_eq!(slot_frees_at, Some(lease(1).expires_at));
}

#[test]
fn enforced_rule_still_evicts_and_observed_limit_counts_the_rest() {
    let live = [labelled(2, UHD), lease(1)];
    let commit = admitted(decide_among(&live, &evicting(under(1, start(9, UHD, [one_uhd()])))));
    assert_eq!(ended(&commit), [(id(2), EndReason::Evicted)]);
    assert_eq!(commit.over_limit, [OverLimit { rule: None, limit: StreamLimit::new(1).unwrap(), count: 1 }]);
}

#[test]
fn observed_rule_is_not_reported_if_the_limit_evicts_its_streams() {
    let limited =
        StartRequest { default_limit: StreamLimit::new(1).unwrap(), ..start(9, UHD, [observed(one_uhd())]) };
    let commit = admitted(decide_among(&[labelled(1, UHD)], &evicting(limited)));
    assert_eq!((ended(&commit), commit.over_limit), (vec![(id(1), EndReason::Evicted)], vec![]));
}
