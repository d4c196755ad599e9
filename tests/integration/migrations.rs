//! `migrate` and `migrate --check`. A missing table is created, a table in use is not changed, and every difference is reported.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification,
};
use stream_manager::clock::ManualClock;
use stream_manager::migrate::{Difference, Migrated, check, differences, migrate};
use stream_manager::store::dynamodb::client;
use stream_manager::store::embedded::Embedded;

use crate::fault_injector::FaultInjector;
use crate::support::client_settings;

const NAME: &str = "some-table";
const KEYS: [(&str, KeyType, ScalarAttributeType); 2] =
    [("userName", KeyType::Hash, ScalarAttributeType::S), ("record", KeyType::Range, ScalarAttributeType::S)];

/// A client of an empty engine, and a recorder of the client's requests.
fn recorded_client() -> (FaultInjector, Client) {
    let engine = Embedded::in_memory(Arc::new(ManualClock::default())).unwrap();
    let recorder = FaultInjector::new(engine.http_client());
    let client = client::in_process(&client_settings(), recorder.http_client());
    (recorder, client)
}

fn new_client() -> Client {
    recorded_client().1
}

async fn create(client: &Client, keys: &[(&str, KeyType, ScalarAttributeType)]) {
    let mut request = client.create_table().table_name(NAME).billing_mode(BillingMode::PayPerRequest);
    for (name, kind, attribute_type) in keys {
        let definition = AttributeDefinition::builder().attribute_name(*name).attribute_type(attribute_type.clone());
        let element = KeySchemaElement::builder().attribute_name(*name).key_type(kind.clone());
        request = request.attribute_definitions(definition.build().unwrap());
        request = request.key_schema(element.build().unwrap());
    }
    request.send().await.unwrap();
}

async fn enable_ttl(client: &Client, attribute: &str) {
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build().unwrap();
    client.update_time_to_live().table_name(NAME).time_to_live_specification(ttl).send().await.unwrap();
}

/// The differences, and the operations that `differences` called to find them.
async fn recorded_differences(recorder: &FaultInjector, client: &Client) -> (Vec<Difference>, Vec<String>) {
    recorder.take_requests();
    let differences = differences(client, NAME).await.unwrap();
    (differences, recorder.take_requests().into_iter().map(|request| request.operation).collect())
}

#[tokio::test]
async fn the_check_only_describes_and_lists_all_of_migrates_changes() {
    let (recorder, client) = recorded_client();
    let no_ttl = || Difference::NoTtl(NAME.to_owned());
    for _ in 0..2 {
        let (differences, operations) = recorded_differences(&recorder, &client).await;
        assert_eq!(differences, [Difference::Missing(NAME.to_owned()), no_ttl()]);
        assert_eq!(operations, ["DescribeTable"]);
    }
    create(&client, &KEYS).await;
    for _ in 0..2 {
        let (differences, operations) = recorded_differences(&recorder, &client).await;
        assert_eq!(differences, [no_ttl()]);
        assert_eq!(operations, ["DescribeTable", "DescribeTimeToLive"]);
    }
    migrate(&client, NAME).await.unwrap();
    assert_eq!(recorded_differences(&recorder, &client).await.0, []);
}

#[tokio::test]
async fn the_check_reports_all_differences_at_once() {
    let client = new_client();
    create(&client, &KEYS[..1]).await;
    enable_ttl(&client, "userName").await;
    let differences = differences(&client, NAME).await.unwrap();
    assert!(
        matches!(&differences[..], [Difference::WrongKeys { .. }, Difference::WrongTtl { .. }]),
        "{differences:?}"
    );
}

#[tokio::test]
async fn an_additional_index_is_no_difference() {
    let client = new_client();
    let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let index = GlobalSecondaryIndex::builder()
        .index_name("by-device")
        .key_schema(key("deviceId", KeyType::Hash))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build());
    let mut table = client.create_table().table_name(NAME).billing_mode(BillingMode::PayPerRequest);
    for name in ["deviceId", "record", "userName"] {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        table = table.attribute_definitions(attribute.build().unwrap());
    }
    let table = table.key_schema(key("userName", KeyType::Hash)).key_schema(key("record", KeyType::Range));
    table.global_secondary_indexes(index.build().unwrap()).send().await.unwrap();
    enable_ttl(&client, "ttl").await;
    assert_eq!(differences(&client, NAME).await.unwrap(), []);
}

#[tokio::test]
async fn migrate_creates_a_missing_table_and_is_idempotent() {
    let client = new_client();
    let missing = check(&client, NAME).await.unwrap_err().to_string();
    assert_eq!(missing, "table \"some-table\" does not exist: run `stream-manager migrate`");
    let first = migrate(&client, NAME).await.unwrap();
    assert_eq!(first, Migrated { created_table: true, enabled_ttl: true });
    check(&client, NAME).await.unwrap();
    let second = migrate(&client, NAME).await.unwrap();
    assert_eq!(second, Migrated { created_table: false, enabled_ttl: false });

    let described = client.describe_table().table_name(NAME).send().await.unwrap().table.unwrap();
    let billing = described.billing_mode_summary.and_then(|summary| summary.billing_mode);
    assert_eq!(billing, Some(BillingMode::PayPerRequest));
    let ttl = client.describe_time_to_live().table_name(NAME).send().await.unwrap();
    assert_eq!(ttl.time_to_live_description.and_then(|ttl| ttl.attribute_name).as_deref(), Some("ttl"));
}

#[tokio::test]
async fn a_table_with_other_keys_is_refused_unchanged() {
    let client = new_client();
    create(&client, &[("userName", KeyType::Hash, ScalarAttributeType::S)]).await;
    for error in [check(&client, NAME).await.unwrap_err(), migrate(&client, NAME).await.unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "table \"some-table\" has the keys HASH userName (S), but the service needs \
             HASH userName (S), RANGE record (S): set another table name in dynamodb.table"
        );
        assert!(!error.is_transient());
    }
    let ttl = client.describe_time_to_live().table_name(NAME).send().await.unwrap();
    assert_eq!(ttl.time_to_live_description.and_then(|ttl| ttl.attribute_name), None, "nothing was changed");
}

#[tokio::test]
async fn migrate_enables_ttl_but_refuses_another_ttl_attribute() {
    let client = new_client();
    create(&client, &KEYS).await;
    let message = check(&client, NAME).await.unwrap_err().to_string();
    assert_eq!(message, "table \"some-table\" has no TTL: run `stream-manager migrate`");
    let migrated = migrate(&client, NAME).await.unwrap();
    assert_eq!(migrated, Migrated { created_table: false, enabled_ttl: true });

    let client = new_client();
    create(&client, &KEYS).await;
    enable_ttl(&client, "expiresAt").await;
    let message = migrate(&client, NAME).await.unwrap_err().to_string();
    assert!(message.contains("\"expiresAt\"") && message.contains("\"ttl\""), "{message}");
}
