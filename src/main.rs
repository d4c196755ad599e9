//! The command line of `stream-manager`: parses it and runs one subcommand.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::commands::migrate::MigrateArguments;
use self::commands::plan::PlanArguments;
use self::commands::report::ReportArguments;

/// Limits how many video streams a user watches at once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings file that overrides the built-in defaults; see `check-config`
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests (the default)
    Serve,
    /// Create the DynamoDB table, or update it
    Migrate(MigrateArguments),
    /// Estimate cost and capacity on AWS for a number of streams, and compare heartbeat intervals
    Plan(PlanArguments),
    /// Evaluate event files: concurrency, denials, and what other limits would deny
    Report(ReportArguments),
    /// Print the OpenAPI document
    Openapi,
    /// Validate the settings, and print them without secrets
    CheckConfig,
    /// Probe /health/live of the local instance; for containers without a shell
    Healthcheck,
}

/// Requests allocate mostly small blocks, and mimalloc is faster for these: see docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = arguments.config.as_deref();
    let result = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => commands::serve::run(file),
        Command::Migrate(arguments) => commands::migrate::run(file, &arguments),
        Command::Plan(arguments) => commands::plan::run(file, &arguments),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Openapi => commands::openapi::run(),
        Command::CheckConfig => commands::check_config::run(file),
        Command::Healthcheck => commands::healthcheck::run(file),
    };
    result.unwrap_or_else(|error| {
        commands::output::print_error(&error);
        ExitCode::FAILURE
    })
}
