//! The command line, and what of it goes together. Asks nothing of the service.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use hyper::Uri;
use serde::{Serialize, Serializer};

/// Simulated players against a running service: they start, beat, stop, crash and reload as docs/PROTOCOL.md says.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "load")]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// The service; also https, also with a path before /v1
    #[arg(long, default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    #[serde(serialize_with = "as_text")]
    pub base_url: Uri,
    /// Players; each has one stream at a time
    #[arg(long, default_value_t = 1000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub players: usize,
    /// Seconds
    #[arg(long = "duration", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    #[serde(rename = "durationSeconds", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Players that share one user; more than the limit, and some are denied all the time
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub streams_per_user: usize,
    /// No time between requests: each player sends the next one as soon as it has the answer
    #[arg(long)]
    pub closed_loop: bool,
    /// The most connections that are open at once; a request that finds none free waits, and its time runs
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=60_000))]
    pub connections: usize,
    /// Threads, each with its share of players and connections; half of the processors unless told
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub threads: Option<usize>,
    /// Seconds over which the first starts are spread; 10 unless told, in a closed loop 1, and half the run at most
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    #[serde(skip)]
    ramp_up_seconds: Option<Duration>,
    /// How long a stream lasts on average; the lengths are spread as of lights that burn out
    #[arg(long, default_value = "120", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub session_seconds: Duration,
    /// How long a player waits on average before its next stream
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub pause_seconds: Duration,
    /// Percent of the streams that end by a stop; the three make 100, and are 80, 10 and 10 unless one is told
    /// (in a closed loop 90, 0 and 10)
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip)]
    stop: Option<u8>,
    /// Percent that end without a word; the player comes back as another device
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip)]
    crash: Option<u8>,
    /// Percent that end without a word, and whose player starts again at once as the same device
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip)]
    reload: Option<u8>,
    /// What a start names itself by
    #[arg(long, value_enum, default_value_t = StartBy::Device)]
    pub start_by: StartBy,
    /// The limit to check; as the service tells it in its answers, unless told
    #[arg(long)]
    pub limit: Option<u32>,
    /// How much sooner than promised a lease may be gone before it counts: rounding (up to 1 s) and how far the clocks of
    /// instances may differ
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub tolerance_seconds: Duration,
    /// After how long a request counts as not answered
    #[arg(long, default_value = "15", value_parser = seconds, value_name = "SECONDS")]
    #[serde(serialize_with = "as_seconds")]
    pub timeout_seconds: Duration,
    /// A bearer token that may act for all users; other users of this host can read it, a file is better
    #[arg(long, conflicts_with = "token_file")]
    #[serde(skip)]
    pub token: Option<String>,
    /// A file with the bearer token, read once
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub token_file: Option<PathBuf>,
    /// For the same lengths, ends and times of players again; another one each time unless told
    #[arg(long)]
    pub seed: Option<u64>,
    /// Writes the result there; "-" is standard output, and the text goes to standard error
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
    /// A device id, as players should: each start first reads what the user has
    Device,
    /// An idempotency key: a start is one transaction as long as there is room
    Key,
}

impl Options {
    /// What remains open is filled in, and what contradicts itself is refused.
    pub fn settled(mut self) -> Result<Self, String> {
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
            return Err(format!("--stop, --crash and --reload make {sum} percent together: must be 100"));
        }
        if self.duration.is_zero() || self.timeout_seconds.is_zero() {
            return Err("--duration and --timeout-seconds must be more than 0".to_owned());
        }
        let usual = Duration::from_secs(if self.closed_loop { 1 } else { 10 });
        self.ramp_up = self.ramp_up_seconds.unwrap_or(usual.min(self.duration / 2));
        if self.ramp_up > self.duration {
            return Err("--ramp-up-seconds must not be longer than --duration".to_owned());
        }
        let half = std::thread::available_parallelism().map_or(1, |processors| processors.get() / 2);
        let threads = self.threads.unwrap_or(half.max(1));
        // A thread without a user or a connection would have nothing to do.
        self.threads = Some(threads.min(self.connections).min(self.players.div_ceil(self.streams_per_user)));
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
        _ => Err("must be http:// or https:// with a host, without a user and without a query".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}"))?;
    if duration <= Duration::from_secs(7 * 86_400) { Ok(duration) } else { Err("must be a week at most".to_owned()) }
}

fn as_text<S: Serializer>(url: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(url)
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
