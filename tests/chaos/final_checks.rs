//! After the load, checks that every user can start exactly as many streams as the limit and the rule allow. This must also
//! hold after TTL has deleted leases whose ids are still on the counter.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::api::{Api, LIMIT, StartOptions, UHD_LIMIT, now_ms};
use crate::live_instances;
use crate::process::LEASE_S;
use crate::table::Table;

/// Waits until all leases have expired, then counts the streams that each user can start. Then does the same for streams that the rule
/// counts.
pub async fn all_users_can_start_up_to_their_limit(api: &Api, table: &Table, users: usize) {
    for user in 0..users {
        wait_until_expired(table, user).await;
        check_limit(api, table, user).await;
    }
    for user in 0..users {
        wait_until_expired(table, user).await;
        check_rule(api, table, user).await;
    }
    println!(
        "final checks: {users} users started exactly {LIMIT} streams each, and {UHD_LIMIT} under the rule, on the live instances"
    );
}

/// Waits until TTL has deleted a lease whose id is still on the counter, and then checks the limit. Waits for at most
/// 150 s, which is longer than two intervals between TTL sweeps.
pub async fn limit_holds_after_a_ttl_deletion(api: &Api, table: &Table, users: usize) {
    let begin = Instant::now();
    loop {
        let mut without_lease = Vec::new();
        for user in 0..users {
            let partition = table.read(user).await.unwrap();
            if partition.without_lease() > 0 {
                without_lease.push((user, partition.without_lease(), partition.members.len()));
            }
        }
        if without_lease.is_empty() {
            let in_time = begin.elapsed() < Duration::from_secs(150);
            api.recorder.check(in_time, || "no TTL deletion within 150 s".to_owned());
            if !in_time {
                return;
            }
            // The emulator deletes expired items in real time.
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        for &(user, missing, members) in &without_lease {
            println!("ttl: user {user} has {members} ids on the counter, {missing} of them without a lease");
            let listed = api.list(live_instances(api)[0], user).await;
            api.recorder
                .check(listed.count("count") == 0, || format!("listed streams without leases: {}", listed.body));
            check_limit(api, table, user).await;
        }
        println!("ttl: {} users started exactly {LIMIT} streams each again", without_lease.len());
        return;
    }
}

async fn wait_until_expired(table: &Table, user: usize) {
    let begin = Instant::now();
    while table.read(user).await.unwrap().live_at(now_ms()) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(4 * LEASE_S), "a lease of user {user} does not expire");
        // Leases expire in real time.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts one stream more than the limit allows.
async fn check_limit(api: &Api, table: &Table, user: usize) {
    let plain = StartOptions::default;
    check_starts(api, table, user, [(plain(), 201), (plain(), 201), (plain(), 201), (plain(), 409)]).await;
}

/// Starts one stream more than the rule allows, and one that the rule does not count.
async fn check_rule(api: &Api, table: &Table, user: usize) {
    let uhd = || StartOptions { key: None, body: json!({"labels": {"quality": "uhd"}}) };
    check_starts(api, table, user, [(uhd(), 201), (uhd(), 409), (StartOptions::default(), 201)]).await;
}

/// Checks the statuses of these starts, which are sent to the instances in turn. All starts must complete before the first lease
/// expires. On a slow host, the check makes up to five attempts.
async fn check_starts<const N: usize>(api: &Api, table: &Table, user: usize, starts: [(StartOptions, u16); N]) {
    let instances = live_instances(api);
    let expected: Vec<u16> = starts.iter().map(|(_, status)| *status).collect();
    for _ in 0..5 {
        let begin = Instant::now();
        let mut responses = Vec::new();
        for (n, (options, _)) in starts.iter().enumerate() {
            responses.push(api.start(instances[n % instances.len()], user, options).await);
        }
        let partition = table.read(user).await.unwrap();
        if begin.elapsed() > Duration::from_millis(LEASE_S * 1000 - 500) {
            wait_until_expired(table, user).await;
            continue;
        }
        let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
        api.recorder
            .check(statuses == expected, || format!("starts of user {user} returned {statuses:?}, not {expected:?}"));
        let admitted = responses.iter().filter(|response| response.status == 201);
        let started: BTreeSet<String> = admitted.map(|response| response.text("streamId").to_owned()).collect();
        api.recorder.check(partition.members == started, || {
            format!("user {user} started {started:?}, but the table contains {partition:?}")
        });
        return;
    }
    api.recorder.violation(format!("user {user}: {N} starts took longer than a lease, in five attempts"));
}
