//! Limits how many video streams a user watches at once.
pub mod admission;
pub mod clock;
pub mod config;
pub mod http;
pub mod lease;
pub mod limiter;
pub mod metrics;
pub mod migrate;
pub mod names;
pub mod store;
pub mod telemetry;
