//! The input of a plan: the expected load from the command line, and the settings that affect the result.

use clap::Args;
use serde::Serialize;

/// docs/CAPACITY.md explains the defaults.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Demand {
    /// Concurrent streams at the peak
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub streams: u64,
    /// Average number of streams over a month, in percent of the peak
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub average_percent: u64,
    /// Length of a stream
    #[arg(long, value_name = "MINUTES", default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub session_minutes: u64,
    /// Count and list requests per start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub counts_per_start: u64,
    /// Starts with a device id, which read before they write, in percent of all starts
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub device_percent: u64,
    /// Starts to which a rule of limits.rules applies, which also read before they write, in percent of the starts without a device
    /// id. Default: 100 if the settings contain rules, otherwise 0
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub rule_percent: Option<u64>,
    /// Starts that are denied at the limit, in percent of all starts
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=90))]
    pub denied_percent: u64,
    /// Size of a lease in the table. Above 1024 bytes, writes cost twice as much
    #[arg(long, value_name = "BYTES", default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..=4096))]
    pub lease_bytes: u64,
    /// Distinct users (one permanent item each). Default: --streams
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000_000))]
    pub users: Option<u64>,
    /// Shortest time in which all streams start, such as at kick-off
    #[arg(long, value_name = "MINUTES", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub ramp_minutes: u64,
    /// Target utilization of provisioned capacity in percent. The default equals that of AWS auto scaling
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u64).range(20..=90))]
    pub utilization_percent: u64,
}

/// The settings that affect a plan, already validated.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Terms {
    pub heartbeat_s: u64,
    pub lease_s: u64,
    pub streams_per_user: u64,
    /// The number of rules in `limits.rules`.
    pub rules: u64,
    /// Rate limits per user and instance. 0 means no limit.
    pub starts_per_minute: u64,
    pub heartbeats_per_minute: u64,
}

impl Demand {
    /// Starts to which a rule applies, in percent of the starts without a device id.
    pub(super) fn rule_percent(&self, terms: &Terms) -> u64 {
        self.rule_percent.unwrap_or(if terms.rules > 0 { 100 } else { 0 })
    }
}
