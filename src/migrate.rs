//! The table migration: creates the table, waits until it is active, and enables TTL. It changes no existing key
//! schema or TTL attribute, and deletes nothing.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use serde::Deserialize;
use thiserror::Error;

use crate::store::dynamodb::errors::with_causes;

const CREATE_TABLE: &str = include_str!("../migrations/0001_user-streams.CreateTable.json");
const UPDATE_TIME_TO_LIVE: &str = include_str!("../migrations/0002_user-streams.UpdateTimeToLive.json");

/// The time limit for a new table to become active. It usually takes seconds.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The changes that a migration made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    pub created_table: bool,
    pub enabled_ttl: bool,
}

/// A difference between the existing table and the table that the service needs.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Difference {
    #[error("table {0:?} does not exist: run `stream-manager migrate`")]
    Missing(String),
    #[error("table {table:?} is {status}, not active: `stream-manager migrate` waits for it")]
    NotActive { table: String, status: String },
    #[error(
        "table {table:?} has the keys {found}, but the service needs {needed}: set another table name in dynamodb.table"
    )]
    WrongKeys { table: String, found: String, needed: String },
    #[error("table {0:?} has no TTL: run `stream-manager migrate`")]
    NoTtl(String),
    #[error(
        "table {table:?} has TTL on attribute {found:?} instead of {needed:?}: disable it, then run `stream-manager migrate`"
    )]
    WrongTtl { table: String, found: String, needed: String },
}

#[derive(Debug, Error)]
pub enum MigrateError {
    #[error(transparent)]
    Differs(#[from] Difference),
    #[error("invalid migration files: {0}")]
    Files(String),
    /// A retry can succeed.
    #[error("DynamoDB request failed: {0}")]
    Store(String),
}

impl MigrateError {
    /// Whether a retry can succeed without a change by an operator.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Differs(Difference::NotActive { .. }))
    }
}

/// Applies all migrations. It is safe to run repeatedly and concurrently.
pub async fn migrate(client: &Client, table: &str) -> Result<Migrated, MigrateError> {
    let needed: CreateTable = parse(CREATE_TABLE)?;
    let created_table = describe(client, table).await?.is_none() && create(client, table, &needed).await?;
    wait_until_active(client, table, &needed).await?;
    let enabled_ttl = match check_ttl(client, table).await {
        Ok(()) => false,
        Err(MigrateError::Differs(Difference::NoTtl(_))) => enable_ttl(client, table).await?,
        Err(error) => return Err(error),
    };
    Ok(Migrated { created_table, enabled_ttl })
}

/// Checks the table without changing it. Returns the first difference as an error.
pub async fn check(client: &Client, table: &str) -> Result<(), MigrateError> {
    differences(client, table).await?.into_iter().next().map_or(Ok(()), |difference| Err(difference.into()))
}

/// Returns all differences without changing the table. [`migrate`] fixes some of them and fails on the others.
pub async fn differences(client: &Client, table: &str) -> Result<Vec<Difference>, MigrateError> {
    let needed: CreateTable = parse(CREATE_TABLE)?;
    let Some(found) = describe(client, table).await? else {
        return Ok(vec![Difference::Missing(table.to_owned()), Difference::NoTtl(table.to_owned())]);
    };
    let mut differences = Vec::new();
    differences.extend(check_keys(table, &found, &needed).err());
    differences.extend(check_active(table, &found).err());
    match check_ttl(client, table).await {
        Ok(()) => {}
        Err(MigrateError::Differs(difference)) => differences.push(difference),
        Err(error) => return Err(error),
    }
    Ok(differences)
}

/// The fields of a CreateTable request that the migration file uses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct CreateTable {
    #[serde(rename = "TableName")]
    _table_name: String,
    attribute_definitions: Vec<Attribute>,
    key_schema: Vec<Key>,
    billing_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Attribute {
    attribute_name: String,
    attribute_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Key {
    attribute_name: String,
    key_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct UpdateTimeToLive {
    #[serde(rename = "TableName")]
    _table_name: String,
    time_to_live_specification: Ttl,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Ttl {
    enabled: bool,
    attribute_name: String,
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, MigrateError> {
    serde_json::from_str(json).map_err(|error| MigrateError::Files(error.to_string()))
}

async fn describe(client: &Client, table: &str) -> Result<Option<TableDescription>, MigrateError> {
    match client.describe_table().table_name(table).send().await {
        Ok(described) => Ok(described.table),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
            Ok(None)
        }
        Err(error) => Err(store_error(error)),
    }
}

/// Creates the table. Returns false if it already exists.
async fn create(client: &Client, table: &str, needed: &CreateTable) -> Result<bool, MigrateError> {
    let mut request =
        client.create_table().table_name(table).billing_mode(BillingMode::from(needed.billing_mode.as_str()));
    for attribute in &needed.attribute_definitions {
        let definition = AttributeDefinition::builder()
            .attribute_name(&attribute.attribute_name)
            .attribute_type(ScalarAttributeType::from(attribute.attribute_type.as_str()));
        request = request.attribute_definitions(definition.build()?);
    }
    for key in &needed.key_schema {
        let element = KeySchemaElement::builder()
            .attribute_name(&key.attribute_name)
            .key_type(KeyType::from(key.key_type.as_str()));
        request = request.key_schema(element.build()?);
    }
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => Ok(false),
        Err(error) => Err(store_error(error)),
    }
}

async fn wait_until_active(client: &Client, table: &str, needed: &CreateTable) -> Result<(), MigrateError> {
    let mut waiting = Ok(());
    for _ in 0..ACTIVE_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if let Some(found) = describe(client, table).await? {
            check_keys(table, &found, needed)?;
            waiting = check_active(table, &found);
            if waiting.is_ok() {
                return Ok(());
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Err(waiting.err().unwrap_or_else(|| Difference::Missing(table.to_owned())).into())
}

fn check_active(table: &str, found: &TableDescription) -> Result<(), Difference> {
    match &found.table_status {
        Some(TableStatus::Active | TableStatus::Updating) | None => Ok(()),
        Some(other) => Err(Difference::NotActive { table: table.to_owned(), status: other.to_string() }),
    }
}

fn check_keys(table: &str, found: &TableDescription, needed: &CreateTable) -> Result<(), Difference> {
    let type_of = |name: &str| {
        let mut definitions = found.attribute_definitions().iter();
        definitions
            .find(|definition| definition.attribute_name() == name)
            .map_or("?", |d| d.attribute_type().as_str())
    };
    let found_keys = found.key_schema().iter().map(|key| {
        format!("{} {} ({})", key.key_type().as_str(), key.attribute_name(), type_of(key.attribute_name()))
    });
    let needed_type = |name: &str| {
        let mut definitions = needed.attribute_definitions.iter();
        definitions.find(|definition| definition.attribute_name == name).map_or("?", |d| d.attribute_type.as_str())
    };
    let needed_keys = needed
        .key_schema
        .iter()
        .map(|key| format!("{} {} ({})", key.key_type, key.attribute_name, needed_type(&key.attribute_name)));
    let (found, needed) = (found_keys.collect::<Vec<_>>().join(", "), needed_keys.collect::<Vec<_>>().join(", "));
    if found == needed { Ok(()) } else { Err(Difference::WrongKeys { table: table.to_owned(), found, needed }) }
}

async fn check_ttl(client: &Client, table: &str) -> Result<(), MigrateError> {
    let needed = parse::<UpdateTimeToLive>(UPDATE_TIME_TO_LIVE)?.time_to_live_specification;
    let described = client.describe_time_to_live().table_name(table).send().await.map_err(store_error)?;
    let ttl = described.time_to_live_description;
    match ttl.as_ref().and_then(|ttl| ttl.time_to_live_status()) {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {
            let found = ttl.and_then(|ttl| ttl.attribute_name).unwrap_or_default();
            if found == needed.attribute_name {
                return Ok(());
            }
            Err(Difference::WrongTtl { table: table.to_owned(), found, needed: needed.attribute_name }.into())
        }
        _ => Err(Difference::NoTtl(table.to_owned()).into()),
    }
}

/// Enables TTL. Returns false if another process enabled it at the same time.
async fn enable_ttl(client: &Client, table: &str) -> Result<bool, MigrateError> {
    let needed = parse::<UpdateTimeToLive>(UPDATE_TIME_TO_LIVE)?.time_to_live_specification;
    let specification =
        TimeToLiveSpecification::builder().enabled(needed.enabled).attribute_name(needed.attribute_name).build()?;
    match client.update_time_to_live().table_name(table).time_to_live_specification(specification).send().await {
        Ok(_) => Ok(true),
        // DynamoDB returns a ValidationException if TTL is already enabled, so check the current state.
        Err(error) => check_ttl(client, table).await.map(|()| false).map_err(|_| store_error(error)),
    }
}

fn store_error<E: ProvideErrorMetadata + std::error::Error + 'static>(error: SdkError<E>) -> MigrateError {
    MigrateError::Store(with_causes(&error))
}

impl From<BuildError> for MigrateError {
    fn from(error: BuildError) -> Self {
        Self::Files(with_causes(&error))
    }
}
