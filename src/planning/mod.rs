//! What a number of streams costs and needs on AWS: request rates, capacity units, money, quotas, instances, and how long a
//! crashed player holds its slot.

pub mod demand;
mod estimate;
mod plan;
pub mod prices;
pub mod report;
#[cfg(test)]
mod tests;

pub use self::plan::Plan;
