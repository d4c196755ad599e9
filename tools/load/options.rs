//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use hyper::Uri;
use serde::{Serialize, Serializer};

/// Simulates players of a running service: they start, heartbeat, stop, crash and reload as docs/PROTOCOL.md describes
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "load")]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// URL of the service, http or https, optionally with a path before /v1
    #[arg(long, default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    #[serde(serialize_with = "as_text")]
    pub base_url: Uri,
    /// Number of players, each with one stream at a time
    #[arg(long, default_value_t = 1000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub players: usize,
    /// Duration of the run
    #[arg(long = "duration", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    #[serde(rename = "durationSeconds", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Players per user. With more players than the limit, some starts are always denied
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub streams_per_user: usize,
    /// Send each request as soon as the player has the previous response
    #[arg(long)]
    pub closed_loop: bool,
    /// Maximum number of open connections. A request waits for a free one, and the wait counts as latency
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=60_000))]
    pub connections: usize,
    /// Number of threads, each with its share of players and connections [default: half of the processors]
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub threads: Option<usize>,
    /// Period over which the first starts are spread [default: 10; in a closed loop 1; at most half of --duration]
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    #[serde(skip)]
    ramp_up_seconds: Option<Duration>,
    /// Mean session length (exponentially distributed)
    #[arg(long, default_value = "120", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub session_seconds: Duration,
    /// Mean pause of a player between two streams (exponentially distributed)
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub pause_seconds: Duration,
    /// Percentage of streams that end with a stop. --stop, --crash and --reload must add up to 100
    /// [default: 80, 10 and 10; in a closed loop 90, 0 and 10]
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip)]
    stop: Option<u8>,
    /// Percentage of streams that end without a request. The player returns as another device
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip)]
    crash: Option<u8>,
    /// Percentage of streams that end without a request. The player starts again at once as the same device
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip)]
    reload: Option<u8>,
    /// How the service recognizes a repeated start
    #[arg(long, value_enum, default_value_t = StartBy::Device)]
    pub start_by: StartBy,
    /// The limit to check [default: the limit in the responses]
    #[arg(long)]
    pub limit: Option<u32>,
    /// How much earlier than promised a lease may expire, because of rounding (up to 1 s) and clock skew between instances
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub tolerance_seconds: Duration,
    /// Timeout of a request
    #[arg(long, default_value = "15", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub timeout_seconds: Duration,
    /// Bearer token that may act for all users. Other users of this host can see it; prefer --token-file
    #[arg(long, conflicts_with = "token_file")]
    #[serde(skip)]
    pub token: Option<String>,
    /// File with the bearer token, read once
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub token_file: Option<PathBuf>,
    /// Seed of the players' random session lengths, pauses and ends [default: random]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the report to this file as JSON. With "-", JSON goes to standard output and text to standard error
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    #[arg(skip)]
    #[serde(rename = "endsPercent")]
    pub ends: Ends,
    #[arg(skip)]
    #[serde(rename = "rampUpSeconds", serialize_with = "as_seconds")]
    pub ramp_up: Duration,
}

/// How streams end, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    pub stop: u8,
    pub crash: u8,
    pub reload: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StartBy {
    /// A device id, as players should send. The service reads the user's leases before each start
    Device,
    /// An idempotency key. Below the limit, a start is a single transaction
    Key,
}

impl Options {
    /// Checks the options against each other, and sets the options that have no fixed default.
    pub fn resolve(mut self) -> Result<Self, String> {
        self.ends = match (self.stop, self.crash, self.reload) {
            (None, None, None) if self.closed_loop => Ends { stop: 90, crash: 0, reload: 10 },
            (None, None, None) => Ends { stop: 80, crash: 10, reload: 10 },
            (stop, crash, reload) => Ends {
                stop: stop.unwrap_or_default(),
                crash: crash.unwrap_or_default(),
                reload: reload.unwrap_or_default(),
            },
        };
        let sum: u16 = [self.ends.stop, self.ends.crash, self.ends.reload].into_iter().map(u16::from).sum();
        if sum != 100 {
            return Err(format!("--stop, --crash and --reload add up to {sum} %: must be 100 %"));
        }
        if self.duration.is_zero() || self.timeout_seconds.is_zero() {
            return Err("--duration and --timeout-seconds must be more than 0".to_owned());
        }
        let default = Duration::from_secs(if self.closed_loop { 1 } else { 10 });
        self.ramp_up = self.ramp_up_seconds.unwrap_or(default.min(self.duration / 2));
        if self.ramp_up > self.duration {
            return Err("--ramp-up-seconds must not be longer than --duration".to_owned());
        }
        let half = std::thread::available_parallelism().map_or(1, |processors| processors.get() / 2);
        let threads = self.threads.unwrap_or(half.max(1));
        // Each thread needs at least one user and one connection.
        self.threads = Some(threads.min(self.connections).min(self.players.div_ceil(self.streams_per_user)));
        // The JSON report contains the seed. JSON numbers are exact only up to 2^53.
        self.seed = self.seed.or_else(|| Some(fastrand::u64(0..1 << 53)));
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            self.token = Some(token.trim().to_owned());
        }
        Ok(self)
    }

    pub fn threads(&self) -> usize {
        self.threads.unwrap_or(1)
    }

    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_default()
    }
}

fn base_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.trim_end_matches('/').parse().map_err(|error| format!("{error}"))?;
    match url.scheme_str() {
        Some("http" | "https") if url.query().is_none() && !text.contains('@') => Ok(url),
        _ => Err("must be an http or https URL with a host, without credentials and without a query".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}"))?;
    if duration <= Duration::from_secs(7 * 86_400) { Ok(duration) } else { Err("must be at most a week".to_owned()) }
}

fn as_text<S: Serializer>(url: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(url)
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
