//! The domain: plain data and pure functions. No I/O, no clock, no framework.

pub mod admission;
pub mod lease;
pub mod names;
