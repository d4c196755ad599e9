//! What a report says about another limit equals a real run of the same starts with this limit.

use stream_manager::domain::lease::StreamLimit;
use stream_manager::domain::rules::Rule;
use stream_manager::report::{WhatIf, WhatIfCase};

use super::report_of_events;
use super::script::{Limits, Run, Script};
use crate::rules::{UHD, rule};

const USERS: usize = 60;

/// What `limits` of 1 to 6 deny, evict and cost.
fn assert_equal(case: &WhatIfCase, run: &Run, observed: &Run) {
    let lost_seconds = u64::try_from((observed.played_ms - run.played_ms) / 1000).unwrap();
    let found = (case.starts, case.denied, case.evicted, case.users_hit, case.lost_watching_seconds);
    assert_eq!(found, (run.starts, run.denied, run.evicted, run.users_hit, lost_seconds), "limit {}", case.limit);
}

async fn what_if(script: &Script, rules: &[Rule]) -> (Run, WhatIf) {
    let observed = script.run(&Limits::Observed(rules.to_vec())).await;
    assert_eq!(observed.denied, 0);
    let what_if = report_of_events(&observed.events).what_if.unwrap();
    assert!(what_if.is_exact);
    (observed, what_if)
}

#[tokio::test]
async fn limits_of_1_to_6_equal_real_runs() {
    for seed in 0..4 {
        let script = Script::generate(seed, USERS, true);
        let (observed, what_if) = what_if(&script, &[]).await;
        assert_eq!(what_if.limits.iter().map(|case| case.limit).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for case in &what_if.limits {
            let limit = StreamLimit::new(case.limit.into()).unwrap();
            let run = script.run(&Limits::Default(limit)).await;
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
                let rules = rules(case.limit.into());
                let enforced = rules.into_iter().find(|rule| rule.name.as_str() == of_rule.rule).unwrap();
                let run = script.run(&Limits::Rule(enforced)).await;
                let lost_seconds = u64::try_from((observed.played_ms - run.played_ms) / 1000).unwrap();
                let found = (case.denied, case.users_hit, case.lost_watching_seconds);
                assert_eq!(found, (run.denied, run.users_hit, lost_seconds), "{} at {}", of_rule.rule, case.limit);
            }
            assert!(of_rule.limits[0].denied > 0);
        }
    }
}
