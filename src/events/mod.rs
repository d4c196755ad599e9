//! Events: one record for each outcome of a start, a stop and an eviction, for reports and audits. [`cloud_event`] is the format.

pub mod cloud_event;
