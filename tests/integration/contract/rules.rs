//! Contract clauses for labels and rules.

use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, StartOutcome, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::store::StartHint;

use super::{User, live};
use crate::rules::{UHD, labels, rule};
use crate::support::{renewal, start, stream};

const NEWS: &[(&str, &str)] = &[("channel", "news")];
const UHD_NEWS: &[(&str, &str)] = &[("channel", "news"), ("quality", "uhd")];

/// A start under two rules that overlap: two UHD streams, and one per channel.
fn ruled(n: u8, with: &[(&str, &str)]) -> StartRequest {
    let rules = [rule("two UHD streams", 2, UHD, None), rule("one per channel", 1, &[], Some("channel"))];
    StartRequest {
        labels: labels(with),
        rules: Arc::new(rules),
        default_limit: StreamLimit::new(10).unwrap(),
        ..start(n)
    }
}

pub async fn labels_are_stored_with_the_stream(user: User) {
    let started = user.started(ruled(1, UHD_NEWS)).await;
    assert_eq!(started.lease.labels, labels(UHD_NEWS));
    assert_eq!(live(user.state(1).await), started.lease);
    user.fixture.advance_s(1);
    assert_eq!(live(user.heartbeat_with(renewal(1)).await).labels, labels(UHD_NEWS));
    user.evict(1).await;
    assert_eq!(super::inactive(user.state(1).await).labels, labels(UHD_NEWS));
}

pub async fn a_rule_denies_and_lists_the_streams_that_it_counts(user: User) {
    user.started(start(1)).await;
    user.started(ruled(2, UHD_NEWS)).await;
    let StartOutcome::Denied(denial) = user.start(ruled(3, NEWS)).await else { panic!("not denied") };
    assert_eq!(denial.rule.unwrap().as_str(), "one per channel");
    assert_eq!(denial.streams.iter().map(|lease| lease.stream_id).collect::<Vec<_>>(), [stream(2)]);
    user.started(ruled(3, &[("channel", "sport")])).await;
    user.stop(2).await;
    user.started(ruled(4, NEWS)).await;
}

pub async fn racing_starts_never_exceed_a_rule(user: User) {
    let hints = [StartHint::Optimistic, StartHint::ReadFirst];
    let starts = (0..12).map(|n| user.start_with(ruled(n, UHD), hints[usize::from(n % 2)]));
    let others = (12..15).map(|n| user.start_with(ruled(n, &[]), StartHint::Optimistic));
    let (ruled, others) =
        futures_util::future::join(futures_util::future::join_all(starts), futures_util::future::join_all(others))
            .await;
    let started = |outcomes: &[StartOutcome]| {
        outcomes.iter().filter(|outcome| matches!(outcome, StartOutcome::Started(_))).count()
    };
    assert_eq!((started(&ruled), started(&others)), (2, 3));
    assert_eq!(user.live().await.len(), 5);
}

pub async fn a_start_evicts_a_stream_of_the_rule_and_no_older_one(user: User) {
    user.started(start(1)).await;
    user.started(ruled(2, NEWS)).await;
    let evicting = StartRequest { at_limit: AtLimit::EvictOldest, ..ruled(3, UHD_NEWS) };
    assert_eq!(user.started(evicting).await.ended_ids(), [stream(2)]);
    assert_eq!(user.live().await.len(), 2);
}

pub async fn an_expired_stream_does_not_count_by_a_rule(user: User) {
    user.started(ruled(1, NEWS)).await;
    user.fixture.advance_s(90);
    user.started(ruled(2, NEWS)).await;
}
