//! The promises, shown by search: a model of the protocol, a simulation of the real code, and wrong versions of both
//! that must be caught. docs/CORRECTNESS.md says what each covers, and how to run it longer.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod documents;
mod expressions;
mod model;
mod mutants;
mod protocol;
mod simulation;
