//! The store requests and capacity units of each operation (promise G6).

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES, StartOutcome, StartRequest};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::{LeaseStore, StartHint};

use crate::fault_injector::FaultInjector;
use crate::rules::{UHD, labels, rule};
use crate::support::{Fixture, eviction, on_device, renewal, start, stream, unique_user};

/// The requests since the last call, each in the form "OPERATION UNITS".
pub fn take_costs(recorder: &FaultInjector) -> Vec<String> {
    let cost = |capacity: &serde_json::Value| {
        let tables = capacity.as_array().cloned().unwrap_or_else(|| vec![capacity.clone()]);
        tables.iter().filter_map(|table| table["CapacityUnits"].as_f64()).sum::<f64>()
    };
    let requests = recorder.take_requests().into_iter();
    requests.map(|request| format!("{} {}", request.operation, cost(&request.response["ConsumedCapacity"]))).collect()
}

pub async fn recorded_store() -> (FaultInjector, DynamoStore, Fixture) {
    let (recorder, fixture) = FaultInjector::on_embedded().await;
    let store = recorder.store(1);
    (recorder, store, fixture)
}

#[tokio::test]
async fn every_operation_costs_the_promised_requests_and_capacity() {
    let (recorder, store, fixture) = recorded_store().await;
    let (user, now) = (unique_user(), fixture.now());
    let hint = StartHint::Optimistic;

    for n in 1..=3 {
        store.start(&user, &start(n), hint, now).await.unwrap();
        assert_eq!(
            take_costs(&recorder),
            ["TransactWriteItems 4"],
            "an optimistic start: one transaction of two items"
        );
    }
    store.heartbeat(&user, &renewal(1), now.plus_s(1)).await.unwrap();
    assert_eq!(take_costs(&recorder), ["UpdateItem 1"], "a heartbeat: one conditional write to one item");

    store.heartbeat(&user, &renewal(1), now).await.unwrap();
    assert_eq!(take_costs(&recorder).len(), 1, "a late heartbeat: one refused write that returns the lease");

    store.streams(&user, now).await.unwrap();
    assert_eq!(take_costs(&recorder), ["Query 1"], "a count: one consistent read");

    store.stream(&user, stream(1), now).await.unwrap();
    assert_eq!(take_costs(&recorder), ["GetItem 1"]);

    let denied = store.start(&user, &start(4), hint, now).await.unwrap();
    assert!(matches!(denied, StartOutcome::Denied(_)));
    assert_eq!(take_costs(&recorder)[1..], ["Query 1"], "a denial: a refused transaction, then a read");

    store.stop(&user, stream(1)).await.unwrap();
    assert_eq!(take_costs(&recorder), ["TransactWriteItems 4"], "a stop: one transaction of two items");

    store.stop(&user, stream(1)).await.unwrap();
    assert_eq!(take_costs(&recorder).len(), 1, "a repeated stop: one refused transaction");

    store.end(&user, &eviction(2), now).await.unwrap();
    assert_eq!(take_costs(&recorder), ["Query 1", "TransactWriteItems 4"], "an eviction: one query, one transaction");

    store.end(&user, &eviction(2), now).await.unwrap();
    assert_eq!(take_costs(&recorder), ["Query 1"], "a repeated eviction writes nothing");

    store.start(&user, &on_device(5, "tv"), hint, now).await.unwrap();
    assert_eq!(take_costs(&recorder), ["Query 1", "TransactWriteItems 4"], "a start with a device reads first");

    let uhd_rule = [rule("one UHD stream", 1, UHD, None)];
    let ruled = StartRequest { labels: labels(UHD), rules: uhd_rule.into(), ..start(8) };
    store.start(&user, &ruled, hint, now).await.unwrap();
    assert_eq!(
        take_costs(&recorder),
        ["Query 1", "TransactWriteItems 4"],
        "a start to which a rule applies reads first"
    );
    store.stop(&user, stream(8)).await.unwrap();
    take_costs(&recorder);
    let not_ruled = StartRequest { labels: labels(&[("quality", "hd")]), stream_id: stream(8), ..ruled };
    store.start(&user, &not_ruled, hint, now).await.unwrap();
    assert_eq!(take_costs(&recorder), ["TransactWriteItems 4"], "a start to which no rule applies does not read");
    store.stop(&user, stream(8)).await.unwrap();
    take_costs(&recorder);

    let restart = StartRequest { at_limit: AtLimit::EvictOldest, ..on_device(6, "tv") };
    store.start(&user, &restart, hint, now).await.unwrap();
    assert_eq!(
        take_costs(&recorder),
        ["Query 1", "TransactWriteItems 6"],
        "a restart marks the replaced stream in the same transaction"
    );
}

#[tokio::test]
async fn an_eviction_prunes_in_the_same_transaction() {
    let (recorder, store, fixture) = recorded_store().await;
    let (user, now) = (unique_user(), fixture.now());
    let max = MAX_ENDED_LEASES as u8;
    for n in 0..=max {
        store.start(&user, &start(n), StartHint::Optimistic, now).await.unwrap();
        take_costs(&recorder);
        store.end(&user, &eviction(n), now).await.unwrap();
        let costs = take_costs(&recorder);
        let costs: Vec<&str> = costs.iter().map(String::as_str).collect();
        match costs[..] {
            ["Query 1" | "Query 2", "TransactWriteItems 4"] => assert!(n < max, "{n}: {costs:?}"),
            ["Query 2", "TransactWriteItems 6"] => assert_eq!(n, max, "{costs:?}"),
            _ => panic!("{n}: {costs:?}"),
        }
    }
    store.start(&user, &start(100), StartHint::Optimistic, now).await.unwrap();
    take_costs(&recorder);
    store.stop(&user, stream(100)).await.unwrap();
    assert_eq!(take_costs(&recorder), ["TransactWriteItems 4"]);
}

#[tokio::test]
async fn limit_operations_cost_one_request_each() {
    let (recorder, store, fixture) = recorded_store().await;
    let user = unique_user();
    store.set_limit(&user, StreamLimit::new(5)).await.unwrap();
    assert_eq!(take_costs(&recorder), ["UpdateItem 1"]);
    store.limit(&user).await.unwrap();
    assert_eq!(take_costs(&recorder), ["GetItem 1"]);
    store.set_limit(&user, None).await.unwrap();
    assert_eq!(take_costs(&recorder), ["UpdateItem 1"]);
    store.set_limit(&user, StreamLimit::new(5)).await.unwrap();
    take_costs(&recorder);
    store.start(&user, &start(1), StartHint::Optimistic, fixture.now()).await.unwrap();
    let costs = take_costs(&recorder);
    assert_eq!(
        costs[1..],
        ["Query 1", "TransactWriteItems 4"],
        "the refused transaction, a read of the stored limit, and the start"
    );
    let with_token_limit = StartRequest { token_limit: StreamLimit::new(7), ..start(2) };
    store.start(&user, &with_token_limit, StartHint::Optimistic, fixture.now()).await.unwrap();
    assert_eq!(
        take_costs(&recorder),
        ["TransactWriteItems 4"],
        "a token limit overrides the stored one and needs no read"
    );
}
