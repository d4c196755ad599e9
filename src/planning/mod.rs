//! Estimates what a number of streams needs on AWS: request rates, capacity units, costs, quotas and instances. Also calculates
//! how long a crashed player holds its slot.

pub mod demand;
mod estimate;
mod plan;
pub mod prices;
pub mod report;
#[cfg(test)]
mod tests;

pub use self::plan::Plan;
