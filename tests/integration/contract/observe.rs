//! Contract clauses for observe mode.

use std::sync::Arc;

use futures_util::future::join_all;
use stream_manager::domain::admission::{AtLimit, OverLimit, StartOutcome, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::rules::{LimitMode, Rule};
use stream_manager::store::StartHint;

use super::User;
use crate::rules::{UHD, labels, rule};
use crate::support::{start, stream};

/// A start with a limit of 1 in observe mode, and a hard limit of 4.
fn observed(n: u8) -> StartRequest {
    StartRequest {
        default_limit: StreamLimit::new(1).unwrap(),
        limit_mode: LimitMode::Observe,
        hard_limit: StreamLimit::new(4).unwrap(),
        ..start(n)
    }
}

fn evicting(request: StartRequest) -> StartRequest {
    StartRequest { at_limit: AtLimit::EvictOldest, ..request }
}

fn over_limit(count: usize) -> OverLimit {
    OverLimit { rule: None, limit: StreamLimit::new(1).unwrap(), count }
}

pub async fn a_start_over_an_observed_limit_is_reported(user: User) {
    assert_eq!(user.started(observed(1)).await.over_limit, []);
    assert_eq!(user.started(observed(2)).await.over_limit, [over_limit(1)]);
    assert_eq!(user.started(evicting(observed(3))).await.over_limit, [over_limit(2)]);
    assert_eq!(user.live().await.len(), 3);
    let StartOutcome::Existing(again) = user.start(observed(3)).await else { panic!("not repeated") };
    assert_eq!(again.over_limit, [], "a repeated start reports nothing");
}

pub async fn a_blocked_user_in_observe_mode_can_start(user: User) {
    user.set_limit(Some(0)).await;
    let none = OverLimit { rule: None, limit: StreamLimit::new(0).unwrap(), count: 0 };
    assert_eq!(user.started(observed(1)).await.over_limit, [none]);
}

pub async fn the_hard_limit_denies_and_evicts_nobody(user: User) {
    for n in 0..4 {
        user.started(observed(n)).await;
    }
    for request in [observed(9), evicting(observed(9))] {
        let StartOutcome::Denied(denial) = user.start(request).await else { panic!("not denied") };
        assert_eq!((denial.rule, denial.limit.get(), denial.streams.len()), (None, 4, 4));
    }
    user.stop(0).await;
    user.started(observed(9)).await;
}

pub async fn racing_starts_never_exceed_the_hard_limit(user: User) {
    let hints = [StartHint::Optimistic, StartHint::ReadFirst];
    let start = |n: u8| if n.is_multiple_of(3) { evicting(observed(n)) } else { observed(n) };
    let outcomes = join_all((0..12).map(|n| user.start_with(start(n), hints[usize::from(n % 2)]))).await;
    let started = outcomes.iter().filter(|outcome| matches!(outcome, StartOutcome::Started(_))).count();
    assert_eq!((started, user.live().await.len()), (4, 4));
}

pub async fn instances_with_both_modes_share_the_streams(user: User) {
    let enforced = |n| StartRequest { limit_mode: LimitMode::Enforce, ..observed(n) };
    user.started(enforced(1)).await;
    user.denied(enforced(2)).await;
    user.started(observed(2)).await;
    assert_eq!(user.denied(enforced(3)).await.len(), 2);
    let started = user.started(evicting(enforced(3))).await;
    assert_eq!(started.ended_ids(), [stream(1), stream(2)], "an enforced limit ends the excess");
    user.stop(3).await;
    assert_eq!(user.started(observed(4)).await.over_limit, []);
}

pub async fn an_observed_rule_is_reported_and_denies_nothing(user: User) {
    let one_uhd = Rule { mode: LimitMode::Observe, ..rule("one UHD stream", 1, UHD, None) };
    let rules: Arc<[Rule]> = [one_uhd.clone()].into();
    let uhd = |n| StartRequest { labels: labels(UHD), rules: Arc::clone(&rules), ..start(n) };
    assert_eq!(user.started(uhd(1)).await.over_limit, []);
    let exceeded = OverLimit { rule: Some(one_uhd.name), limit: one_uhd.max, count: 1 };
    assert_eq!(user.started(uhd(2)).await.over_limit, [exceeded]);
    user.started(start(3)).await;
    user.denied(start(4)).await;
}
