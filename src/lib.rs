//! Limits how many video streams a user watches at once.
//!
//! Every playing stream holds a lease in a store such as DynamoDB. A stream gets a lease only if the user is below the
//! limit. Heartbeats renew the lease, and a lease that is not renewed expires.
//!
//! # Reading order
//!
//! 1. [`domain::lease`] and [`domain::names`]: the data.
//! 2. [`domain::admission`]: the rules, as pure functions.
//! 3. [`store`]: the storage contract and its implementations.
//! 4. [`limiter`]: start, heartbeat, stop and list, with retries, logs and metrics.
//! 5. [`http`]: the API.
//!
//! [`planning`] estimates cost and capacity, and [`report`] evaluates events. `docs/ARCHITECTURE.md` shows how the parts fit together.
//!
//! # Invariants
//!
//! Each line names the tests that check it. Test paths are relative to `tests/`.
//!
//! 1. No start makes a user hold more leases than the limit: `integration/contract`, and `chaos` with several processes on
//!    one table.
//! 2. The slot of a crashed player is free when its lease expires, without a background job: `integration/contract`.
//! 3. A repeated operation never takes or frees a second slot: `integration/contract`, `integration/faults.rs`.
//! 4. A store failure is never reported as a reached limit or as an ended stream: `integration/faults.rs`,
//!    `integration/bounds.rs`.
//! 5. Only `store::dynamodb`, `store::embedded` and `migrate` use the AWS SDK, only `http` uses poem, and only
//!    `clock` reads the time: `integration/architecture`.

pub mod clock;
pub mod config;
pub mod domain;
pub mod events;
pub mod http;
pub mod limiter;
pub mod live_streams;
pub mod migrate;
pub mod planning;
pub mod report;
pub mod store;
pub mod telemetry;
mod text_table;
