//! Events: the outcomes of starts, stops, evictions, changes of limits and erasures, for reports and audits. [`cloud_event`] is the
//! format.
//!
//! The limiter puts a [`record::Record`] into a bounded queue, which never waits. A separate thread converts the records to events
//! and writes them in batches, so that a slow or full sink delays no request.

pub mod cloud_event;
mod conversion;
mod daily_files;
mod losses;
mod personal_data;
pub mod queue;
pub mod record;
pub mod settings;
mod sink;
pub mod writer;

#[cfg(test)]
mod schema_tests;
