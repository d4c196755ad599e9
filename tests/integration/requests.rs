//! What each verb costs: requests and capacity units, counted on the way to the engine (promise G6).

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES, StartOutcome, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::store::{LeaseStore, StartHint, StoppedBy};

use crate::support::{Backing, Fixture, TERMS, Tap, on_device, someone, start, stream};

/// The requests since the last look, as "operation units".
pub fn costs(tap: &Tap) -> Vec<String> {
    tap.take()
        .iter()
        .map(|passed| {
            let capacity = &passed.answer["ConsumedCapacity"];
            let tables = capacity.as_array().cloned().unwrap_or_else(|| vec![capacity.clone()]);
            let units: f64 = tables.iter().filter_map(|table| table["CapacityUnits"].as_f64()).sum();
            format!("{} {units}", passed.operation)
        })
        .collect()
}

pub async fn tapped() -> (Tap, impl LeaseStore, Fixture) {
    let fixture = Fixture::embedded().await.expect("an engine");
    let Backing::Embedded(engine, _) = &fixture.backing else { panic!("embedded") };
    let tap = Tap::before(engine.http_client());
    let store = tap.store(1);
    (tap, store, fixture)
}

#[tokio::test]
async fn every_verb_takes_the_promised_requests_and_capacity() {
    let (tap, store, fixture) = tapped().await;
    let (user, now) = (someone(), fixture.now());
    let expect = StartHint::Optimistic;

    for n in 1..=3 {
        store.start(&user, &start(n), expect, now).await.expect("a start");
        assert_eq!(costs(&tap), ["TransactWriteItems 4"], "a plain start: one transaction of two items");
    }
    store.heartbeat(&user, stream(1), TERMS, now.plus_s(1)).await.expect("a heartbeat");
    assert_eq!(costs(&tap), ["UpdateItem 1"], "a heartbeat: one conditional write to one item");

    store.heartbeat(&user, stream(1), TERMS, now).await.expect("a heartbeat");
    assert_eq!(costs(&tap).len(), 1, "a late one is refused and answered by the same request");

    store.streams(&user, now).await.expect("a count");
    assert_eq!(costs(&tap), ["Query 1"], "a count: one consistent read");

    store.stream(&user, stream(1), now).await.expect("a look");
    assert_eq!(costs(&tap), ["GetItem 1"]);

    let denied = store.start(&user, &start(4), expect, now).await.expect("a denial");
    assert!(matches!(denied, StartOutcome::Denied(_)));
    assert_eq!(costs(&tap)[1..], ["Query 1"], "a denial: the refused transaction, then the read that explains it");

    store.stop(&user, stream(1), StoppedBy::Player, TERMS, now).await.expect("a stop");
    assert_eq!(costs(&tap), ["TransactWriteItems 4"], "a stop: one transaction of two items");

    store.stop(&user, stream(1), StoppedBy::Player, TERMS, now).await.expect("a stop");
    assert_eq!(costs(&tap).len(), 1, "a repeated stop: one refused transaction");

    store.stop(&user, stream(2), StoppedBy::Evictor, TERMS, now).await.expect("an eviction");
    assert_eq!(costs(&tap), ["TransactWriteItems 4", "Query 1"], "an eviction looks afterwards what is to be pruned");

    store.stop(&user, stream(2), StoppedBy::Evictor, TERMS, now).await.expect("an eviction");
    assert_eq!(costs(&tap).len(), 1, "a repeated one: one refused transaction");

    store.start(&user, &on_device(5, "tv"), expect, now).await.expect("a start");
    assert_eq!(costs(&tap), ["Query 1", "TransactWriteItems 4"], "a start with a device looks first");

    let restart = StartRequest { at_limit: AtLimit::EvictOldest, ..on_device(6, "tv") };
    store.start(&user, &restart, expect, now).await.expect("a restart");
    assert_eq!(
        costs(&tap),
        ["Query 1", "TransactWriteItems 6"],
        "and marks what it replaces in the same transaction"
    );
}

#[tokio::test]
async fn an_eviction_that_forgets_takes_one_transaction_more_and_the_players_own_stop_does_not() {
    let (tap, store, fixture) = tapped().await;
    let (user, now) = (someone(), fixture.now());
    let most = MAX_ENDED_LEASES as u8;
    for n in 0..=most {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.expect("a start");
        costs(&tap);
        store.stop(&user, stream(n), StoppedBy::Evictor, TERMS, now).await.expect("an eviction");
        let costs = costs(&tap);
        let costs: Vec<&str> = costs.iter().map(String::as_str).collect();
        match costs[..] {
            ["TransactWriteItems 4", "Query 1" | "Query 2"] => assert!(n < most, "{n}: {costs:?}"),
            ["TransactWriteItems 4", "Query 2", "TransactWriteItems 2"] => assert_eq!(n, most, "{costs:?}"),
            _ => panic!("{n}: {costs:?}"),
        }
    }
    store.start(&user, &start(100), StartHint::Optimistic, now).await.expect("a start");
    costs(&tap);
    store.stop(&user, stream(100), StoppedBy::Player, TERMS, now).await.expect("a stop");
    assert_eq!(costs(&tap), ["TransactWriteItems 4"]);
}

#[tokio::test]
async fn limits_take_one_request_each() {
    let (tap, store, fixture) = tapped().await;
    let user = someone();
    store.set_limit(&user, StreamLimit::new(5)).await.expect("a limit");
    assert_eq!(costs(&tap), ["UpdateItem 1"]);
    store.limit(&user).await.expect("a limit");
    assert_eq!(costs(&tap), ["GetItem 1"]);
    store.set_limit(&user, None).await.expect("no limit");
    assert_eq!(costs(&tap), ["UpdateItem 1"]);
    store.set_limit(&user, StreamLimit::new(5)).await.expect("a limit");
    costs(&tap);
    store.start(&user, &start(1), StartHint::Optimistic, fixture.now()).await.expect("a start");
    let own_limit = costs(&tap);
    assert_eq!(own_limit[1..], ["Query 1", "TransactWriteItems 4"], "a user's own limit is only known from a read");
    let by_token = StartRequest { token_limit: StreamLimit::new(7), ..start(2) };
    store.start(&user, &by_token, StartHint::Optimistic, fixture.now()).await.expect("a start");
    assert_eq!(costs(&tap), ["TransactWriteItems 4"], "one that a token says is known without, whatever is stored");
}
