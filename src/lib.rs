//! Limits how many video streams a user watches at once: leases in DynamoDB, never one too many.
//!
//! In reading order: [`names`] and [`lease`] are the words, [`admission`] the rules, [`store`] the contract of what
//! keeps them, [`limiter`] the verbs, [`http`] the way in, [`plan`] what it all costs. `docs/ARCHITECTURE.md` draws the whole.
//!
//! What always holds, and where it is shown:
//!
//! 1. A user never holds more leases than the limit: `store` contract, `tests/it/contract.rs`; several processes on
//!    one table, `tests/race`.
//! 2. A crashed player's slot is free at its lease's expiry, without any background job: `tests/it/contract.rs`.
//! 3. Repeating a verb never takes or frees a second slot: `tests/it/contract.rs`, `tests/it/faults.rs`.
//! 4. A failing store is never answered as a limit or an ended stream: `tests/it/faults.rs`, `tests/it/bounds.rs`.
//! 5. Only `store::dynamodb`, `store::embedded` and `migrate` know AWS; only `http` knows poem; only `clock` reads the
//!    time: `tests/it/architecture.rs`.

pub mod names;

pub mod lease;

pub mod admission;

pub mod clock;

pub mod store;

pub mod metrics;

pub mod limiter;

pub mod http;

pub mod migrate;

pub mod config;

pub mod telemetry;

pub mod plan;
