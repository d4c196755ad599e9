//! After the race: the table must not have suffered. Every user can start exactly as many streams as the limit says,
//! also when TTL has deleted leases whose ids still hold a slot.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{Api, LIMIT, StartWith, now_ms};
use crate::process::LEASE_S;
use crate::table::Table;

/// Waits until every lease has run out, then counts what each user may start.
pub async fn all_users_have_their_limit(api: &Api, table: &Table, users: usize) {
    for user in 0..users {
        wait_until_expired(table, user).await;
        exactly_the_limit(api, table, user).await;
    }
    println!("finale: {users} users started exactly {LIMIT} each through the instances that are left");
}

/// Waits for a real TTL deletion of a lease that is still counted. Bounded by two sweeps and some.
pub async fn after_a_ttl_deletion(api: &Api, table: &Table, users: usize) {
    let begin = Instant::now();
    loop {
        let mut without_lease = Vec::new();
        for user in 0..users {
            let partition = table.read(user).await.expect("the store is well");
            if partition.without_lease() > 0 {
                without_lease.push((user, partition.without_lease(), partition.members.len()));
            }
        }
        if without_lease.is_empty() {
            let patience = begin.elapsed() < Duration::from_secs(150);
            api.board.expect(patience, || "no TTL deletion within 150 s".to_owned());
            if !patience {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        for &(user, missing, members) in &without_lease {
            println!("ttl: user {user} has {members} ids on the counter, {missing} of them without a lease");
            let listed = api.list(survivors(api)[0], user).await;
            api.board.expect(listed.count("count") == 0, || format!("streams without leases: {}", listed.body));
            exactly_the_limit(api, table, user).await;
        }
        println!("ttl: {} users again started exactly {LIMIT} each", without_lease.len());
        return;
    }
}

async fn wait_until_expired(table: &Table, user: usize) {
    let begin = Instant::now();
    while table.read(user).await.expect("the store is well").live_at(now_ms()) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(4 * LEASE_S), "user {user} has a lease that does not run out");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Plain starts through the instances in turn. Has to be done before the first lease runs out: if the host was too
/// slow for that, it is done again.
async fn exactly_the_limit(api: &Api, table: &Table, user: usize) {
    let instances = survivors(api);
    for _ in 0..5 {
        let begin = Instant::now();
        let mut answers = Vec::new();
        for n in 0..=LIMIT {
            answers.push(api.start(instances[n % instances.len()], user, &StartWith::default()).await);
        }
        let partition = table.read(user).await.expect("the store is well");
        if begin.elapsed() > Duration::from_millis(LEASE_S * 1000 - 500) {
            wait_until_expired(table, user).await;
            continue;
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        api.board.expect(statuses == [201, 201, 201, 409], || format!("user {user} started {statuses:?}"));
        let started: BTreeSet<String> =
            answers[..LIMIT].iter().map(|answer| answer.text("streamId").to_owned()).collect();
        api.board.expect(partition.members == started, || {
            format!("user {user} started {started:?}, the table has {partition:?}")
        });
        return;
    }
    api.board.violation(format!("user {user}: four starts take longer than a lease lasts, five times"));
}

fn survivors(api: &Api) -> Vec<usize> {
    (0..api.instances.len()).filter(|number| api.instances[*number].alive()).collect()
}
