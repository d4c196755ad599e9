//! The subcommands, one file each, and the code that they share.

pub mod check_config;
pub mod healthcheck;
pub mod migrate;
pub mod openapi;
pub mod output;
pub mod plan;
pub mod report;
mod runtime;
pub mod serve;
mod settings;
