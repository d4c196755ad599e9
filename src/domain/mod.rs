//! The domain model: plain data and pure functions, without I/O, clocks or frameworks.

pub mod admission;
pub mod labels;
pub mod lease;
pub mod names;
pub mod rules;
