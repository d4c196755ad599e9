//! The specification, executed: a file a concern.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod agreement;
mod architecture;
mod bounds;
mod broken;
mod command_output;
mod contract;
mod corpus;
mod cors;
mod demo;
mod documents;
mod embedded;
mod faults;
mod hostile;
mod http;
mod limiter_log;
mod log_events;
mod logs;
mod metrics;
mod monitoring;
mod overload;
mod plan;
mod process;
mod refusals;
mod requests;
mod retries;
mod schema;
mod server;
mod settings;
mod shutdown;
mod starts;
mod startup;
mod support;
mod tables;
mod tokens;
mod traces;
