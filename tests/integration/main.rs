//! The integration tests: one module per subject.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod abusive_clients;
mod architecture;
mod bodies;
mod bounds;
mod captured_log;
mod command_output;
mod contract;
mod corpus;
mod corrupt_items;
mod cors;
mod cors_settings;
mod demo;
mod documents;
mod embedded;
mod exposure;
mod fault_injector;
mod faults;
mod http;
mod limiter_log;
mod log_events;
mod logs;
mod metrics;
mod migrations;
mod monitoring;
mod otlp_collector;
mod overload;
mod plan;
mod platform_variables;
mod process;
mod requests;
mod retries;
mod schema;
mod service;
mod settings;
mod shutdown;
mod starts;
mod startup;
mod store_equivalence;
mod support;
mod test_app;
mod tokens;
mod trace_export;
mod traces;
mod validation;
