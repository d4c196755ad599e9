//! The prices, quotas and measured rates of a plan, each with its source. They are built in; a file can override them.

use std::path::Path;

use config::{File, FileFormat};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

const BUILT_IN: &str = include_str!("prices.toml");

#[derive(Debug, Error)]
pub enum PriceError {
    #[error("cannot read the prices: {0}")]
    Unreadable(String),
    #[error("prices: {key} = {value}: {problem}")]
    Invalid { key: String, value: String, problem: String },
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub currency: String,
    pub region: String,
    pub hours_per_month: f64,
    pub dynamodb: DynamoDb,
    pub quotas: Quotas,
    pub instance: Instance,
    pub fargate: Fargate,
    pub load_balancer: LoadBalancer,
    pub traffic: Traffic,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DynamoDb {
    pub source: String,
    pub as_of: String,
    pub million_write_units: f64,
    pub million_read_units: f64,
    pub write_unit_hour: f64,
    pub read_unit_hour: f64,
    pub storage_gb_month: f64,
    pub recovery_gb_month: f64,
    pub reserved_saves_percent: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    pub source: String,
    pub as_of: String,
    pub table_write_units: f64,
    pub table_read_units: f64,
    pub account_write_units: f64,
    pub new_table_write_units: f64,
    pub partition_write_units: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    pub source: String,
    pub as_of: String,
    pub heartbeats_per_second: f64,
    pub target_percent: f64,
    pub at_least: f64,
    pub vcpus: f64,
    pub memory_gb: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fargate {
    pub source: String,
    pub as_of: String,
    pub vcpu_hour: f64,
    pub gb_hour: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancer {
    pub source: String,
    pub as_of: String,
    pub hour: f64,
    pub unit_hour: f64,
    pub unit_new_connections_per_second: f64,
    pub unit_active_connections: f64,
    pub unit_gb_per_hour: f64,
    pub idle_timeout_s: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    pub source: String,
    pub as_of: String,
    pub gb_out: f64,
    pub request_bytes: f64,
    pub answer_bytes: f64,
}

impl Prices {
    /// Reads the built-in prices and the overrides in `file`.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, or a value that is not allowed.
    pub fn load(file: Option<&Path>) -> Result<Self, PriceError> {
        let mut layers = config::Config::builder().add_source(File::from_str(BUILT_IN, FileFormat::Toml));
        if let Some(file) = file {
            layers = layers.add_source(File::from(file).format(FileFormat::Toml));
        }
        let values: Value = layers
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| PriceError::Unreadable(error.to_string()))?;
        let invalid = |key: String, problem: String| {
            let value = key.split('.').fold(&values, |value, part| &value[part]).to_string();
            PriceError::Invalid { key, value, problem }
        };
        let prices: Self = serde_path_to_error::deserialize(&values)
            .map_err(|error| invalid(error.path().to_string(), error.inner().to_string()))?;
        prices.check().map_err(|(key, problem)| invalid(key.to_owned(), problem.to_owned()))?;
        Ok(prices)
    }

    /// Rejects negative values, zeros in divisors, and percentages above 100.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let Self { dynamodb, quotas, instance, fargate, load_balancer, traffic, .. } = self;
        for (key, value) in [
            ("dynamodb.million_write_units", dynamodb.million_write_units),
            ("dynamodb.million_read_units", dynamodb.million_read_units),
            ("dynamodb.write_unit_hour", dynamodb.write_unit_hour),
            ("dynamodb.read_unit_hour", dynamodb.read_unit_hour),
            ("dynamodb.storage_gb_month", dynamodb.storage_gb_month),
            ("dynamodb.recovery_gb_month", dynamodb.recovery_gb_month),
            ("instance.heartbeats_per_second", instance.heartbeats_per_second),
            ("instance.at_least", instance.at_least),
            ("instance.vcpus", instance.vcpus),
            ("instance.memory_gb", instance.memory_gb),
            ("fargate.vcpu_hour", fargate.vcpu_hour),
            ("fargate.gb_hour", fargate.gb_hour),
            ("load_balancer.hour", load_balancer.hour),
            ("load_balancer.unit_hour", load_balancer.unit_hour),
            ("traffic.gb_out", traffic.gb_out),
            ("traffic.request_bytes", traffic.request_bytes),
            ("traffic.answer_bytes", traffic.answer_bytes),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err((key, "must be 0 or more"));
            }
        }
        for (key, value) in [
            ("hours_per_month", self.hours_per_month),
            ("quotas.table_write_units", quotas.table_write_units),
            ("quotas.table_read_units", quotas.table_read_units),
            ("quotas.account_write_units", quotas.account_write_units),
            ("quotas.new_table_write_units", quotas.new_table_write_units),
            ("quotas.partition_write_units", quotas.partition_write_units),
            ("instance.target_percent", instance.target_percent),
            ("load_balancer.unit_new_connections_per_second", load_balancer.unit_new_connections_per_second),
            ("load_balancer.unit_active_connections", load_balancer.unit_active_connections),
            ("load_balancer.unit_gb_per_hour", load_balancer.unit_gb_per_hour),
            ("load_balancer.idle_timeout_s", load_balancer.idle_timeout_s),
        ] {
            if !value.is_finite() || value <= 0.0 {
                return Err((key, "must be above 0"));
            }
        }
        for (key, value) in [
            ("dynamodb.reserved_saves_percent", dynamodb.reserved_saves_percent),
            ("instance.target_percent", instance.target_percent),
        ] {
            if !(0.0..=100.0).contains(&value) {
                return Err((key, "must be 0 to 100"));
            }
        }
        Ok(())
    }
}
