//! The checks of a run. A write must explain every state change, and every response must have been true at some moment
//! of its call. The checks follow from the guarantees in docs/CORRECTNESS.md and share no code with the stores.

mod eviction_order;
mod observe;
pub mod responses;
pub mod rules;
pub mod violation;
pub mod writes;

mod responses_tests;
mod writes_tests;
