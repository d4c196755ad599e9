//! Migrations: the table is created once, nothing that is there is changed, what does not fit is refused, and what is
//! missing is told without changing anything.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification,
};
use stream_manager::clock::ManualClock;
use stream_manager::migrate::{Difference, Migrated, check, differences, migrate};
use stream_manager::store::dynamodb::client;
use stream_manager::store::embedded::Embedded;

use crate::support::{Tap, client_settings};

const NAME: &str = "some-table";
const KEYS: [(&str, KeyType, ScalarAttributeType); 2] =
    [("userName", KeyType::Hash, ScalarAttributeType::S), ("record", KeyType::Range, ScalarAttributeType::S)];

fn engine() -> Client {
    let engine = Embedded::in_memory(Arc::new(ManualClock::default())).expect("an engine");
    client::in_process(&client_settings(), engine.http_client())
}

async fn create(client: &Client, keys: &[(&str, KeyType, ScalarAttributeType)]) {
    let mut request = client.create_table().table_name(NAME).billing_mode(BillingMode::PayPerRequest);
    for (name, kind, attribute_type) in keys {
        let definition = AttributeDefinition::builder().attribute_name(*name).attribute_type(attribute_type.clone());
        let element = KeySchemaElement::builder().attribute_name(*name).key_type(kind.clone());
        request = request.attribute_definitions(definition.build().expect("a definition"));
        request = request.key_schema(element.build().expect("a key"));
    }
    request.send().await.expect("a table");
}

async fn enable_ttl(client: &Client, attribute: &str) {
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build().expect("a ttl");
    client.update_time_to_live().table_name(NAME).time_to_live_specification(ttl).send().await.expect("a ttl");
}

/// What the check said, and by which requests.
async fn checked(tap: &Tap, client: &Client) -> (Vec<Difference>, Vec<String>) {
    tap.take();
    let differences = differences(client, NAME).await.expect("an answer");
    (differences, tap.take().into_iter().map(|passed| passed.operation).collect())
}

#[tokio::test]
async fn the_check_tells_all_that_migrate_would_do_by_describing_alone_and_changes_nothing() {
    let engine = Embedded::in_memory(Arc::new(ManualClock::default())).expect("an engine");
    let tap = Tap::before(engine.http_client());
    let client = client::in_process(&client_settings(), SharedHttpClient::new(tap.clone()));
    let no_ttl = Difference::NoTtl(NAME.to_owned());
    for _ in 0..2 {
        let (differences, operations) = checked(&tap, &client).await;
        assert_eq!(differences, [Difference::Missing(NAME.to_owned()), Difference::NoTtl(NAME.to_owned())]);
        assert_eq!(operations, ["DescribeTable"]);
    }
    create(&client, &KEYS).await;
    for _ in 0..2 {
        let (differences, operations) = checked(&tap, &client).await;
        assert_eq!((differences.as_slice(), operations.len()), (std::slice::from_ref(&no_ttl), 2));
        assert_eq!(operations, ["DescribeTable", "DescribeTimeToLive"]);
    }
    migrate(&client, NAME).await.expect("a migration");
    assert_eq!(checked(&tap, &client).await.0, []);
}

#[tokio::test]
async fn the_check_tells_everything_that_is_wrong_at_once() {
    let client = engine();
    create(&client, &KEYS[..1]).await;
    enable_ttl(&client, "userName").await;
    let differences = differences(&client, NAME).await.expect("an answer");
    assert!(
        matches!(&differences[..], [Difference::WrongKeys { .. }, Difference::WrongTtl { .. }]),
        "{differences:?}"
    );
}

#[tokio::test]
async fn an_index_that_a_newer_version_added_is_no_difference() {
    let client = engine();
    let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("a key");
    let index = GlobalSecondaryIndex::builder()
        .index_name("by-device")
        .key_schema(key("deviceId", KeyType::Hash))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build());
    let mut table = client.create_table().table_name(NAME).billing_mode(BillingMode::PayPerRequest);
    for name in ["deviceId", "record", "userName"] {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        table = table.attribute_definitions(attribute.build().expect("a definition"));
    }
    let table = table.key_schema(key("userName", KeyType::Hash)).key_schema(key("record", KeyType::Range));
    table.global_secondary_indexes(index.build().expect("an index")).send().await.expect("a table");
    enable_ttl(&client, "ttl").await;
    assert_eq!(differences(&client, NAME).await.expect("an answer"), []);
}

#[tokio::test]
async fn a_missing_table_is_created_and_a_second_run_changes_nothing() {
    let client = engine();
    let missing = check(&client, NAME).await.expect_err("no table yet").to_string();
    assert_eq!(missing, "table \"some-table\" does not exist: run `stream-manager migrate`");
    let first = migrate(&client, NAME).await.expect("a migration");
    assert_eq!(first, Migrated { created_table: true, enabled_ttl: true });
    check(&client, NAME).await.expect("what the service needs");
    let second = migrate(&client, NAME).await.expect("a migration");
    assert_eq!(second, Migrated { created_table: false, enabled_ttl: false });

    let described = client.describe_table().table_name(NAME).send().await.expect("a table").table.expect("a table");
    let billing = described.billing_mode_summary.and_then(|summary| summary.billing_mode);
    assert_eq!(billing, Some(BillingMode::PayPerRequest));
    let ttl = client.describe_time_to_live().table_name(NAME).send().await.expect("a ttl");
    assert_eq!(ttl.time_to_live_description.and_then(|ttl| ttl.attribute_name).as_deref(), Some("ttl"));
}

#[tokio::test]
async fn a_table_with_other_keys_is_refused_and_both_are_shown() {
    let client = engine();
    create(&client, &[("userName", KeyType::Hash, ScalarAttributeType::S)]).await;
    for error in [check(&client, NAME).await.expect_err("wrong"), migrate(&client, NAME).await.expect_err("wrong")] {
        assert_eq!(
            error.to_string(),
            "table \"some-table\" has the keys HASH userName (S), but the service needs \
             HASH userName (S), RANGE record (S): set another table name in dynamodb.table"
        );
        assert!(!error.is_transient());
    }
    let ttl = client.describe_time_to_live().table_name(NAME).send().await.expect("a ttl");
    assert_eq!(ttl.time_to_live_description.and_then(|ttl| ttl.attribute_name), None, "nothing was changed");
}

#[tokio::test]
async fn a_table_without_ttl_gets_it_and_one_with_another_is_refused() {
    let client = engine();
    create(&client, &KEYS).await;
    let message = check(&client, NAME).await.expect_err("no TTL").to_string();
    assert_eq!(message, "table \"some-table\" has no TTL: run `stream-manager migrate`");
    let migrated = migrate(&client, NAME).await.expect("a migration");
    assert_eq!(migrated, Migrated { created_table: false, enabled_ttl: true });

    let client = engine();
    create(&client, &KEYS).await;
    enable_ttl(&client, "expiresAt").await;
    let message = migrate(&client, NAME).await.expect_err("another TTL").to_string();
    assert!(message.contains("\"expiresAt\"") && message.contains("\"ttl\""), "{message}");
}
