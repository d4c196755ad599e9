//! `migrate`: creates or updates the DynamoDB table, or checks it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use stream_manager::config::{Config, StoreKind};
use stream_manager::migrate;
use stream_manager::store::dynamodb::client::{self, Client};

use super::output::{print, print_error};
use super::{runtime, settings};

#[derive(Args)]
pub struct MigrateArguments {
    /// Only check, and print one line for each difference. Exit code 0: up to date; 1: differs; 3: could not be determined
    #[arg(long)]
    check: bool,
}

/// The exit code if the check could not be completed. 1 means that the table differs, and 2 that the command line is invalid.
const UNKNOWN: u8 = 3;

pub fn run(file: Option<&Path>, arguments: &MigrateArguments) -> Result<ExitCode> {
    if arguments.check {
        return Ok(check(file).unwrap_or_else(|error| {
            print_error(&error);
            UNKNOWN.into()
        }));
    }
    let config = settings::load(file)?;
    runtime::block_on(migrate(&config))
}

fn check(file: Option<&Path>) -> Result<ExitCode> {
    let config = settings::load(file)?;
    runtime::block_on(async {
        let (client, table) = connect(&config).await?;
        let differences = migrate::differences(&client, table).await?;
        if differences.is_empty() {
            print(&format!("table {table:?} is up to date\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let lines: Vec<String> = differences.iter().map(|difference| format!("{difference}\n")).collect();
        print(&lines.concat())?;
        Ok(ExitCode::FAILURE)
    })
}

async fn migrate(config: &Config) -> Result<ExitCode> {
    let (client, table) = connect(config).await?;
    let migrated = migrate::migrate(&client, table).await?;
    let result = match (migrated.created_table, migrated.enabled_ttl) {
        (true, _) => "created, TTL enabled",
        (false, true) => "exists, TTL enabled",
        (false, false) => "is up to date, nothing changed",
    };
    print(&format!("table {table:?} {result}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn connect(config: &Config) -> Result<(Client, &str)> {
    if config.store.kind != StoreKind::DynamoDb {
        bail!("`migrate` requires store.kind = \"dynamodb\": the other stores need no migration");
    }
    Ok((client::load(&config.client()).await?.client(), &config.dynamodb.table))
}
