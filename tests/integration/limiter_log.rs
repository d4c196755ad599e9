//! The log events of the limiter: evictions and throttled denials.

use std::sync::Arc;

use serde_json::Value;
use stream_manager::clock::ManualClock;
use stream_manager::domain::admission::{AtLimit, StartOutcome};
use stream_manager::domain::lease::{LeaseTerms, StreamLimit};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::limiter::{Limiter, Policy, StartOptions};

use crate::captured_log::CapturedLog;
use crate::support::user;
use crate::test_app::TestApp;

/// A limiter on the memory store with a limit of 1 and long leases.
fn limiter() -> (Arc<Limiter>, Arc<ManualClock>) {
    let policy = Policy {
        default_limit: StreamLimit::new(1).unwrap(),
        terms: LeaseTerms { duration_s: 3600, heartbeat_interval_s: 1200, retention_s: 3600 },
        ..Policy::default()
    };
    let app = TestApp { policy, ..TestApp::default() };
    let clock = Arc::clone(&app.clock);
    (app.build().limiter, clock)
}

async fn start(limiter: &Limiter, user: &UserName, at_limit: AtLimit) -> Option<StreamId> {
    let options = StartOptions { at_limit: Some(at_limit), ..StartOptions::default() };
    match limiter.start(user, options).await.unwrap().value {
        StartOutcome::Started(started) => Some(started.lease.stream_id),
        StartOutcome::Denied(_) => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn denials_are_logged_once_per_user_and_minute() {
    let (log, _guard) = CapturedLog::start();
    let (limiter, clock) = limiter();
    let [ann, bob] = ["ann", "bob"].map(user);
    for user in [&ann, &bob] {
        start(&limiter, user, AtLimit::Reject).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(start(&limiter, &ann, AtLimit::Reject).await, None);
    }
    let events = log.take();
    assert_eq!(events.len(), 1, "{events:?}");
    for (field, expected) in [("limit", 1), ("count", 1), ("suppressed", 0)] {
        assert_eq!(events[0][field], expected, "{field} must be a number, not a string");
    }
    assert_eq!((&events[0]["event"], &events[0]["level"]), (&"start_denied".into(), &"INFO".into()));

    clock.advance_ms(59_999);
    assert_eq!(start(&limiter, &ann, AtLimit::Reject).await, None);
    assert_eq!(log.take(), [] as [Value; 0]);
    assert_eq!(start(&limiter, &bob, AtLimit::Reject).await, None);
    assert_eq!(log.take()[0]["suppressed"], 0, "users are throttled separately");

    clock.advance_ms(1);
    assert_eq!(start(&limiter, &ann, AtLimit::Reject).await, None);
    assert_eq!(log.take()[0]["suppressed"], 5);
}

#[tokio::test]
async fn evictions_are_logged_with_their_stream_ids() {
    let (log, _guard) = CapturedLog::start();
    let (limiter, _) = limiter();
    let ann = user("ann");
    let first = start(&limiter, &ann, AtLimit::Reject).await.unwrap();
    let second = start(&limiter, &ann, AtLimit::EvictOldest).await.unwrap();
    limiter.evict(&ann, Some(vec![second]), None).await.unwrap();
    limiter.evict(&ann, Some(vec![second]), None).await.unwrap();
    let events = log.take();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["event"], "streams_evicted");
    assert_eq!(
        (&events[0]["stream_id"], &events[0]["ended"]),
        (&second.to_string().into(), &first.to_string().into())
    );
    assert_eq!((&events[1]["event"], &events[1]["ended"]), (&"streams_evicted".into(), &second.to_string().into()));
}
