//! The specification, executed: a file a concern.

#![allow(clippy::disallowed_methods, reason = "tests may look at the host's clock")]

mod agreement;
mod architecture;
mod bounds;
mod contract;
mod documents;
mod embedded;
mod faults;
mod http;
mod process;
mod refusals;
mod requests;
mod server;
mod settings;
mod starts;
mod support;
mod tables;
