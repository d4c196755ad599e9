//! The checks of a run: every applied write is explained, and every response was true at some moment of its call. They
//! follow from the guarantees in docs/CORRECTNESS.md and share no code with the stores.

pub mod responses;
pub mod violation;
pub mod writes;

mod responses_tests;
mod writes_tests;
