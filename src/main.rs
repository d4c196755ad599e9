//! The command line: reads the settings, and runs one command with the real clock, store and servers.

mod commands;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use stream_manager::config::{Config, StoreKind};
use stream_manager::planning::demand::{Demand, Terms};
use stream_manager::planning::prices::Prices;
use stream_manager::planning::{self, report};
use stream_manager::store::dynamodb::client::{self, Client};
use stream_manager::{http, migrate, telemetry};
use tokio::runtime::{Builder, Runtime};

/// Limits how many video streams a user watches at once.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// A file of settings over the built-in ones; see `check-config`
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests (the default)
    Serve,
    /// Create the DynamoDB table, or bring it up to date
    Migrate {
        /// Change nothing: print a line for all that is missing. Exit code 0: nothing; 1: something; 3: not to be found out
        #[arg(long)]
        check: bool,
    },
    /// Estimate what a number of streams costs and needs on AWS, and what other heartbeats would save
    Plan(PlanArguments),
    /// Print the OpenAPI document
    Openapi,
    /// Print the settings in force, or say what is wrong with them
    CheckConfig,
    /// Ask a running service on this host whether it lives; for containers without a shell
    Healthcheck,
}

#[derive(clap::Args)]
struct PlanArguments {
    #[command(flatten)]
    demand: Demand,
    /// How far apart heartbeats are, instead of the setting in force
    #[arg(long, value_name = "SECONDS")]
    heartbeat: Option<u64>,
    /// How long a lease is, instead of the setting in force; with --heartbeat alone, three of them
    #[arg(long, value_name = "SECONDS")]
    lease: Option<u64>,
    /// A file of prices over the built-in ones, src/plan/prices.toml
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `migrate --check` ends with when it cannot say: 1 is a table that differs, 2 a command line not understood.
const UNKNOWN: u8 = 3;

/// Most of what a request costs beyond the framework is many small pieces of memory: see docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever a parser has drawn in it.
            let words: Vec<String> = format!("{error:#}").split_whitespace().map(str::to_owned).collect();
            eprintln!("error: {}", words.join(" "));
            match arguments.command {
                Some(Command::Migrate { check: true }) => UNKNOWN.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(Command::Migrate { check: true }) = arguments.command {
        let config = Config::load(arguments.config.as_deref(), environment()?)?;
        return run_to_end(&config, check_table(&config));
    }
    run_command(arguments).map(|()| ExitCode::SUCCESS)
}

fn run_command(arguments: &Arguments) -> Result<()> {
    if let Some(Command::Openapi) = arguments.command {
        return print(&format!("{}\n", http::api::openapi::openapi_document()));
    }
    if let Some(Command::Plan(plan)) = &arguments.command {
        return print(&run_plan(arguments.config.as_deref(), plan)?);
    }
    let config = Config::load(arguments.config.as_deref(), environment()?)?;
    match arguments.command {
        None | Some(Command::Serve) => {
            let variable = |name: &str| std::env::var(name).ok();
            let traces = telemetry::start(&config.log, variable).map_err(anyhow::Error::msg)?;
            let served = run_to_end(&config, commands::serve::serve(&config));
            if let Some(traces) = traces {
                traces.end();
            }
            served
        }
        Some(Command::Migrate { .. }) => run_to_end(&config, run_migrate(&config)),
        Some(Command::CheckConfig) => print(&config.to_toml()),
        Some(Command::Healthcheck) => healthcheck(config.server.bind),
        Some(Command::Openapi | Command::Plan(_)) => Ok(()),
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        _ => Ok(()),
    }
}

/// Only what could be ours: other variables need not be UTF-8.
fn environment() -> Result<HashMap<String, String>> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.to_ascii_uppercase().starts_with("STREAM_MANAGER").then_some((name, value))
    });
    let text = ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => bail!("the environment variable {name} is not UTF-8"),
    });
    text.collect()
}

fn run_to_end<T>(config: &Config, command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime(config.worker_threads()).context("cannot start the runtime")?;
    let result = runtime.block_on(command);
    // Dropping it would wait for a look-up of a host name that may take as long as it likes.
    runtime.shutdown_background();
    result
}

/// One worker has a scheduler of its own, which takes turns among the connections where the other follows each request to its
/// end: the same code for many of them in a row, and half as many answers again on DynamoDB: see docs/PERFORMANCE.md.
fn runtime(workers: NonZeroUsize) -> std::io::Result<Runtime> {
    match workers.get() {
        1 => Builder::new_current_thread().enable_all().build(),
        several => Builder::new_multi_thread().worker_threads(several).enable_all().build(),
    }
}

/// What `migrate` and its check work with.
async fn connect(config: &Config) -> Result<(Client, &str)> {
    if config.store.kind != StoreKind::DynamoDb {
        bail!("only store.kind = \"dynamodb\" needs `migrate`: the other stores prepare themselves at start");
    }
    Ok((client::connect(&config.client()).await?, &config.dynamodb.table))
}

async fn check_table(config: &Config) -> Result<ExitCode> {
    let (client, table) = connect(config).await?;
    let differences = migrate::differences(&client, table).await?;
    if differences.is_empty() {
        print(&format!("table {table:?}: is up to date\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<String> = differences.iter().map(|difference| format!("{difference}\n")).collect();
    print(&lines.concat())?;
    Ok(ExitCode::FAILURE)
}

async fn run_migrate(config: &Config) -> Result<()> {
    let (client, table) = connect(config).await?;
    let migrated = migrate::migrate(&client, table).await?;
    let changes = match (migrated.created_table, migrated.enabled_ttl) {
        (true, _) => "created, TTL is on",
        (false, true) => "was there, TTL was turned on",
        (false, false) => "is up to date, nothing was changed",
    };
    println!("table {table:?}: {changes}");
    Ok(())
}

fn run_plan(file: Option<&Path>, arguments: &PlanArguments) -> Result<String> {
    let mut environment = environment()?;
    // As settings they are held to the bounds of settings.
    let mut set = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            environment.retain(|other, _| !other.eq_ignore_ascii_case(name));
            environment.insert(name.to_owned(), value.to_string());
        }
    };
    set("STREAM_MANAGER__LEASE__HEARTBEAT_INTERVAL_S", arguments.heartbeat);
    let thrice = arguments.heartbeat.map(|heartbeat_s| heartbeat_s.saturating_mul(3));
    set("STREAM_MANAGER__LEASE__DURATION_S", arguments.lease.or(thrice));
    let config = Config::load(file, environment)?;
    let terms = Terms {
        heartbeat_s: config.lease.heartbeat_interval_s,
        lease_s: config.lease.duration_s,
        streams_per_user: config.limits.streams_per_user,
        starts_per_minute: config.rate.starts_per_minute,
        heartbeats_per_minute: config.rate.heartbeats_per_minute,
    };
    let prices = Prices::load(arguments.prices.as_deref())?;
    let plan = planning::plan(&arguments.demand, terms, &prices);
    Ok(if arguments.json { report::json(&plan) } else { report::text(&plan) })
}

/// One request by hand: an HTTP client is much to carry for this.
fn healthcheck(bind: SocketAddr) -> Result<()> {
    let host = match bind.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(host, bind.port());
    let within = Duration::from_secs(3);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, within)?;
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        write!(stream, "GET /health/live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().with_context(|| format!("no answer from http://{address}/health/live"))?;
    let status = answer.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        bail!("http://{address}/health/live answered {status:?}");
    }
    println!("ok");
    Ok(())
}
