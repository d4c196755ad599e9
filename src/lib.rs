//! Limits how many video streams a user watches at once: leases in DynamoDB, never one too many.
//!
//! In reading order: [`names`] and [`lease`] are the words, [`admission`] the rules, [`store`] the contract of what
//! keeps them, [`limiter`] the verbs, [`http`] the way in, [`plan`] what it all costs. `docs/ARCHITECTURE.md` draws the whole.
//!
//! What always holds, and where it is shown:
//!
//! 1. A user never holds more leases than the limit: `store` contract, `tests/integration/contract.rs`; several processes on
//!    one table, `tests/chaos`.
//! 2. A crashed player's slot is free at its lease's expiry, without any background job: `tests/integration/contract.rs`.
//! 3. Repeating a verb never takes or frees a second slot: `tests/integration/contract.rs`, `tests/integration/faults.rs`.
//! 4. A failing store is never answered as a limit or an ended stream: `tests/integration/faults.rs`, `tests/integration/bounds.rs`.
//! 5. Only `store::dynamodb`, `store::embedded` and `migrate` know AWS; only `http` knows poem; only `clock` reads the
//!    time: `tests/integration/architecture.rs`.

pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod limiter;
pub mod migrate;
pub mod planning;
pub mod store;
pub mod telemetry;
