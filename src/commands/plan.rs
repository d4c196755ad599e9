//! `plan`: estimates cost and capacity on AWS.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use stream_manager::config::Config;
use stream_manager::planning::demand::{Demand, Terms};
use stream_manager::planning::prices::Prices;
use stream_manager::planning::{Plan, report};

use super::output::print;
use super::settings;

#[derive(Args)]
pub struct PlanArguments {
    #[command(flatten)]
    demand: Demand,
    /// Heartbeat interval. Default: the configured value
    #[arg(long, value_name = "SECONDS")]
    heartbeat: Option<u64>,
    /// Lease duration. Default: the configured value, or 3 × --heartbeat
    #[arg(long, value_name = "SECONDS")]
    lease: Option<u64>,
    /// File that overrides the built-in prices of src/planning/prices.toml
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(file: Option<&Path>, arguments: &PlanArguments) -> Result<ExitCode> {
    let config = load(file, arguments)?;
    let terms = Terms {
        heartbeat_s: config.lease.heartbeat_interval_s.get(),
        lease_s: config.lease.duration_s.get(),
        streams_per_user: config.limits.streams_per_user.get(),
        rules: config.limits.rules.len() as u64,
        starts_per_minute: config.rate.starts_per_minute.get(),
        heartbeats_per_minute: config.rate.heartbeats_per_minute.get(),
    };
    let prices = Prices::load(arguments.prices.as_deref())?;
    let plan = Plan::new(&arguments.demand, terms, &prices);
    print(&if arguments.json { report::json(&plan) } else { report::text(&plan) })?;
    Ok(ExitCode::SUCCESS)
}

/// Loads the settings. Heartbeat and lease from the command line override them, and are checked against the same bounds.
fn load(file: Option<&Path>, arguments: &PlanArguments) -> Result<Config> {
    let mut environment = settings::environment()?;
    let mut set = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            environment.retain(|other, _| !other.eq_ignore_ascii_case(name));
            environment.insert(name.to_owned(), value.to_string());
        }
    };
    set("STREAM_MANAGER__LEASE__HEARTBEAT_INTERVAL_S", arguments.heartbeat);
    let default_lease = arguments.heartbeat.map(|heartbeat_s| heartbeat_s.saturating_mul(3));
    set("STREAM_MANAGER__LEASE__DURATION_S", arguments.lease.or(default_lease));
    Ok(Config::load(file, environment)?)
}
