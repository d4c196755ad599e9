//! What a report says about another limit equals a real run of the same starts with this limit.

use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::rules::{LimitMode, Rule};
use stream_manager::limiter::Policy;
use stream_manager::report::{Report, WhatIf, WhatIfCase};

use super::report_of;
use super::script::{Run, Script};
use crate::rules::{UHD, rule};

const USERS: usize = 60;

/// Observes the limit of 3 and the users' own limits.
fn observe(rules: impl IntoIterator<Item = Rule>) -> Policy {
    Policy { limit_mode: LimitMode::Observe, rules: rules.into_iter().collect(), ..Policy::default() }
}

/// The report of a run. Its totals equal those of the run.
fn report(run: &Run) -> Report {
    let report = report_of(&run.events);
    let starts = &report.totals.starts;
    assert_eq!((starts.started + starts.over_limit + starts.denied, starts.denied), (run.starts, run.denied));
    assert_eq!(report.sessions.watching_seconds, u64::try_from(run.played_ms / 1000).unwrap());
    assert_eq!((report.totals.instances, report.totals.ends.without_start), (3, 0));
    report
}

fn lost_seconds(run: &Run, observed: &Run) -> u64 {
    u64::try_from((observed.played_ms - run.played_ms) / 1000).unwrap()
}

async fn what_if(script: &Script, rules: &[Rule]) -> (Run, WhatIf) {
    let observing = rules.iter().cloned().map(|rule| Rule { mode: LimitMode::Observe, ..rule });
    let observed = script.run(&observe(observing)).await;
    assert_eq!(observed.denied, 0);
    let report = report(&observed);
    assert!(report.totals.starts.over_limit > 0);
    let what_if = report.what_if.unwrap();
    assert!(what_if.is_exact);
    (observed, what_if)
}

/// What one default limit denies, evicts and costs.
fn assert_equal(case: &WhatIfCase, run: &Run, observed: &Run) {
    let found = (case.starts, case.denied, case.evicted, case.users_hit, case.lost_watching_seconds);
    let expected = (run.starts, run.denied, run.evicted, run.users_hit, lost_seconds(run, observed));
    assert_eq!(found, expected, "limit {}", case.limit);
    assert!(!report(run).what_if.unwrap().is_exact);
}

#[tokio::test]
async fn limits_of_1_to_6_equal_real_runs() {
    for seed in 0..4 {
        let script = Script::generate(seed, USERS, true);
        let (observed, what_if) = what_if(&script, &[]).await;
        assert_eq!(what_if.limits.iter().map(|case| case.limit).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for case in &what_if.limits {
            let default_limit = StreamLimit::new(case.limit.into()).unwrap();
            let run = script.run(&Policy { default_limit, ..Policy::default() }).await;
            assert!(run.denied > 0, "own limits deny starts with any default limit");
            assert_equal(case, &run, &observed);
        }
        assert!(what_if.limits[0].evicted > 0);
    }
}

#[tokio::test]
async fn rules_with_maximums_of_1_to_6_equal_real_runs() {
    let rules = |max| [rule("one UHD stream", max, UHD, None), rule("two per channel", max, &[], Some("channel"))];
    for seed in 10..13 {
        let script = Script::generate(seed, USERS, false);
        let (observed, what_if) = what_if(&script, &rules(2)).await;
        assert_eq!(what_if.rules.len(), 2);
        for of_rule in &what_if.rules {
            for case in &of_rule.limits {
                let rules = rules(case.limit.into()).into_iter();
                let run = script.run(&observe(rules.filter(|rule| rule.name.as_str() == of_rule.rule))).await;
                report(&run);
                let found = (case.denied, case.users_hit, case.lost_watching_seconds);
                let expected = (run.denied, run.users_hit, lost_seconds(&run, &observed));
                assert_eq!(found, expected, "{} at {}", of_rule.rule, case.limit);
            }
            assert!(of_rule.limits[0].denied > 0);
        }
    }
}
