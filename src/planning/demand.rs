//! What a plan is asked for: how much is watched, and how. Plain data, as the command line gives it.

use clap::Args;
use serde::Serialize;

/// What docs/CAPACITY.md says of the defaults is theirs.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Demand {
    /// Streams that play at once, at the peak
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub streams: u64,
    /// Streams on the average of a month, in percent of the peak
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub average_percent: u64,
    /// How long one is watched
    #[arg(long, value_name = "MINUTES", default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub session_minutes: u64,
    /// Counts or lists that are asked for, for each start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub counts_per_start: u64,
    /// Starts with a device id, which look before they write, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub device_percent: u64,
    /// Starts that are denied at the limit, in percent of all
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=90))]
    pub denied_percent: u64,
    /// How large a lease is in the table; more than 1024 bytes cost twice as much
    #[arg(long, value_name = "BYTES", default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..=4096))]
    pub lease_bytes: u64,
    /// Users that ever started a stream: each has one small item for ever. As many as streams, unless told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000_000))]
    pub users: Option<u64>,
    /// How fast all streams may start, such as at kick-off
    #[arg(long, value_name = "MINUTES", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub ramp_minutes: u64,
    /// How busy provisioned capacity is kept, in percent; AWS' default for its scaling
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u64).range(20..=90))]
    pub utilization_percent: u64,
}

/// The settings that matter for a plan, checked before.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Terms {
    pub heartbeat_s: u64,
    pub lease_s: u64,
    pub streams_per_user: u64,
    /// A user's bounds at one instance; 0 is none.
    pub starts_per_minute: u64,
    pub heartbeats_per_minute: u64,
}
